"""Say how a job stands in one value, from what its trainer knows, its log and its checkpoints. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aitk_mcp.job_failures import Failure, failure_by_exit, read_failure
from aitk_mcp.job_log import Progress, read_progress, read_resumed_step, read_warnings
from aitk_mcp.trainers.port import Checkpoint, JobLog, JobStatus, TrainerJob

_STALLED_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """A job as a caller sees it; times are Unix times in seconds.

    `step` counts finished steps. `checkpoint_step` is the newest step on disk, from which a resume would go on.
    `model_path` is the file to download, relative to the folder of outputs.
    """

    job_id: str
    name: str
    config_name: str
    engine: str
    status: JobStatus
    info: str
    phase: str | None
    progress_percent: float
    step: int
    total_steps: int
    eta_s: int | None
    elapsed_s: float | None
    speed: str | None
    loss: float | None
    learning_rate: float | None
    failure: Failure | None
    warnings: tuple[str, ...]
    gpu_ids: str
    queue_position: int | None
    resumed_from_step: int | None
    checkpoint_step: int | None
    model_path: str | None
    output_folder: Path
    created_at: float
    started_at: float | None
    ended_at: float | None

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing more will happen to it by itself."""
        return self.status not in ("queued", "running")


def report_of(job: TrainerJob, log: JobLog, checkpoints: Sequence[Checkpoint], now: float) -> TrainingReport:
    """Put together what is known of a job at Unix time `now`."""
    progress = read_progress(log.tail, job.name)
    newest = checkpoints[-1] if checkpoints else None
    step = _step(job, progress, newest)
    total = progress.total_steps or job.total_steps
    failure = _failure(job, log) if job.status == "failed" else None
    return TrainingReport(
        job_id=job.job_id,
        name=job.name,
        config_name=job.config_name,
        engine=job.engine,
        status=job.status,
        info=_info(job, progress, failure),
        phase=progress.phase if job.status == "running" else None,
        progress_percent=round(100 * min(step, total) / total, 1) if total else 0.0,
        step=step,
        total_steps=total,
        eta_s=progress.eta_s if job.status == "running" else None,
        elapsed_s=(job.ended_at or log.changed_at or now if job.status != "running" else now) - job.started_at
        if job.started_at
        else None,
        speed=progress.speed,
        loss=progress.loss,
        learning_rate=progress.learning_rate,
        failure=failure,
        warnings=(*read_warnings(log.head + "\n" + log.tail, progress), *_stalled(job, log, now)),
        gpu_ids=job.gpu_ids,
        queue_position=job.queue_position,
        resumed_from_step=read_resumed_step(log.head),
        checkpoint_step=newest.step if newest else None,
        model_path=f"{job.output_folder.name}/{newest.path.name}" if newest else None,
        output_folder=job.output_folder,
        created_at=job.created_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
    )


def _step(job: TrainerJob, progress: Progress, newest: Checkpoint | None) -> int:
    if progress.step is not None:
        return progress.step
    # Before the bar stands, a resumed job is where its checkpoint is; a finished one may have had no step to do.
    return (newest.step or 0) if newest else 0


def _failure(job: TrainerJob, log: JobLog) -> Failure:
    return read_failure(log.tail) or failure_by_exit(job.returncode, job.signal_name, job.start_error)


def _info(job: TrainerJob, progress: Progress, failure: Failure | None) -> str:
    match job.status:
        case "queued":
            place = "next" if job.queue_position == 1 else f"number {job.queue_position}"
            return (
                f"Waiting for {'the trainer' if job.gpu_ids == 'cpu' else f'GPU {job.gpu_ids}'}; {place} in the queue"
            )
        case "running":
            return "Stopping" if job.stop_requested else progress.phase.capitalize()
        case "completed":
            return "Training completed"
        case "stopped":
            return "Job stopped"
        case "failed":
            return failure.reason if failure else "Failed"


def _stalled(job: TrainerJob, log: JobLog, now: float) -> tuple[str, ...]:
    if job.status != "running" or log.changed_at is None or now - log.changed_at < _STALLED_S:
        return ()
    minutes = int((now - log.changed_at) // 60)
    return (f"The trainer has written nothing for {minutes} minutes; it may hang, or download a model.",)
