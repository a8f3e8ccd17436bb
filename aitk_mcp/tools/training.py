"""The tools that start, follow and end trainings, and how a job is told to a caller."""

import math
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar

from pydantic import Field

from aitk_mcp.tools.samples import sample_tools
from aitk_mcp.tools.training_deletion import deletion_tools
from aitk_mcp.tools.training_outputs import output_tools
from aitk_mcp.trainers.port import JobStatus
from aitk_mcp.training.jobs import TrainingJobs
from aitk_mcp.training.loss_plots import LossPlots
from aitk_mcp.training.reports import TrainingReport
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool

# Below the 60 seconds after which many MCP clients give a call up.
DEFAULT_WAIT_S = 50.0
LONGEST_WAIT_S = 3600.0
_STOP_WAIT_S = 20.0

_JOB_ID_MISTAKES = {"id": "the argument is `job_id`.", "job": "the argument is `job_id`."}
_JOB_ID = "id of the job, from start-training or list-training-jobs"


class StartTraining(Arguments):
    """Start a training from a stored config, or queue it until its GPU is free. The job goes on when this call, or the
    server, ends. A config whose output folder holds a checkpoint goes on from there. What could only fail, such as a
    dataset that is gone, is refused before anything starts."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "config": "the argument is `config_name`: create-training-config stores a config under its name.",
        "name": "the argument is `config_name`.",
    }
    config_name: str = Field(description="name of a config from create-training-config or list-configs")
    gpu_ids: str | None = Field(
        None,
        pattern=r"^\d+(,\d+)*$",
        description="GPU to train on, such as `0` or `0,1`; the embedded engine uses none",
    )


class GetTrainingStatus(Arguments):
    """Say how a training stands: step, speed, time left, loss; why it failed and what to do; which model is on disk."""

    classic_mistakes: ClassVar[Mapping[str, str]] = _JOB_ID_MISTAKES
    job_id: str = Field(description=_JOB_ID)


class WaitTraining(Arguments):
    """Wait until a training has ended, or until the time runs out, which is a normal answer: the job goes on, and the
    same call waits further."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {**_JOB_ID_MISTAKES, "timeout": "the argument is `wait_s`."}
    job_id: str = Field(description=_JOB_ID)
    wait_s: float = Field(DEFAULT_WAIT_S, ge=0, le=LONGEST_WAIT_S, description="longest time to wait, in seconds")


class StopTraining(Arguments):
    """Stop a training, or take it out of the queue. The answer says whether it was saved and which step is on disk;
    only AI Toolkit's command line cannot save on demand. resume-training goes on from there."""

    classic_mistakes: ClassVar[Mapping[str, str]] = _JOB_ID_MISTAKES
    job_id: str = Field(description=_JOB_ID)
    save: bool = Field(True, description="save a checkpoint first, where the trainer can")
    wait_s: float = Field(
        _STOP_WAIT_S, ge=0, le=LONGEST_WAIT_S, description="longest time to wait for its end, in seconds"
    )


class ResumeTraining(Arguments):
    """Queue a failed or stopped training again; it goes on from its newest checkpoint under the same job id."""

    classic_mistakes: ClassVar[Mapping[str, str]] = _JOB_ID_MISTAKES
    job_id: str = Field(description=_JOB_ID)


class SaveCheckpoint(Arguments):
    """Make a running training save a checkpoint now. AI Toolkit's command line cannot, and says so as `conflict`."""

    classic_mistakes: ClassVar[Mapping[str, str]] = _JOB_ID_MISTAKES
    job_id: str = Field(description=_JOB_ID)
    wait_s: float = Field(_STOP_WAIT_S, ge=0, le=LONGEST_WAIT_S, description="longest time to wait for it, in seconds")


class ListTrainingJobs(Arguments):
    """List training jobs, newest first."""

    status: JobStatus | None = Field(None, description="only jobs with this status")
    limit: int = Field(20, ge=1, le=200, description="most jobs in one answer")


class ReconcileJobs(Arguments):
    """Bring the queue in line with what really runs: start what can start, end what was asked to end. The server does
    this by itself every second; a job's status is always derived from its process and files, never remembered."""


class TrainingJob(Result):
    """A training job as it is now."""

    job_id: str = Field(description="id of the job")
    name: str = Field(description="name of the LoRA and of its output folder")
    config_name: str = Field(description="name of the config")
    status: JobStatus = Field(description="queued, running, completed, failed or stopped")
    info: str = Field(description="what it is doing, or how it ended, in a few words")
    phase: str | None = Field(
        description="what a running trainer is doing: loading model, training, sampling, saving ..."
    )
    progress_percent: float = Field(description="share of the steps that is done, 0 to 100")
    step: int = Field(description="finished steps")
    total_steps: int = Field(description="steps in all")
    eta_s: int | None = Field(description="seconds left, as the trainer estimates; null unless it trains")
    elapsed_s: float | None = Field(description="seconds since its start (until its end)")
    speed: str | None = Field(description="such as `3.31 iter/sec` or `1.40 sec/iter`")
    loss: float | None = Field(description="loss of the latest step; null where it is not a number")
    learning_rate: float | None = Field(description="learning rate of the latest step")
    error: str | None = Field(description="why it failed, in one sentence")
    error_kind: str | None = Field(description="why it failed, for programs: out_of_memory, gated_model, no_images ...")
    hint: str | None = Field(description="what to do about the failure")
    warnings: list[str] = Field(description="what went wrong without ending the job")
    engine: str = Field(
        description="what trains: `ui` is AI Toolkit's server, `cli` its command line, `embedded` a miniature"
    )
    gpu_ids: str = Field(description="GPUs that it occupies; `cpu` for the embedded engine")
    queue_position: int | None = Field(description="1 for the next job; null unless queued")
    resumed_from_step: int | None = Field(description="step of the checkpoint that the latest run went on from")
    checkpoint_step: int | None = Field(description="newest step on disk; null where nothing is saved")
    model_path: str | None = Field(description="newest saved LoRA, as download-model and get-model-info take it")
    output_folder: str = Field(description="folder of the LoRA, samples and loss log on the trainer's machine")
    created: datetime = Field(description="when it was ordered")
    started: datetime | None = Field(description="when its latest run began")
    ended: datetime | None = Field(description="when it ended")


