"""A relay before a server, whose connections can be cut: WebSockets alone, or the answer to one request."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_PIECE_BYTES = 64 * 1024


@dataclass(slots=True)
class Relay:
    """Pass bytes on between its own port and a server.

    `swallow_answer_to` is the beginning of a request (such as `POST /prompt`) that reaches the server once, and whose
    answer is then lost. `lets_sockets_in` False turns WebSockets away. A request that begins with `not_found` is
    answered with 404, as an older server would. While `answers` is False, every request breaks its connection.
    """

    host: str
    port: int
    url: str = ""
    swallow_answer_to: str | None = None
    lets_sockets_in: bool = True
    not_found: str | None = None
    answers: bool = True
    requests: list[str] = field(default_factory=list[str])
    _sockets: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])

    def cut_sockets(self) -> int:
        """Break every open WebSocket; returns how many there were."""
        sockets, self._sockets = self._sockets, set()
        for writer in sockets:
            writer.transport.abort()
        return len(sockets)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        first = await reader.read(_PIECE_BYTES)
        is_socket = first.startswith(b"GET /ws")
        if not first or not self.answers or (is_socket and not self.lets_sockets_in):
            writer.transport.abort()
            return
        if is_socket:
            self._sockets.add(writer)
        inner_reader, inner_writer = await asyncio.open_connection(self.host, self.port)
        try:
            await asyncio.gather(
                self._send(reader, inner_writer, writer, first), self._answer(inner_reader, writer, inner_writer)
            )
        except ConnectionError:
            pass
        finally:
            self._sockets.discard(writer)
            writer.transport.abort()
            inner_writer.transport.abort()

    async def _send(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: asyncio.StreamWriter, piece: bytes
    ) -> None:
        while piece and self.answers:
            line = piece.split(b"\r\n", 1)[0]
            if line.endswith(b" HTTP/1.1"):
                self.requests.append(line.removesuffix(b" HTTP/1.1").decode())
            if self.not_found is not None and line.startswith(self.not_found.encode()):
                answer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            else:
                writer.write(piece)
                await writer.drain()
            piece = await reader.read(_PIECE_BYTES)
        writer.transport.abort()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inner: asyncio.StreamWriter
    ) -> None:
        while piece := await reader.read(_PIECE_BYTES):
            asked = self.requests[-1] if self.requests else ""
            if self.swallow_answer_to is not None and asked.startswith(self.swallow_answer_to):
                self.swallow_answer_to = None
                break
            writer.write(piece)
            await writer.drain()
        writer.transport.abort()
        inner.transport.abort()


@asynccontextmanager
async def relay_before(url: str) -> AsyncGenerator[Relay]:
    """Run a relay before the server at `url`."""
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    relay = Relay(parts.hostname, parts.port)
    server = await asyncio.start_server(relay.handle, "127.0.0.1", 0)
    relay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield relay
