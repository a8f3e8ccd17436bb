"""Spare system calls that uvicorn makes: larger bites of a request's body, and one packet for a short answer.

Uvicorn stops reading a connection at 64 KiB that the app has not taken yet, and starts again when it has: a chunk of
an upload then costs a turn of the event loop every 64 KiB. It also sends the head of an answer by itself, so that the
caller wakes up twice.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

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
    """Send together what is written within one turn of the event loop, up to `_JOINED_BYTES`."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes | bytearray | memoryview] = []
        self._waiting_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._waiting:
            self._loop.call_soon(self._send)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= _JOINED_BYTES:
            self._send()

    def _send(self) -> None:
        if self._waiting:
            together = b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            self._transport.write(together)

    def close(self) -> None:
        self._send()
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


class LeanProtocol(H11Protocol):
    """Speak HTTP/1.1 as uvicorn does, by fewer system calls."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(_JoinedWrites(transport, self.loop))
        self.flow = _Appetite(self.transport, self)
