"""Read larger bites of a request's body than uvicorn does by itself.

Uvicorn stops reading a connection at 64 KiB that the app has not taken yet, and starts again when it has: a chunk of
an upload then costs a turn of the event loop every 64 KiB.
"""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

READ_AHEAD_BYTES = 1024 * 1024


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


class UploadProtocol(H11Protocol):
    """Speak HTTP/1.1 as uvicorn does, but for how far ahead a body is read."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.flow = _Appetite(transport, self)
