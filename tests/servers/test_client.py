"""The client: results, errors as what they are, and answers of those that are no tool server."""

import socket
from collections.abc import AsyncGenerator, Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mcp_toolserver.app import create_server_app
from mcp_toolserver.auth import DoorPolicy
from mcp_toolserver.client import ToolClient
from mcp_toolserver.errors import BackendRejected, BackendUnavailable, Conflict, TimedOut, UnknownTool
from tests.fakes.toy_server import SERVER

Serve = Callable[[ASGIApp], str]


async def strange(request: Request) -> Response:
    """Answer as a proxy or a web page does."""
    return PlainTextResponse("<html>", status_code=int(request.path_params["status"]))


async def held(request: Request) -> Response:
    """Answer as a server does of whose upload another request has hold."""
    retryable = request.path_params["retryable"] == "True"
    return JSONResponse({"error": {"code": "conflict", "message": "held", "retryable": retryable}}, 423)


async def echo(request: Request) -> Response:
    """Answer with what was heard."""
    said = f"{request.headers['x-mine']} {(await request.body()).decode()}"
    return Response(status_code=204, headers={"X-Heard": said})


def other_server(serve: Serve) -> str:
    routes = [
        Route("/{status:int}/mcp/tool", strange, methods=["POST"]),
        Route("/held/{retryable}/{rest:path}", held, methods=["POST", "PATCH"]),
        Route("/echo", echo, methods=["PUT"]),
    ]
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


@pytest.mark.parametrize(("retryable", "error"), [(True, BackendUnavailable), (False, Conflict)])
async def test_what_the_server_would_have_tried_again_is_retryable(
    serve: Serve, retryable: bool, error: type[BackendUnavailable | Conflict]
) -> None:
    async with ToolClient(f"{other_server(serve)}/held/{retryable}") as client:
        with pytest.raises(error, match="held") as caught:
            await client.call("nothing")
        with pytest.raises(error):
            await client.send("PATCH", "/uploads/one", {})
    assert type(caught.value) is error


async def test_a_request_beside_the_tools_streams_its_body_and_answers_with_headers(serve: Serve) -> None:
    async def body() -> AsyncGenerator[bytes]:
        for piece in (b"one", b"two"):
            yield piece

    async with ToolClient(other_server(serve)) as client:
        assert (await client.send("PUT", "/echo", {"X-Mine": "yes"}, body()))["x-heard"] == "yes onetwo"
