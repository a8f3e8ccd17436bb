"""Write bytes to a file past the page cache, where the system can do that.

What is acknowledged must be on the disk at once, so that the cache is a detour for it; and a file of gigabytes on that
detour would push out of memory what the next picture needs, such as the base model that ComfyUI has just read.
"""

import errno
import fcntl
import mmap
import os
from collections import deque
from collections.abc import Sequence

BLOCK_BYTES = 4096
"""Offsets, lengths and addresses must be multiples of a disk's block, which is this long or divides it."""
WORTH_IT_BYTES = 128 * 1024
_BUFFER_BYTES = 1024 * 1024

# Some systems have none: there, everything goes through the cache.
_PAST_CACHE: int | None = getattr(os, "O_DIRECT", None)
_spare_buffers: deque[mmap.mmap] = deque(maxlen=8)


def write_at(handle: int, offset: int, pieces: Sequence[bytes]) -> None:
    """Write pieces one after another from `offset` on, in this order, so that a file grows without a hole.

    They are not durable yet: fdatasync has still to be called. Raises OSError; some of the bytes may be there then.
    """
    rest = _Rest(pieces)
    if rest.size_bytes >= WORTH_IT_BYTES + BLOCK_BYTES and _PAST_CACHE is not None:
        offset = _write(handle, offset, rest.take(-offset % BLOCK_BYTES))
        offset = _write_past_cache(handle, _PAST_CACHE, offset, rest)
    _write(handle, offset, rest.take(rest.size_bytes))


class _Rest:
    """Pieces that are still to be written."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = deque(memoryview(piece) for piece in pieces)
        self.size_bytes = sum(map(len, pieces))

    def take(self, size_bytes: int) -> list[memoryview]:
        """Take the first bytes away and return them."""
        taken: list[memoryview] = []
        self.size_bytes -= size_bytes
        while size_bytes:
            piece = self._pieces.popleft()
            if len(piece) > size_bytes:
                self._pieces.appendleft(piece[size_bytes:])
                piece = piece[:size_bytes]
            taken.append(piece)
            size_bytes -= len(piece)
        return taken


def _write(handle: int, offset: int, pieces: Sequence[memoryview]) -> int:
    """Write all pieces through the cache; returns the offset after them."""
    rest = deque(pieces)
    while rest:
        # The system takes at most 1024 pieces at once.
        written = os.pwritev(handle, [rest[each] for each in range(min(len(rest), 1024))], offset)
        offset += written
        while rest and written >= len(rest[0]):
            written -= len(rest.popleft())
        if written:
            rest[0] = rest[0][written:]
    return offset


def _write_past_cache(handle: int, flag: int, offset: int, rest: _Rest) -> int:
    """Write whole blocks from a boundary of a block on; returns the offset after what was written.

    It stops early where the file system does not do such writes; what it could not write so, goes through the cache.
    """
    buffer = _spare_buffers.pop() if _spare_buffers else mmap.mmap(-1, _BUFFER_BYTES)
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    try:
        while size_bytes := min(rest.size_bytes, _BUFFER_BYTES) // BLOCK_BYTES * BLOCK_BYTES:
            view = memoryview(buffer)[:size_bytes]
            filled = 0
            for piece in rest.take(size_bytes):
                view[filled : filled + len(piece)] = piece
                filled += len(piece)
            written = _written_past_cache(handle, flags, flags | flag, offset, view)
            offset += written
            if written < size_bytes:
                return _write(handle, offset, [view[written:]])
        return offset
    finally:
        _spare_buffers.append(buffer)


def _written_past_cache(handle: int, flags: int, flags_past_cache: int, offset: int, block: memoryview) -> int:
    """Return how many bytes the system has written so: none where the file system does not do that."""
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags_past_cache)
        try:
            return os.pwritev(handle, [block], offset)
        finally:
            fcntl.fcntl(handle, fcntl.F_SETFL, flags)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return 0
