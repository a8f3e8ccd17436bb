"""Follow the logs of jobs on AI Toolkit's server without sending all of a long one at each look."""

import time
from dataclasses import dataclass

import anyio

from aitk_mcp.trainers.port import JobLog
from aitk_mcp.trainers.ui_files import UiFiles
from aitk_mcp.trainers.ui_rows import Row
from aitk_mcp.trainers.ui_sight import Seen
from mcp_toolserver.errors import Conflict

_HEAD_BYTES = 64 * 1024
_LOOK_EVERY_S = 0.1
# A trainer that was interrupted says so within a moment; one in the middle of a save goes on writing.
_SILENCE_S, _END_PATIENCE_S = 2.0, 60.0


@dataclass(frozen=True, slots=True)
class _KnownLog:
    """What is remembered of a job's log: its run, end and beginning."""

    run: tuple[int | None, float | None]
    end: int
    head: str


class UiLogs:
    """The logs of one server's jobs."""

    def __init__(self, files: UiFiles) -> None:
        self._files = files
        self._known: dict[str, _KnownLog] = {}

    async def of(self, row: Row, seen: Seen, max_bytes: int) -> JobLog:
        """Return at most `max_bytes` of each end of the log of a job's latest run."""
        run = (row.pid, seen.started_at)
        known = self._known.get(row.job_id)
        if known is not None and known.run != run:
            known = None
        found = await self._files.log(row.job_id, max(0, known.end - max_bytes) if known else None)
        content = found.text.encode()
        if known is None or found.is_whole:
            head = content[: max(max_bytes, _HEAD_BYTES)].decode(errors="replace") if found.is_whole else ""
        else:
            head = known.head
        self._known[row.job_id] = _KnownLog(run, found.end, head)
        return JobLog(head, content[-max_bytes:].decode(errors="replace"), found.end, seen.log_changed_at)

    async def require_silence(self, row: Row) -> None:
        """Wait until nothing more is written to the log of a stopped job whose process cannot be seen.

        Its row says stopped as soon as the signal is sent, and a trainer that still ends makes its folder anew. Raises
        Conflict where it does not fall silent.
        """
        end = (await self._files.log(row.job_id, None)).end
        with anyio.move_on_after(_END_PATIENCE_S):
            since = time.monotonic()
            while time.monotonic() - since < _SILENCE_S:
                await anyio.sleep(_LOOK_EVERY_S)
                now = (await self._files.log(row.job_id, end)).end
                if now != end:
                    since, end = time.monotonic(), now
            return
        raise Conflict(
            f"Job `{row.job_id}` was stopped, and its trainer still writes to its log.",
            hint="Call again in a moment.",
            details={"job_id": row.job_id, "status": row.status},
        )

    def forget(self, job_id: str) -> None:
        """Remember nothing more of a job that is deleted."""
        self._known.pop(job_id, None)
