"""A body on its way to the disk: received in the event loop while what came before is written in a thread."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress

from anyio import (
    BrokenResourceError,
    create_memory_object_stream,
    create_task_group,
    move_on_after,
)
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream

from mcp_toolserver.errors import ToolError

BATCH_BYTES = 2 * 1024 * 1024
SYNC_BYTES = 32 * 1024 * 1024
"""How much is written before the disk is told to catch up: at the end of a long body it then has little left to do."""

# The system takes at most 1024 pieces in one write.
_MOST_PIECES = 512
SILENCE_S = 60.0
"""A sender that is silent for this long is gone: its connection may look open for hours."""

Write = Callable[[int, Sequence[bytes]], Awaitable[None]]
"""Append pieces at an offset."""
Sync = Callable[[], Awaitable[object]]
"""Make durable what was appended."""


class Incoming:
    """One body of an upload; memory holds two batches at most, however long it is: one comes while one is written."""

    def __init__(self, write: Write, sync: Sync, offset: int, *, silence_s: float = SILENCE_S) -> None:
        self._write = write
        self._sync = sync
        self._offset = offset
        self._silence_s = silence_s
        self._unsynced_bytes = 0
        self._is_syncing = False
        self._refusal: ToolError | None = None

    async def take(self, body: AsyncIterator[bytes]) -> int:
        """Write a body to its end, be that announced, cut or silent; returns the offset after it.

        Raises what `write` or `sync` raised; then what was received after that is dropped.
        """
        sender, receiver = create_memory_object_stream[list[bytes]](0)
        async with create_task_group() as tasks:
            tasks.start_soon(self._write_all, receiver, tasks)
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

    async def _write_all(self, batches: MemoryObjectReceiveStream[list[bytes]], tasks: TaskGroup) -> None:
        async with batches:
            async for batch in batches:
                if self._refusal is not None:
                    return
                try:
                    await self._write(self._offset, batch)
                except ToolError as refusal:
                    self._refusal = self._refusal or refusal
                    return
                size = sum(map(len, batch))
                self._offset += size
                self._unsynced_bytes += size
                if self._unsynced_bytes >= SYNC_BYTES and not self._is_syncing:
                    self._unsynced_bytes, self._is_syncing = 0, True
                    tasks.start_soon(self._sync_aside)

    async def _sync_aside(self) -> None:
        try:
            await self._sync()
        except ToolError as refusal:
            self._refusal = refusal
        finally:
            self._is_syncing = False
