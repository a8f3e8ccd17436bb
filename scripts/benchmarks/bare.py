"""The yardstick of the HTTP rows: bare Starlette routes that do the same work without any of our checks."""

import asyncio
import base64
import json
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def bare_app(folder: str) -> Starlette:
    """Build the routes: one answers JSON, one appends a base64 chunk to a file, one writes a body to a file."""

    async def echo(request: Request) -> Response:
        body: Any = json.loads(await request.body())
        return JSONResponse({"success": True, "tool": body["tool"], "result": {}})

    async def append(request: Request) -> Response:
        body: Any = json.loads(await request.body())
        arguments = body["arguments"]
        data = base64.b64decode(arguments["chunk"])
        with (Path(folder) / arguments["upload_id"]).open("ab") as part:
            part.write(data)
        return JSONResponse({"success": True, "result": {"received_bytes": len(data)}})

    async def raw(request: Request) -> Response:
        with (Path(folder) / request.path_params["name"]).open("wb") as file:
            async for piece in request.stream():
                file.write(piece)
        return JSONResponse({"success": True})

    return Starlette(
        routes=[
            Route("/echo", echo, methods=["POST"]),
            Route("/append", append, methods=["POST"]),
            Route("/raw/{name}", raw, methods=["PUT"]),
        ]
    )


def serve_bare(folder: str) -> None:
    """Serve the routes on a free port, and say on stdout where."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    config = uvicorn.Config(bare_app(folder), http="h11", ws="none", log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


@asynccontextmanager
async def bare_server(folder: str) -> AsyncGenerator[str]:
    """Run the routes in a process of their own; yields their address."""
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, folder, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["url"]
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    serve_bare(sys.argv[1])
