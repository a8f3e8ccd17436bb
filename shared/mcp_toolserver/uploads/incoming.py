"""A body on its way to the disk: received in the event loop while what came before is written in a thread."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress

from anyio import (
    BrokenResourceError,
    create_memory_object_stream,
    create_task_group,
    move_on_after,
)
from anyio.streams.memory import MemoryObjectReceiveStream

from mcp_toolserver.errors import ToolError

BATCH_BYTES = 1024 * 1024
# The system takes at most 1024 pieces in one write.
_MOST_PIECES = 512
SILENCE_S = 60.0
"""A sender that is silent for this long is gone: its connection may look open for hours."""

Write = Callable[[int, Sequence[bytes]], Awaitable[None]]
"""Append pieces at an offset."""


class Incoming:
    """One body of an upload; memory holds three batches at most, however long it is."""

    def __init__(self, write: Write, offset: int, *, silence_s: float = SILENCE_S) -> None:
        self._write = write
        self._offset = offset
        self._silence_s = silence_s
        self._refusal: ToolError | None = None

    async def take(self, body: AsyncIterator[bytes]) -> int:
        """Write a body to its end, be that announced, cut or silent; returns the offset after it.

        Raises what `write` raised; then what was received after that is dropped.
        """
        sender, receiver = create_memory_object_stream[list[bytes]](1)
        async with create_task_group() as tasks:
            tasks.start_soon(self._write_all, receiver)
            async with sender:
                # Where the channel is broken, the writer has stopped, and says below why.
                with suppress(BrokenResourceError):
                    await self._collect(body, sender.send)
        if self._refusal is not None:
            raise self._refusal
        return self._offset

    async def _collect(self, body: AsyncIterator[bytes], send: Callable[[list[bytes]], Awaitable[None]]) -> None:
        batch: list[bytes] = []
        size = 0
        while True:
            piece: bytes | None = None
            with move_on_after(self._silence_s):
                piece = await anext(body, None)
            if piece:
                batch.append(piece)
                size += len(piece)
            if batch and (piece is None or size >= BATCH_BYTES or len(batch) >= _MOST_PIECES):
                await send(batch)
                batch, size = [], 0
            if piece is None:
                return

    async def _write_all(self, batches: MemoryObjectReceiveStream[list[bytes]]) -> None:
        async with batches:
            async for batch in batches:
                try:
                    await self._write(self._offset, batch)
                except ToolError as refusal:
                    self._refusal = refusal
                    return
                self._offset += sum(map(len, batch))
