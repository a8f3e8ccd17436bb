"""Put the doors together: one Starlette app per server, behind one guard, and the ways to run it."""

import ctypes
import logging
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Literal

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from mcp_toolserver.auth import DoorPolicy, Guard
from mcp_toolserver.envelope import JsonResponse, error_response
from mcp_toolserver.errors import Internal, InvalidArguments, NotFound, ToolError, did_you_mean
from mcp_toolserver.files import DOWNLOAD_HEADERS
from mcp_toolserver.http_protocol import LeanProtocol
from mcp_toolserver.mcp_door import PROTOCOL_VERSIONS, McpEndpoint, mcp_server, serve_stdio
from mcp_toolserver.metrics import CONTENT_TYPE
from mcp_toolserver.rest_door import rest_routes
from mcp_toolserver.settings import LOOPBACK_HOSTS, ServerSettings
from mcp_toolserver.tools import Toolbox
from mcp_toolserver.uploads import tus

log = logging.getLogger(__name__)

CONTRACT_VERSION = "1.0"
_M_ARENA_MAX = -8  # malloc.h of glibc
_READ_BY_PAGES = ("X-Request-Id", "Mcp-Session-Id", *DOWNLOAD_HEADERS, *tus.ANSWER_HEADERS)
Lifespan = Callable[[], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class ServerIdentity:
    """Who a server is: package name, title for people, version, and what an agent should know first."""

    name: str
    title: str
    version: str
    instructions: str


@dataclass(frozen=True, kw_only=True)
class BackendState:
    """How the program behind a server is: `engine` names it (comfyui, cli, embedded)."""

    state: Literal["ok", "unavailable"]
    engine: str
    version: str | None = None
    url: str | None = None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class ToolServer:
    """Everything that a server consists of, before any door is opened."""

    identity: ServerIdentity
    toolbox: Toolbox
    backend: Callable[[], Awaitable[BackendState]]
    routes: Sequence[BaseRoute] = ()
    lifespan: Lifespan = nullcontext


def door_policy(settings: ServerSettings) -> DoorPolicy:
    """Derive who may call from the settings."""
    return DoorPolicy(
        token=settings.token,
        allowed_hosts=(*LOOPBACK_HOSTS, settings.host, *settings.allowed_hosts),
        allowed_origins=settings.allowed_origins,
        max_body_bytes=settings.max_body_bytes,
        # Uploads go to disk as they come, and each has announced its size.
        unbounded_paths={tus.PATH: None},
        env_prefix=settings.model_config.get("env_prefix", ""),
    )


def create_server_app(server: ToolServer, policy: DoorPolicy, public_url: str | None = None) -> Starlette:
    """Build the app of a server: MCP at /mcp, REST beside it, the server's own routes, one guard before all."""
    identity = server.identity
    endpoint = McpEndpoint(
        mcp_server(identity.name, identity.version, identity.title, identity.instructions, server.toolbox, public_url),
        policy.max_body_bytes,
    )

    async def version(request: Request) -> Response:
        return JsonResponse(
            {
                "server": identity.name,
                "version": identity.version,
                "protocol_versions": list(PROTOCOL_VERSIONS),
                "contract_version": CONTRACT_VERSION,
                "backend": asdict(await server.backend()),
            }
        )

    async def health(request: Request) -> Response:
        backend = await server.backend()
        return JsonResponse(
            {
                "status": "ok" if backend.state == "ok" else "degraded",
                "server": identity.name,
                "name": identity.title,
                "version": identity.version,
                "backend": asdict(backend),
            }
        )

    async def metrics(request: Request) -> Response:
        return Response(server.toolbox.metrics.as_text(), media_type=CONTENT_TYPE)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with server.lifespan(), endpoint.run():
            yield

    routes: list[BaseRoute] = [
        Route("/mcp", endpoint),
        *rest_routes(server.toolbox, public_url),
        Route("/mcp/version", version, methods=["GET"]),
        Route("/health", health, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        *server.routes,
    ]
    paths = [route.path for route in routes if isinstance(route, Route)]

    async def wrong_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "")
            cause: ToolError = InvalidArguments(
                f"{request.method} is not a method of {request.url.path}.", hint=f"Use {allowed}."
            )
        else:
            cause = NotFound(
                f"There is nothing at {request.url.path}.{did_you_mean(request.url.path, paths)}",
                hint="Tools are called by POST /mcp/tool; GET /mcp/tools lists them.",
            )
        response = error_response(cause, request_id=request.state.request_id)
        response.status_code = error.status_code
        response.headers.update(error.headers or {})
        if request.url.path.startswith(tus.PATH):
            response.headers["Tus-Resumable"] = tus.VERSION
        return response

    async def tool_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ToolError)
        return error_response(error, request_id=request.state.request_id)

    async def surprise(request: Request, error: Exception) -> Response:
        request_id = request.state.request_id
        log.error("request failed", exc_info=error, extra={"path": request.url.path, "request_id": request_id})
        hidden = Internal("The server failed.", hint=f"Its log has the cause under request id {request_id}.")
        return error_response(hidden, request_id=request_id)

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[*_for_pages_of(policy.allowed_origins), Middleware(Guard, policy=policy)],
        exception_handlers={HTTPException: wrong_route, ToolError: tool_error, Exception: surprise},
    )
    app.router.redirect_slashes = False
    return app


def _for_pages_of(origins: Sequence[str]) -> list[Middleware]:
    if not origins:
        return []
    # Before the guard: a browser asks for leave without a token, and a page must be able to read why it was refused.
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "PATCH", "DELETE"),
            allow_headers=("*",),
            expose_headers=_READ_BY_PAGES,
        )
    ]


class _AnnouncingServer(uvicorn.Server):
    """Say on stdout, as one JSON line, where the server listens once it does."""

    def __init__(self, config: uvicorn.Config, name: str, url: str) -> None:
        super().__init__(config)
        self._ready = {"event": "ready", "server": name, "url": url}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            sys.stdout.write(orjson.dumps(self._ready).decode() + "\n")
            sys.stdout.flush()


def run_http(server: ToolServer, settings: ServerSettings) -> None:
    """Serve HTTP until a signal comes; raises SystemExit with a clear text where that would be unsafe or impossible."""
    if settings.host not in (*LOOPBACK_HOSTS, "::1") and settings.token is None:
        raise SystemExit(
            f"{server.identity.name}: to listen on {settings.host}, which others can reach, set a TOKEN first."
        )
    app = create_server_app(server, door_policy(settings), settings.public_url)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        # h11: httptools keeps trailing white space in header values, which fails MCP conformance.
        http=LeanProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    _share_one_pool_of_memory()
    listener = _listen(server.identity.name, settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    _AnnouncingServer(config, server.identity.name, url).run(sockets=[listener])


async def run_stdio(server: ToolServer, public_url: str | None = None) -> None:
    """Serve MCP on stdin and stdout until stdin closes."""
    identity = server.identity
    protocol = mcp_server(
        identity.name, identity.version, identity.title, identity.instructions, server.toolbox, public_url
    )
    await serve_stdio(protocol, server.lifespan)


def _share_one_pool_of_memory() -> None:
    """Keep glibc from giving each thread a pool of its own, where the large blocks of uploads stay when they are free.

    Threads take turns in Python anyway. Other C libraries have no such pools.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)


def _listen(name: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY on each connection; else every answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise SystemExit(f"{name}: cannot listen on {host}:{port}: {error.strerror}. Choose another --port.") from None
    return listener
