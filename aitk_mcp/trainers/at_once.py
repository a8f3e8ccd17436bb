"""Ask a server for several things at once, but never for all of a thousand."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from anyio import CapacityLimiter, create_task_group

_ItemT = TypeVar("_ItemT")
_ResultT = TypeVar("_ResultT")
_AT_ONCE = 8


async def at_once(work: Callable[[_ItemT], Awaitable[_ResultT]], items: Sequence[_ItemT]) -> list[_ResultT]:
    """Do the same to several items, some at once, and return what came of each."""
    found: dict[int, _ResultT] = {}
    failures: list[Exception] = []
    limiter = CapacityLimiter(_AT_ONCE)

    async def take(index: int) -> None:
        async with limiter:
            if failures:
                return
            try:
                found[index] = await work(items[index])
            except Exception as error:
                failures.append(error)

    async with create_task_group() as group:
        for index in range(len(items)):
            group.start_soon(take, index)
    if failures:
        # Raised here, since the group would wrap it.
        raise failures[0]
    return [found[index] for index in range(len(items))]
