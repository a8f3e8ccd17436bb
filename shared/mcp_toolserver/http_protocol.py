"""Spare system calls that uvicorn makes: larger bites of a request's body, and one packet for a short answer.

Uvicorn stops reading a connection at 64 KiB that the app has not taken yet, and starts again when it has: a chunk of
an upload then costs a turn of the event loop every 64 KiB. It also sends the head of an answer by itself, so that the
caller wakes up twice. And it knows of no files: what is downloaded is copied into the process and out of it.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, cast

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from mcp_toolserver.sending import can_send_files, send_file

ZERO_COPY_SEND = "http.response.zerocopysend"
"""The extension of ASGI by which an app lets a part of a file (`file`, `offset`, `count`) be sent."""

READ_AHEAD_BYTES = 1024 * 1024
_JOINED_BYTES = 64 * 1024


class _Appetite(FlowControl):
    """Go on reading a body until more than `READ_AHEAD_BYTES` of it wait."""

    def __init__(self, transport: asyncio.Transport, protocol: H11Protocol) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def pause_reading(self) -> None:
        cycle = self._protocol.cycle
        # What comes after a whole body is the next request, which must wait.
        if not cycle.more_body or len(cycle.body) > READ_AHEAD_BYTES:
            super().pause_reading()


class _JoinedWrites(asyncio.Transport):
    """Send together what is written within one turn of the event loop or one answer, up to `_JOINED_BYTES`."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes | bytearray | memoryview] = []
        self._waiting_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= _JOINED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if self._waiting:
            together = b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            self._transport.write(together)

    async def emptied(self, flow: FlowControl) -> None:
        """Wait until the system has everything that was written."""
        self.flush()
        self._transport.set_write_buffer_limits(high=0)
        try:
            if flow.write_paused:
                await flow.drain()
        finally:
            self._transport.set_write_buffer_limits()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)


class _Length:
    """Stand for bytes that are sent by another way: whoever counts an answer's bytes needs no more of them."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        return self._size_bytes


class LeanProtocol(H11Protocol):
    """Speak HTTP/1.1 as uvicorn does, by fewer system calls."""

    def __init__(
        self,
        config: Any,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._inner_app = cast(ASGIApp, config.loaded_app)
        if can_send_files:
            self.app: Any = self._with_files

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._joined = _JoinedWrites(transport, self.loop)
        super().connection_made(self._joined)
        self.flow = _Appetite(self.transport, self)

    def on_response_complete(self) -> None:
        self._joined.flush()
        super().on_response_complete()

    def _with_files(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        cycle = self.cycle
        if self._joined.get_extra_info("sslcontext") is None:
            scope.setdefault("extensions", {})[ZERO_COPY_SEND] = {}

        async def sending(message: Message) -> None:
            if message["type"] == ZERO_COPY_SEND:
                await self._send_file(cycle, message["file"].fileno(), message["offset"], message["count"])
            else:
                await send(message)

        return self._inner_app(scope, receive, sending)

    async def _send_file(self, cycle: RequestResponseCycle, file: int, offset: int, count: int) -> None:
        await self._joined.emptied(self.flow)
        if cycle.disconnected:
            return
        self.conn.send_with_data_passthrough(h11.Data(data=cast(bytes, _Length(count))))
        try:
            await send_file(self._joined.get_extra_info("socket").fileno(), file, offset, count)
        except ConnectionError:
            # As where it happens between two writes: the app is told that its caller is gone.
            self._joined.abort()
