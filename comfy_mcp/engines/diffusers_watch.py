"""Follow what diffusers renders to its end, in this server or in another on the same data folder."""

from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio import to_thread

from comfy_mcp.engines.comfyui_events import JobEvent
from comfy_mcp.engines.comfyui_history import Ending
from comfy_mcp.engines.diffusers_files import is_claimed
from comfy_mcp.engines.port import Heard

_ANOTHER_SERVERS_JOB_S = 0.5


@dataclass(slots=True)
class Rendering:
    """One order on its way: whether it has `begun` and shall stop, and its claim on this disk.

    `stopping` is read by the thread that renders.
    """

    prompt_id: str
    stopping: bool = False
    begun: bool = False
    claim: int | None = None
    ending: Ending | None = None
    ended: anyio.Event = field(default_factory=anyio.Event)
    events: list[JobEvent] = field(default_factory=list[JobEvent])
    news: anyio.Event = field(default_factory=anyio.Event)

    def tell(self, event: JobEvent) -> None:
        """Keep an event for who watches."""
        self.events.append(event)
        self._wake()

    def end(self, ending: Ending) -> None:
        """Say how it ended."""
        self.ending = ending
        self.ended.set()
        self._wake()

    def _wake(self) -> None:
        news, self.news = self.news, anyio.Event()
        news.set()


class Watch:
    """Listen to an order of this server."""

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering

    async def ended(self, heard: Heard) -> Ending:
        """Pass on what is heard until the order has ended, and return how."""
        rendering, told = self._rendering, 0
        while True:
            news = rendering.news
            while told < len(rendering.events):
                told += 1
                await heard(rendering.events[told - 1])
            if rendering.ending is not None and told == len(rendering.events):
                return rendering.ending
            await news.wait()


class ForeignWatch:
    """Wait for an order of another server, which tells nobody how far it is."""

    def __init__(self, claims: Path, prompt_id: str) -> None:
        self._claims = claims
        self._prompt_id = prompt_id

    async def ended(self, heard: Heard) -> Ending:
        """Return once no server that lives renders it."""
        while True:
            if not await to_thread.run_sync(is_claimed, self._claims, self._prompt_id):
                return Ending(
                    "failed",
                    error="It was rendered by diffusers inside a server that ended before the job did.",
                    details={"code": "engine_forgot"},
                )
            await anyio.sleep(_ANOTHER_SERVERS_JOB_S)
