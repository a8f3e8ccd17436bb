"""Try again what may succeed the next time, and say so."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from mcp_toolserver.errors import ToolError
from mcp_toolserver.retries import Patience, patiently
from mcp_toolserver.terminal import Teller
from mcp_toolserver.uploads.sender import CallTool

ValueT = TypeVar("ValueT")


class Attempts:
    """The patience of one transfer; whoever watches hears of each failure that is followed by another try."""

    def __init__(self, patience: Patience, teller: Teller) -> None:
        self._patience = patience
        self._teller = teller

    async def at(self, work: Callable[[], Awaitable[ValueT]], progress: Callable[[], float] = lambda: 0.0) -> ValueT:
        """Run `work` as `patiently` does."""
        return await patiently(work, self._patience, progress=progress, failed=self._failed)

    def calling(self, call: CallTool) -> CallTool:
        """Return the same tools, called patiently."""

        async def patient(tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
            return await self.at(partial(call, tool, arguments))

        return patient

    def _failed(self, error: ToolError, wait_s: float) -> None:
        text = f"{error.message} Trying again in {wait_s:.1f} s."
        self._teller.say("retry", text, error=error.as_dict(), wait_s=round(wait_s, 3))
