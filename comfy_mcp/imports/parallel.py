"""Fetch a file by several connections, and pass it on in order: whoever keeps it need not know of that."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

SEGMENT_BYTES = 4 * 1024 * 1024
"""What one connection fetches at a time; this much of each connection is in memory."""

Fetch = Callable[[int, int], AsyncGenerator[bytes]]
"""Yield the bytes from a start to an end, the latter not included."""


async def by_several(fetch: Fetch, start: int, end: int, connections: int) -> AsyncGenerator[bytes]:
    """Yield the bytes from `start` to `end`; raises what the first segment that failed raised, after all before it."""
    ahead: deque[asyncio.Task[list[bytes]]] = deque()
    try:
        while start < end or ahead:
            while start < end and len(ahead) < connections:
                until = min(start + SEGMENT_BYTES, end)
                ahead.append(asyncio.create_task(_collected(fetch(start, until))))
                start = until
            for piece in await ahead[0]:
                yield piece
            ahead.popleft()
    finally:
        for task in ahead:
            task.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)


async def _collected(pieces: AsyncGenerator[bytes]) -> list[bytes]:
    return [piece async for piece in pieces]
