"""What the protocol under every door spares, and what it must not change."""

import socket
from collections.abc import AsyncGenerator, Callable
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

Serve = Callable[[ASGIApp], str]
LARGE = bytes(range(256)) * 4096


async def small(request: Request) -> Response:
    return PlainTextResponse("a small answer")


async def length(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def large(request: Request) -> Response:
    return StreamingResponse(_pieces(), headers={"content-length": str(len(LARGE) + 4)})


async def _pieces() -> AsyncGenerator[bytes]:
    yield b"to"
    yield LARGE
    yield b"be"


def app() -> Starlette:
    return Starlette(
        routes=[Route("/small", small), Route("/length", length, methods=["POST"]), Route("/large", large)]
    )


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def to_its_end(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(1 << 16):
        received += piece
    return received


def test_a_small_answer_comes_in_one_piece(serve: Serve) -> None:
    with connected(serve(app())) as connection:
        for _ in range(20):
            connection.sendall(b"GET /small HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            assert connection.recv(1 << 16).endswith(b"\r\n\r\na small answer")


def test_a_connection_that_closes_has_sent_everything(serve: Serve) -> None:
    with connected(serve(app())) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        _, _, body = to_its_end(connection).partition(b"\r\n\r\n")
    assert body == b"to" + LARGE + b"be"


def test_requests_that_do_not_wait_are_answered_in_their_order(serve: Serve) -> None:
    post = b"POST /length HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n"
    last = b"GET /small HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
    with connected(serve(app())) as connection:
        connection.sendall(b"".join(post % size + bytes(size) for size in (3, 3_000_000, 5)) + last)
        answers = to_its_end(connection).split(b"HTTP/1.1 200 OK")[1:]
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == [b"3", b"3000000", b"5", b"a small answer"]
