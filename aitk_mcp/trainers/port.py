"""What every trainer offers: AI Toolkit's command line, its own server, and the embedded engine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from aitk_mcp.documents import TrainingDocument
from aitk_mcp.loss_log import LossPoint

JobStatus = Literal["queued", "running", "completed", "failed", "stopped"]
ENDED: frozenset[JobStatus] = frozenset({"completed", "failed", "stopped"})


@dataclass(frozen=True, slots=True)
class Order:
    """A training to be run: the config's name, its document, its file, and the GPU ids (`0`, `0,1`) or None."""

    config_name: str
    document: TrainingDocument
    source: Path
    gpu_ids: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerJob:
    """A job as its trainer knows it; times are Unix times in seconds.

    `returncode`, `signal_name` and `start_error` tell how the process ended; all None for one that has not, or whose
    end nobody saw. `queue_position` is 1 for the job that is next. `dataset_paths` is where it finds its images.
    """

    job_id: str
    name: str
    config_name: str
    status: JobStatus
    engine: str
    gpu_ids: str
    total_steps: int
    output_folder: Path
    prompts: tuple[str, ...]
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    queue_position: int | None = None
    stop_requested: bool = False
    returncode: int | None = None
    signal_name: str | None = None
    start_error: str | None = None
    dataset_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobLog:
    """The beginning and the end of a log, the same for a short one; `changed_at` is a Unix time."""

    head: str
    tail: str
    size_bytes: int
    changed_at: float | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved LoRA: `step` from its name or metadata, None where neither tells; `final` for the one at the end."""

    path: Path
    step: int | None
    size_bytes: int
    final: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture that the trainer drew: after which step, and for which of the prompts (counted from 0)."""

    path: Path
    step: int
    prompt_index: int


class Trainer(Protocol):
    """Run jobs one after the other on each GPU. Methods that take a job id raise NotFound with the closest ids."""

    @property
    def engine(self) -> str:
        """Return what trains: `cli`, `embedded` or `ui`."""
        ...

    @property
    def can_save(self) -> bool:
        """Tell whether a running job can be asked to save."""
        ...

    @property
    def can_keep_models(self) -> bool:
        """Tell whether a job can be deleted without the LoRAs that it saved."""
        ...

    async def submit(self, order: Order) -> str:
        """Queue a job and start it if its GPU is free; return its id. Raise Conflict if its output is being written."""
        ...

    async def job(self, job_id: str) -> TrainerJob:
        """Return a job as it is now."""
        ...

    async def jobs(self) -> list[TrainerJob]:
        """Return every job, newest first."""
        ...

    async def stop(self, job_id: str, *, save: bool) -> None:
        """Ask a job to end, after saving where that is wanted and possible; it may end later."""
        ...

    async def save(self, job_id: str) -> None:
        """Ask a running job to save; raise Conflict where it cannot."""
        ...

    async def sample_now(self, job_id: str) -> None:
        """Ask a running job to draw its sample pictures after the next step; raise Conflict where it cannot."""
        ...

    async def delete(self, job_id: str, *, models: bool) -> None:
        """Forget a job that has ended, with its log, losses and pictures; with its LoRAs where `models` is set.

        What another job uses too is left alone. Raise Conflict for a job that has not ended, and where LoRAs that
        were to stay cannot.
        """
        ...

    async def resume(self, job_id: str) -> None:
        """Queue a job that has ended again; it goes on from its newest checkpoint."""
        ...

    async def log(self, job_id: str, *, max_bytes: int) -> JobLog:
        """Return at most `max_bytes` of each end of the log."""
        ...

    async def losses(self, job_id: str) -> list[LossPoint]:
        """Return the loss of each step that the trainer recorded; empty where it records none."""
        ...

    async def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Return the saved LoRAs, oldest step first."""
        ...

    async def samples(self, job_id: str) -> list[Sample]:
        """Return the pictures, oldest first."""
        ...

    async def picture_file(self, sample: Sample) -> Path:
        """Return a file of this machine with a picture; raise FileNotFoundError where it is gone."""
        ...

    async def tend(self) -> None:
        """Do what is due: start what can be started, and end what was asked to end and did not."""
        ...
