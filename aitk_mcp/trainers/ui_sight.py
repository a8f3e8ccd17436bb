"""See what the machine shows of a job beyond its row: its folder, when it was started, and whether it has a process.

Times and processes only where AI Toolkit's disk and processes are this machine's; a row alone tells none of it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from aitk_mcp.trainers.ui_http import UiHttp
from aitk_mcp.trainers.ui_processes import is_trained
from aitk_mcp.trainers.ui_rows import CONFIG_FILE, Row

# AI Toolkit's worker writes down how a process ended, in the log and the row, within a moment.
_QUIET_S = 3.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen of a job's folder; times are Unix times in seconds, None where they cannot be seen."""

    folder: Path
    started_at: float | None
    log_changed_at: float | None


class Sight:
    """Look at the jobs of one server."""

    def __init__(self, http: UiHttp, *, is_here: bool) -> None:
        """Take whether the server's disk is this machine's."""
        self._http = http
        self._is_here = is_here
        self._training_folder: str | None = None

    async def of(self, row: Row) -> Seen:
        """Look at a job's folder."""
        if self._training_folder is None:
            self._training_folder = (await self._http.folders()).training
        folder = Path(self._training_folder) / row.name
        if not self._is_here:
            # A folder of that path, if there is one on this machine, is another job's.
            return Seen(folder, None, None)
        return await to_thread.run_sync(_look, folder)

    async def is_trained(self, row: Row) -> bool | None:
        """Tell whether a process works on a job; None where processes cannot be seen."""
        seen = await self.of(row)
        if not self._http.is_on_this_machine or seen.started_at is None:
            return None
        return await to_thread.run_sync(is_trained, str(seen.folder / CONFIG_FILE))

    async def is_quiet(self, row: Row) -> bool:
        """Tell whether nothing has been written for a moment, by the trainer or about it."""
        return time.time() - max((await self.of(row)).log_changed_at or 0.0, row.updated_at) > _QUIET_S


def _look(folder: Path) -> Seen:
    return Seen(folder, _changed_at(folder / CONFIG_FILE), _changed_at(folder / "log.txt"))


def _changed_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
