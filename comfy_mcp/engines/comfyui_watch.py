"""Follow one prompt to its end, whatever happens to the connection and to the server on the way."""

import time
from collections.abc import Awaitable, Callable
from typing import Literal

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from comfy_mcp.engines.comfyui_events import (
    Connected,
    Disconnected,
    Doubted,
    Event,
    Executing,
    QueueChanged,
    Started,
)
from comfy_mcp.engines.comfyui_history import Ending
from comfy_mcp.engines.port import Heard
from mcp_toolserver.errors import BackendUnavailable, ToolError

Locate = Callable[[str], Awaitable[Literal["pending", "running"] | Ending | None]]

# A prompt that somebody else removes from the queue leaves no event of its own, so that silence is looked into.
_QUIET_S = 5.0
# Without a socket, asking is the only way to know.
_DEAF_S = 0.5


class Watch:
    """Hear the events of one prompt and tell how it ended.

    The end is `executing {node: null}`, confirmed by /history, which has the entry by then (60 of 60 trials; at
    `execution_success`, 45 of 60). After a lost socket the server is asked where the prompt is; while it does
    not answer, `doubt` says so.
    """

    def __init__(
        self,
        prompt_id: str,
        events: MemoryObjectReceiveStream[Event],
        *,
        locate: Locate,
        ending: Callable[[str], Awaitable[Ending | None]],
        connection: Callable[[], int | None],
        foreign: bool,
        lost_after_s: float,
    ) -> None:
        self._prompt_id = prompt_id
        self._events = events
        self._locate = locate
        self._ending = ending
        self._connection = connection
        self._foreign = foreign
        self._lost_after_s = lost_after_s
        self.doubt: str | None = None
        self._silent_since: float | None = None
        self._started = False
        self._first: int | None = None

    async def ended(self, heard: Heard) -> Ending:
        """Pass on what is heard until the prompt has ended; never raises for a server that is gone."""
        self._first = self._connection()
        if self._foreign and (ending := await self._look(heard)):
            return ending
        while True:
            event = await self._next()
            if isinstance(event, Executing) and event.node is None:
                ending = await self._confirmed() or await self._look(heard)
            elif event is None or isinstance(event, Connected | Disconnected | Doubted):
                ending = await self._look(heard)
            elif isinstance(event, QueueChanged):
                # Our own prompts have events of their own; asking at every change of a long queue would be a storm.
                ending = await self._look(heard) if self._foreign else None
            else:
                self._started = True
                await heard(event)
                ending = None
            if ending is not None:
                return ending

    async def _next(self) -> Event | None:
        deaf = self._connection() is None or self._silent_since is not None
        with anyio.move_on_after(_DEAF_S if deaf else _QUIET_S):
            return await self._events.receive()
        return None

    async def _confirmed(self) -> Ending | None:
        try:
            return await self._ending(self._prompt_id)
        except ToolError:
            return None

    async def _look(self, heard: Heard) -> Ending | None:
        try:
            place = await self._locate(self._prompt_id)
        except ToolError as error:
            return self._unreachable(error)
        self.doubt = self._silent_since = None
        if isinstance(place, Ending):
            return place
        if place is None:
            return self._vanished()
        if place == "running":
            self._started = True
            await heard(Started(self._prompt_id))
        return None

    def _unreachable(self, error: ToolError) -> Ending | None:
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        if now - self._silent_since < self._lost_after_s:
            self.doubt = (
                f"{error.message.rstrip('.')}: the status of this job is what ComfyUI said last. The job is followed "
                f"again once it answers, and counts as lost after {self._lost_after_s:g} seconds without an answer."
            )
            return None
        gone = isinstance(error, BackendUnavailable)
        return Ending(
            "failed",
            error=f"{error.message.rstrip('.')} while this job was unfinished; what became of it is unknown."
            if gone
            else f"ComfyUI could not say what became of this job: {error.message}",
            details={"code": error.code},
        )

    def _vanished(self) -> Ending:
        if self._foreign or self._first is None or self._connection() != self._first:
            return _forgotten("it was restarted, or its queue and history were cleared")
        if self._started:
            return _forgotten("its history was cleared")
        return Ending("cancelled", error="The job was removed from ComfyUI's queue before it ran.")


def _forgotten(why: str) -> Ending:
    return Ending("failed", error=f"ComfyUI no longer knows this job: {why}.", details={"code": "engine_forgot"})
