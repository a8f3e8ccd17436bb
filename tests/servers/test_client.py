"""The client: results, errors as what they are, and answers of those that are no tool server."""

import base64
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mcp_toolserver.app import create_server_app
from mcp_toolserver.auth import DoorPolicy
from mcp_toolserver.client import ToolClient
from mcp_toolserver.errors import BackendRejected, BackendUnavailable, TimedOut, UnknownTool
from tests.fakes.toy_server import SERVER

Serve = Callable[[ASGIApp], str]
DATA = bytes(range(256)) * 10


async def strange(request: Request) -> Response:
    """Answer as a proxy or a web page does."""
    return PlainTextResponse("<html>", status_code=int(request.path_params["status"]))


async def file(request: Request) -> Response:
    """Answer with a file that no range is given of, but whose end is known."""
    headers = {"Repr-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(DATA).digest()).decode()}:"}
    if "range" in request.headers:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{len(DATA)}"})
    return Response(DATA, headers=headers | {"ETag": '"one"'})


def other_server(serve: Serve) -> str:
    routes = [Route("/{status}/mcp/tool", strange, methods=["POST"]), Route("/file", file)]
    return serve(Starlette(routes=routes))


async def test_an_error_is_raised_as_what_it_is(serve: Serve) -> None:
    async with ToolClient(serve(create_server_app(SERVER, DoorPolicy()))) as client:
        with pytest.raises(UnknownTool, match="no tool `nothing`") as caught:
            await client.call("nothing")
    assert caught.value.details["tool"] == "nothing"


@pytest.mark.parametrize(
    ("status", "error", "retryable"),
    [(200, BackendRejected, False), (404, BackendRejected, False), (502, BackendUnavailable, True)],
)
async def test_a_stranger_is_told_from_a_server_in_trouble(
    serve: Serve, status: int, error: type[BackendRejected | BackendUnavailable], retryable: bool
) -> None:
    async with ToolClient(f"{other_server(serve)}/{status}") as client:
        with pytest.raises(error, match=str(status)) as caught:
            await client.call("list-loras")
    assert caught.value.retryable is retryable


async def test_nobody_at_the_address_is_said_with_the_address() -> None:
    async with ToolClient("http://127.0.0.1:9") as client:
        with pytest.raises(BackendUnavailable, match=r"http://127\.0\.0\.1:9 does not answer"):
            await client.call("list-loras")


async def test_an_answer_that_does_not_come_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        async with ToolClient(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout_s=0.1) as client:
            with pytest.raises(TimedOut, match="in time"):
                await client.call("nothing")


async def test_a_fetch_that_has_everything_brings_nothing_and_one_with_too_much_begins_anew(
    serve: Serve, tmp_path: Path
) -> None:
    url, part = f"{other_server(serve)}/file", tmp_path / "part"
    digest = hashlib.sha256(DATA).hexdigest()
    async with ToolClient(url.removesuffix("/file")) as client:
        first = await client.fetch(url, part)
        assert (first.size_bytes, first.received_bytes, first.sha256) == (len(DATA), len(DATA), digest)
        again = await client.fetch(url, part)
        assert (again.size_bytes, again.received_bytes, again.sha256) == (len(DATA), 0, digest)
        part.write_bytes(DATA + b"more")
        with pytest.raises(BackendUnavailable, match="shorter"):
            await client.fetch(url, part)
        assert (await client.fetch(url, part)).received_bytes == len(DATA)
    assert part.read_bytes() == DATA
