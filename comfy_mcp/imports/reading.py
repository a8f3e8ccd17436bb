"""Read the body of an HTTP answer in threads, in large bites.

An HTTP client in the event loop wakes up for every 64 KiB; where a disk is to be kept busy, that is most of the work.
"""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from socket import SHUT_RDWR, socket
from urllib.parse import urlsplit

from anyio import CancelScope, to_thread

TIMEOUT_S = 45.0
"""A sender that is silent for this long is gone; an upload would give it up a little later."""
_BITE_BYTES = 1024 * 1024
_LONGEST_BITE_S = 0.1

READING_ERRORS = (OSError, HTTPException)
"""What a connection that breaks raises."""


@dataclass(frozen=True, slots=True)
class BodyReader:
    """An answer whose body has not been read yet."""

    answer: HTTPResponse

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Yield the body to its end, be that announced or not; raises one of READING_ERRORS."""
        while pieces := await to_thread.run_sync(self._bite, abandon_on_cancel=True):
            for piece in pieces:
                yield piece

    def _bite(self) -> list[bytes]:
        pieces: list[bytes] = []
        size_bytes, until_s = 0, time.monotonic() + _LONGEST_BITE_S
        # What came slowly is passed on too, for it may be all that comes of this connection.
        while size_bytes < _BITE_BYTES and (not pieces or time.monotonic() < until_s):
            try:
                piece = self.answer.read1(_BITE_BYTES)
            except READING_ERRORS:
                if not pieces:
                    raise
                break
            if not piece:
                break
            pieces.append(piece)
            size_bytes += len(piece)
        return pieces


@asynccontextmanager
async def answer_to_get(url: str, headers: Mapping[str, str]) -> AsyncGenerator[BodyReader]:
    """Ask for a URL, following no redirect; raises one of READING_ERRORS."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)

    opened: list[socket] = []

    def ask() -> HTTPResponse:
        connection.connect()
        opened.append(connection.sock)
        connection.request("GET", parts.path, headers=dict(headers))
        return connection.getresponse()

    def close() -> None:
        # A thread may wait for bytes of it yet, and would go on doing so after a mere close.
        for each in opened:
            with suppress(OSError):
                each.shutdown(SHUT_RDWR)
        connection.close()

    try:
        answer = await to_thread.run_sync(ask, abandon_on_cancel=True)
        try:
            yield BodyReader(answer)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(close)
                await to_thread.run_sync(answer.close)
    except BaseException:
        with CancelScope(shield=True):
            await to_thread.run_sync(close)
        raise
