"""Read the rows in which AI Toolkit's server keeps jobs."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, cast

from aitk_mcp.documents import BadDocument, TrainingDocument, read_document
from aitk_mcp.trainers.port import JobStatus

CONFIG_FILE = ".job_config.json"

_STATUS: Mapping[str, JobStatus] = {
    "queued": "queued",
    "running": "running",
    "stopping": "running",
    "completed": "completed",
    "error": "failed",
    "stopped": "stopped",
}
_SIGNAL = re.compile(r"terminated with signal (?P<name>SIG[A-Z0-9]+)")
_EXIT_CODE = re.compile(r"terminated with exit code (?P<code>\d+)")
_NOT_LAUNCHED = re.compile(r"^Error launching job(?: process)?: (?P<why>.*)", re.DOTALL)
# Words of a run that has trained nothing yet: there is nothing to save.
_BEFORE_TRAINING = ("Starting", "Loading", "Job queued")


class BadRow(ValueError):
    """Say what is wrong with a row."""


@dataclass(frozen=True)
class Row:
    """A job as AI Toolkit's server answers it; times are Unix times in seconds.

    `pid` stays after the end, and then may be anybody's; `step` is that of the last save once a job was interrupted.
    """

    job_id: str
    name: str
    gpu_ids: str
    job_config: str
    status: JobStatus
    stop: bool
    save_now: bool
    step: int
    info: str
    pid: int | None
    queue_position: int
    job_type: str
    created_at: float
    updated_at: float

    @classmethod
    def read(cls, found: object) -> "Row":
        """Read a row from JSON; raises BadRow for what is none."""
        if not isinstance(found, Mapping):
            raise BadRow("it is no job")
        row = cast(Mapping[str, Any], found)
        try:
            return cls(
                job_id=str(row["id"]),
                name=str(row["name"]),
                gpu_ids=str(row["gpu_ids"]),
                job_config=str(row["job_config"]),
                status=_STATUS[row["status"]],
                stop=bool(row["stop"]),
                save_now=bool(row["save_now"]),
                step=int(row["step"]),
                info=str(row["info"]),
                pid=None if row["pid"] is None else int(row["pid"]),
                queue_position=int(row["queue_position"]),
                job_type=str(row.get("job_type") or "train"),
                created_at=_time(row["created_at"]),
                updated_at=_time(row["updated_at"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadRow(f"a job with a strange field ({type(error).__name__}: {error})") from error

    @cached_property
    def document(self) -> TrainingDocument | None:
        """Return the config, or None for one that AI Toolkit stored without being able to run it."""
        try:
            return read_document(json.loads(self.job_config))
        except (json.JSONDecodeError, BadDocument):
            return None

    @property
    def is_active(self) -> bool:
        """Tell whether it waits or runs."""
        return self.status in ("queued", "running")

    @property
    def has_begun_training(self) -> bool:
        """Tell whether a running job is past loading, so that it has something to save."""
        return self.status == "running" and not self.info.startswith(_BEFORE_TRAINING)

    @property
    def is_saving(self) -> bool:
        """Tell whether a save is asked for or under way: the flag falls before the file is written."""
        return self.save_now or self.info.startswith("Saving")

    @property
    def signal_name(self) -> str | None:
        """Return the signal that ended a failed job, or None."""
        found = _SIGNAL.search(self.info) if self.status == "failed" else None
        return found["name"] if found else None

    @property
    def returncode(self) -> int | None:
        """Return the exit code that a failed job is known to have ended with, or None."""
        found = _EXIT_CODE.search(self.info) if self.status == "failed" else None
        return int(found["code"]) if found else None

    @property
    def start_error(self) -> str | None:
        """Return why a failed job could not be started, or None."""
        found = _NOT_LAUNCHED.match(self.info) if self.status == "failed" else None
        return found["why"].strip() if found else None


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
