"""Jobs as they are while a server follows them, and how their progress is told."""

import time
from dataclasses import dataclass

import anyio

from comfy_mcp.engines.comfyui_events import Preview
from comfy_mcp.engines.port import Engine, Watching
from comfy_mcp.jobs.measuring import Measuring
from comfy_mcp.jobs.progress import Progress
from comfy_mcp.jobs.store import JobRecord
from mcp_toolserver.tools import Report

_REPORT_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A job as it is now: its record, how far it is while it runs, and why that may be out of date."""

    record: JobRecord
    progress: Progress | None = None
    has_preview: bool = False
    doubt: str | None = None


class LiveJob:
    """A job that this server follows.

    `accepted` is set once its engine has taken or refused its graph; then `refusal` is the reason of a refusal.
    """

    def __init__(self, record: JobRecord, engine: Engine) -> None:
        self.record = record
        self.engine = engine
        self.watch: Watching | None = None
        self.progress = Progress()
        self.preview: Preview | None = None
        self.measuring = Measuring()
        self.cancel_asked = False
        self.accepted = anyio.Event()
        self.refusal: Exception | None = None
        self.changed = anyio.Event()

    @property
    def state(self) -> JobState:
        """Return the job as it is now."""
        if self.record.is_finished:
            return JobState(record=self.record)
        progress = self.progress if self.record.status == "running" else None
        return JobState(
            record=self.record,
            progress=progress,
            has_preview=self.preview is not None,
            doubt=self.watch.doubt if self.watch is not None else None,
        )

    def notify(self) -> None:
        """Wake everyone who waits for a change; whoever waits next, waits for the next one."""
        changed, self.changed = self.changed, anyio.Event()
        changed.set()


class Reported:
    """Pass progress on to a caller: never back, and not more often than anyone can read."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._percent = -1.0
        self._at = 0.0

    async def tell(self, state: JobState) -> None:
        """Report percent done, if that is news."""
        percent = round(state.progress.fraction * 100, 1) if state.progress else 0.0
        now = time.monotonic()
        if percent > self._percent and now - self._at >= _REPORT_EVERY_S:
            self._percent, self._at = percent, now
            words = state.progress.words if state.progress else "waiting in the queue"
            await self._report(percent, 100.0, words)
