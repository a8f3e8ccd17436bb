"""Try again what may succeed the next time, and only that."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from mcp_toolserver.errors import ToolError

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often to try again, and how long to wait before each time: twice as long as before, up to a limit."""

    retries: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0

    def wait_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row; spread, so that callers do not return in step."""
        longest = min(self.longest_wait_s, self.first_wait_s * 2 ** (failures - 1))
        return longest * random.uniform(0.5, 1.0)


async def patiently(
    work: Callable[[], Awaitable[ValueT]],
    patience: Patience,
    *,
    progress: Callable[[], float] = lambda: 0.0,
    failed: Callable[[ToolError, float], None] = lambda error, wait_s: None,
) -> ValueT:
    """Run `work` until it succeeds, fails for good, or has failed too often in a row without any `progress`.

    Raises the last error. `failed` hears each error that is followed by another try, and the wait before it.
    """
    failures, best = 0, progress()
    while True:
        try:
            return await work()
        except ToolError as error:
            failures = 1 if progress() > best else failures + 1
            best = max(best, progress())
            if not error.retryable or failures > patience.retries:
                raise
            wait_s = patience.wait_s(failures)
            failed(error, wait_s)
        await anyio.sleep(wait_s)
