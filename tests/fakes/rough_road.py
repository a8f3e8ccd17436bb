"""A road to a server on which connections break, in the ways in which they break: to be travelled again and again."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

_PIECE_BYTES = 64 * 1024
Break = Literal["cut", "half-close", "lose-answer"]


@dataclass(slots=True)
class RoughRoad:
    """Pass bytes on between its own port and a server, `piece_bytes` at a time.

    After `breaks_after` bytes of a caller's the connection breaks: `cut` ends both sides at once; `half-close` says to
    the server that nothing more comes, and brings its answer; `lose-answer` passes on everything but the answer.
    What enters while there is a `gate` waits before it, and is overtaken by what comes later.
    """

    host: str
    port: int
    url: str = ""
    how: Break = "cut"
    breaks_after: int | None = None
    piece_bytes: int = _PIECE_BYTES
    gate: asyncio.Event | None = None
    connections: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it, or it breaks."""
        current = asyncio.current_task()
        assert current is not None
        self.connections.add(current)
        if self.gate is not None:
            await self.gate.wait()
        inner_reader, inner_writer = await asyncio.open_connection(self.host, self.port)
        answering = asyncio.ensure_future(self._answer(inner_reader, writer))
        try:
            await self._send(reader, inner_writer)
            await answering
        except ConnectionError:
            pass
        finally:
            answering.cancel()
            writer.transport.abort()
            inner_writer.transport.abort()
            await asyncio.gather(answering, return_exceptions=True)
            self.connections.discard(current)

    async def _send(self, reader: asyncio.StreamReader, inner: asyncio.StreamWriter) -> None:
        passed = 0
        while piece := await reader.read(self.piece_bytes):
            if self.breaks_after is not None and self.how != "lose-answer":
                piece = piece[: self.breaks_after - passed]
            inner.write(piece)
            await inner.drain()
            passed += len(piece)
            if passed == self.breaks_after and self.how == "cut":
                raise ConnectionAbortedError
            if passed == self.breaks_after and self.how == "half-close":
                break
        inner.write_eof()

    async def _answer(self, inner: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await inner.read(self.piece_bytes):
            if self.how == "lose-answer" and self.breaks_after is not None:
                break
            writer.write(piece)
            await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def rough_road_to(url: str) -> AsyncGenerator[RoughRoad]:
    """Run a road to the server at `url`."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    road = RoughRoad(parts.hostname, parts.port)
    server = await asyncio.start_server(road.handle, "127.0.0.1", 0)
    road.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        try:
            yield road
        finally:
            for connection in road.connections:
                connection.cancel()
            await asyncio.gather(*road.connections, return_exceptions=True)
