"""Builds the server: the routes that ComfyUI has, over one engine."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from comfy_mcp.embedded.answers import trouble
from comfy_mcp.embedded.engine import Engine
from comfy_mcp.embedded.folders import Folders
from comfy_mcp.embedded.guards import BodyLimit, SameOrigin
from comfy_mcp.embedded.routes.jobs import job_routes
from comfy_mcp.embedded.routes.listings import asset_routes, internal_routes, listing_routes
from comfy_mcp.embedded.routes.pictures import picture_routes
from comfy_mcp.embedded.routes.prompts import prompt_routes
from comfy_mcp.embedded.routes.sockets import socket_route
from comfy_mcp.embedded.weights import place_weights


def create_app(data_dir: Path) -> Starlette:
    """Return the server for one data directory, which it lays out on its start."""
    folders = Folders(data_dir.absolute())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        await anyio.to_thread.run_sync(_prepare, folders)
        engine = Engine(folders)
        app.router.routes.extend(_routes(engine))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.work)
            yield
            # The worker's thread ends at its next step; the task group waits for it.
            engine.executor.interrupted.set()
            tasks.cancel_scope.cancel()

    return Starlette(
        lifespan=lifespan,
        middleware=[Middleware(SameOrigin), Middleware(BodyLimit)],
        exception_handlers={Exception: _in_trouble},
    )


def _prepare(folders: Folders) -> None:
    folders.create()
    folders.clear_temp()
    place_weights(folders)


def _routes(engine: Engine) -> list[BaseRoute]:
    plain = [*prompt_routes(engine), *listing_routes(engine.folders), *picture_routes(engine.folders)]
    socket = socket_route(engine)
    return [
        *plain,
        socket,
        *job_routes(engine),
        *(Route(f"/api{route.path}", route.endpoint, methods=list(route.methods or ())) for route in plain),
        WebSocketRoute(f"/api{socket.path}", socket.endpoint),
        *internal_routes(engine.folders),
        *asset_routes(),
    ]


async def _in_trouble(request: Request, error: Exception) -> Response:
    return trouble()
