"""The rows of a stand-in for AI Toolkit's server, as its database has them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4


def now() -> str:
    """Return the time as the server writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Job:
    """A row of the table of jobs."""

    name: str
    gpu_ids: str
    job_config: str
    queue_position: int
    job_type: str = "train"
    job_ref: str | None = None
    id: str = field(default_factory=lambda: str(uuid4()))
    created_at: str = field(default_factory=now)
    updated_at: str = ""
    status: str = "stopped"
    stop: bool = False
    return_to_queue: bool = False
    step: int = 0
    info: str = ""
    speed_string: str = ""
    pid: int | None = None
    save_now: bool = False
    sample_now: bool = False

    def __post_init__(self) -> None:
        self.updated_at = self.created_at

    def change(self, **values: Any) -> None:
        """Change the row as the server does; what the trainer writes bumps no time."""
        for name, value in values.items():
            setattr(self, name, value)
        self.updated_at = now()

    def row(self) -> dict[str, Any]:
        """Return the row as it is answered."""
        return {
            "id": self.id,
            "name": self.name,
            "gpu_ids": self.gpu_ids,
            "job_config": self.job_config,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "status": self.status,
            "stop": self.stop,
            "return_to_queue": self.return_to_queue,
            "step": self.step,
            "total_steps": None,
            "info": self.info,
            "speed_string": self.speed_string,
            "queue_position": self.queue_position,
            "pid": self.pid,
            "job_type": self.job_type,
            "job_ref": self.job_ref,
            "save_now": self.save_now,
            "sample_now": self.sample_now,
        }


@dataclass(slots=True)
class Queue:
    """A row of the table of queues: one for each set of GPUs."""

    id: int
    gpu_ids: str
    is_running: bool = False

    def row(self) -> dict[str, Any]:
        """Return the row as it is answered."""
        return {"id": self.id, "gpu_ids": self.gpu_ids, "is_running": self.is_running}


class Tables:
    """Jobs and queues."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.queues: dict[str, Queue] = {}

    def newest_first(self) -> list[Job]:
        """Return every job."""
        return list(reversed(self.jobs.values()))

    def create(self, body: Mapping[str, Any]) -> Job:
        """Add a job; raises KeyError for a body that lacks a field."""
        job = Job(
            name=body["name"],
            gpu_ids=body["gpu_ids"],
            # Whatever it is, also a text that is JSON already.
            job_config=json.dumps(body["job_config"], separators=(",", ":"), ensure_ascii=False),
            queue_position=self._last_position() + 1000,
            job_type=body.get("job_type", "train"),
            job_ref=body.get("job_ref"),
        )
        self.jobs[job.id] = job
        return job

    def update(self, body: Mapping[str, Any]) -> Job:
        """Replace name, GPUs and config of a job; raises KeyError for an unknown one."""
        job = self.jobs[body["id"]]
        config = json.dumps(body["job_config"], separators=(",", ":"), ensure_ascii=False)
        job.change(name=body["name"], gpu_ids=body["gpu_ids"], job_config=config)
        return job

    def enqueue(self, job: Job) -> None:
        """Put a job at the end of its queue; the queue itself does not start."""
        position = self._last_position() + 1000
        job.change(status="queued", stop=False, return_to_queue=False, info="Job queued", queue_position=position)
        self.queue_of(job.gpu_ids)

    def queue_of(self, gpu_ids: str) -> Queue:
        """Return the queue of a set of GPUs, made at need."""
        return self.queues.setdefault(gpu_ids, Queue(len(self.queues) + 1, gpu_ids))

    def _last_position(self) -> int:
        return max((job.queue_position for job in self.jobs.values()), default=0)
