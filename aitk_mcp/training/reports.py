"""Say how a job stands in one value, from what its trainer knows, its log and its checkpoints. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aitk_mcp.job_failures import Failure, failure_by_exit, read_failure
from aitk_mcp.job_log import (
    NoNumbers,
    Progress,
    read_no_numbers,
    read_progress,
    read_resumed_step,
    read_warnings,
)
from aitk_mcp.trainers.port import Checkpoint, JobLog, JobStatus, TrainerJob

# Loading may be downloading, which writes little; a step takes as long as the ones before it.
_SILENT_S, _STEPLESS_S, _STEPLESS_STEPS = 600.0, 120.0, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """A job as a caller sees it; times are Unix times in seconds.

    `step` counts finished steps; since `no_number_since` no loss is a number. `checkpoint_step` is the newest step on
    disk, from which a resume would go on.
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
    no_number_since: int | None
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


def report_of(
    job: TrainerJob,
    log: JobLog,
    checkpoints: Sequence[Checkpoint],
    now: float,
    *,
    no_number_since: int | None = None,
) -> TrainingReport:
    """Put together what is known of a job at Unix time `now`; `no_number_since` where more than the log tells it."""
    progress = read_progress(log.tail, job.name)
    no_numbers = read_no_numbers(log.tail, job.name)
    since = no_numbers.since_step if no_numbers else None
    if since is not None and no_number_since is not None:
        since = min(since, no_number_since)
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
        loss=progress.loss if since is None else None,
        learning_rate=progress.learning_rate,
        no_number_since=since,
        failure=failure,
        warnings=(
            *read_warnings(log.head + "\n" + log.tail),
            *_no_numbers(no_numbers, since),
            *_stalled(job, log, progress, now),
        ),
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


def _no_numbers(found: NoNumbers | None, since: int | None) -> tuple[str, ...]:
    if found is None:
        return ()
    if since is None:
        return (f"The loss was NaN (no number) in some steps, the last one {found.last_step}; those taught nothing.",)
    return (
        f"The loss is NaN (no number) since step {since}: the training has diverged and learns nothing more. Stop it"
        " with `save: false`, lower learning_rate, and start again; only checkpoints from before that step are good.",
    )


def _stalled(job: TrainerJob, log: JobLog, progress: Progress, now: float) -> tuple[str, ...]:
    if job.status != "running" or log.changed_at is None:
        return ()
    silent_s = now - log.changed_at
    minutes = int(silent_s // 60)
    if progress.phase == "training" and progress.steps_per_second:
        step_s = 1 / progress.steps_per_second
        if silent_s < max(_STEPLESS_S, _STEPLESS_STEPS * step_s):
            return ()
        return (
            f"No step for {minutes} minutes while the process lives; a step usually takes {step_s:.2g} s. It may hang:"
            " get-training-logs has its last words, stop-training ends it.",
        )
    if silent_s < _SILENT_S:
        return ()
    return (
        f"The trainer has written nothing for {minutes} minutes ({progress.phase}); it may hang, or download a model.",
    )