class StoppedJob(TrainingJob):
    """A job after a request to stop it."""

    saved: bool = Field(description="whether this stop saved a checkpoint first")
    message: str = Field(description="what became of the job, and which step is on disk")


class TrainingJobList(Result):
    """Training jobs, newest first."""

    jobs: list[TrainingJob] = Field(description="the jobs")
    total: int = Field(description="jobs in all, beyond this answer's limit too")


class Reconciled(Result):
    """How the jobs stand after the queue was looked after."""

    running: list[str] = Field(description="ids of running jobs")
    queued: list[str] = Field(description="ids of waiting jobs, the next one first")
    counts: dict[str, int] = Field(description="number of jobs by status")


def describe(report: TrainingReport) -> TrainingJob:
    """Return a job as callers see it."""
    failure = report.failure
    return TrainingJob(
        job_id=report.job_id,
        name=report.name,
        config_name=report.config_name,
        status=report.status,
        info=report.info,
        phase=report.phase,
        progress_percent=report.progress_percent,
        step=report.step,
        total_steps=report.total_steps,
        eta_s=report.eta_s,
        elapsed_s=None if report.elapsed_s is None else round(report.elapsed_s, 2),
        speed=report.speed,
        loss=report.loss if report.loss is not None and math.isfinite(report.loss) else None,
        learning_rate=report.learning_rate,
        error=failure.reason if failure else None,
        error_kind=failure.kind if failure else None,
        hint=failure.hint if failure else None,
        warnings=list(report.warnings),
        engine=report.engine,
        gpu_ids=report.gpu_ids,
        queue_position=report.queue_position,
        resumed_from_step=report.resumed_from_step,
        checkpoint_step=report.checkpoint_step,
        model_path=report.model_path,
        output_folder=str(report.output_folder),
        created=datetime.fromtimestamp(report.created_at, UTC),
        started=_time(report.started_at),
        ended=_time(report.ended_at),
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def training_tools(jobs: TrainingJobs, plots: LossPlots) -> list[AnyTool]:
    """Return the tools for trainings."""

    async def start(args: StartTraining, call: Call) -> TrainingJob:
        return describe(await jobs.start(args.config_name, args.gpu_ids))

    async def status(args: GetTrainingStatus, call: Call) -> TrainingJob:
        return describe(await jobs.status(args.job_id))

    async def wait(args: WaitTraining, call: Call) -> TrainingJob:
        return describe(await jobs.wait(args.job_id, args.wait_s, call.report))

    async def stop(args: StopTraining, call: Call) -> StoppedJob:
        outcome = await jobs.stop(args.job_id, save=args.save, wait_s=args.wait_s, report=call.report)
        return StoppedJob(**dict(describe(outcome.report)), saved=outcome.saved, message=outcome.message)

    async def resume(args: ResumeTraining, call: Call) -> TrainingJob:
        return describe(await jobs.resume(args.job_id))

    async def save(args: SaveCheckpoint, call: Call) -> TrainingJob:
        return describe(await jobs.save(args.job_id, wait_s=args.wait_s))

    async def list_(args: ListTrainingJobs, call: Call) -> TrainingJobList:
        reports, total = await jobs.all(args.status, args.limit)
        return TrainingJobList(jobs=[describe(report) for report in reports], total=total)

    async def reconcile(args: ReconcileJobs, call: Call) -> Reconciled:
        known = await jobs.reconcile()
        queued = [job for job in known if job.status == "queued"]
        return Reconciled(
            running=[job.job_id for job in known if job.status == "running"],
            queued=[job.job_id for job in sorted(queued, key=lambda job: job.queue_position or 0)],
            counts=dict(Counter(job.status for job in known)),
        )

    return [
        Tool(name="start-training", args=StartTraining, result=TrainingJob, effect=Effect.WRITE, run=start),
        Tool(name="get-training-status", args=GetTrainingStatus, result=TrainingJob, effect=Effect.READ, run=status),
        Tool(name="wait-training", args=WaitTraining, result=TrainingJob, effect=Effect.READ, run=wait),
        Tool(name="stop-training", args=StopTraining, result=StoppedJob, effect=Effect.DESTROY, run=stop),
        Tool(name="resume-training", args=ResumeTraining, result=TrainingJob, effect=Effect.WRITE, run=resume),
        Tool(name="save-checkpoint", args=SaveCheckpoint, result=TrainingJob, effect=Effect.WRITE, run=save),
        Tool(name="list-training-jobs", args=ListTrainingJobs, result=TrainingJobList, effect=Effect.READ, run=list_),
        Tool(name="reconcile-jobs", args=ReconcileJobs, result=Reconciled, effect=Effect.WRITE, run=reconcile),
        *output_tools(jobs, plots),
        *sample_tools(jobs),
        *deletion_tools(jobs),
    ]
