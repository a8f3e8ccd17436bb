"""Follow what diffusers renders to its end."""

from dataclasses import dataclass, field

import anyio

from comfy_mcp.engines.comfyui_events import JobEvent
from comfy_mcp.engines.comfyui_history import Ending
from comfy_mcp.engines.port import Heard


@dataclass(slots=True)
class Rendering:
    """One order on its way: whether it has `begun` and shall stop.

    `stopping` is read by the thread that renders.
    """

    prompt_id: str
    stopping: bool = False
    begun: bool = False
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

    doubt: None = None

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


class LostWatch:
    """Tell how an order ended whose server is gone."""

    doubt: None = None

    async def ended(self, heard: Heard) -> Ending:
        """Return at once: nothing renders it any more."""
        return Ending(
            "failed",
            error="It was rendered by diffusers inside a server that ended before the job did.",
            details={"code": "engine_forgot"},
        )
