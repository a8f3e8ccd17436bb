"""Keep what AI Toolkit's server has no column for: which jobs are ours, who waits for a save, and whose end was found.

    <notes>/<job id>.json

Small files, written whole; all methods block for a moment.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from mcp_toolserver.files import make_folder, write_now


@dataclass(frozen=True, slots=True)
class StopWish:
    """Somebody wants a running job saved and then stopped: asked at a Unix time, when it stood at `step`."""

    asked_at: float
    step: int


@dataclass(frozen=True, slots=True)
class Note:
    """What is known of a job beside its row.

    `is_ours`: this server ordered it. `was_lost`: its process was gone while the row still said running, so that the
    row was repaired; the row then says `stopped`, and the truth is a failure.
    """

    is_ours: bool = False
    was_lost: bool = False
    stop_wish: StopWish | None = None


class Notes:
    """The notes in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, job_id: str) -> Note:
        """Return the note on a job; an empty one where there is none."""
        try:
            found = cast(dict[str, Any], json.loads(self._path(job_id).read_bytes()))
        except FileNotFoundError:
            return Note()
        wish = found.get("stop_wish")
        return Note(bool(found.get("is_ours")), bool(found.get("was_lost")), StopWish(**wish) if wish else None)

    def change(self, job_id: str, change: Callable[[Note], Note]) -> Note:
        """Change the note on a job; what says nothing any more is not written."""
        before = self.get(job_id)
        after = change(before)
        if after != before:
            make_folder(self._folder)
            write_now(self._path(job_id), json.dumps(asdict(after)).encode())
        return after

    def forget(self, job_id: str) -> None:
        """Delete the note on a job that is no more."""
        self._path(job_id).unlink(missing_ok=True)

    def _path(self, job_id: str) -> Path:
        # An id comes from AI Toolkit; a name that led elsewhere would be no id.
        return self._folder / f"{Path(job_id).name}.json"


def ordered(note: Note) -> Note:
    """Return the note on a job that this server starts anew."""
    return replace(note, is_ours=True, was_lost=False, stop_wish=None)


def restarted(note: Note) -> Note:
    """Return the note on a job that runs again, whoever started it."""
    return replace(note, was_lost=False, stop_wish=None)


def wished(note: Note, wish: StopWish) -> Note:
    """Return the note on a job that shall be stopped once it is saved."""
    return replace(note, stop_wish=wish)


def lost(note: Note) -> Note:
    """Return the note on a job whose process was found gone."""
    return replace(note, was_lost=True, stop_wish=None)


def settled(note: Note) -> Note:
    """Return the note on a job that nobody waits to stop any more."""
    return replace(note, stop_wish=None)
