"""The tool that deletes a training job."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from aitk_mcp.trainers.port import JobStatus
from aitk_mcp.training.jobs import TrainingJobs
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool


class DeleteTrainingJob(Arguments):
    """Delete a training job for good: its record, log, loss and samples. One that waits is taken out of the queue, one
    that runs is stopped and waited for first.

    Its LoRAs and their config stay unless `delete_models` is true. AI Toolkit's own server cannot keep them: there a
    job that has saved something is only deleted with `delete_models: true`, and refused otherwise.
    """

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "id": "the argument is `job_id`.",
        "job": "the argument is `job_id`.",
        "keep_models": "the argument is `delete_models`, which is false unless given: the LoRAs stay.",
    }
    job_id: str = Field(description="id of the job, from start-training or list-training-jobs")
    delete_models: bool = Field(False, description="delete the LoRAs that it saved too, with its whole output folder")
    wait_s: float = Field(50.0, ge=0, le=3600.0, description="longest time to wait for the end of a running job")


class DeletedJob(Result):
    """A job that is gone: what it was."""

    job_id: str = Field(description="id of the job")
    name: str = Field(description="name of the LoRA and of its output folder")
    status: JobStatus = Field(description="how it had ended")
    was_stopped: bool = Field(description="whether it still waited or ran, and was stopped for this")
    deleted_models: list[str] = Field(description="LoRAs that are gone, as list-exported-models named them")
    kept_models: list[str] = Field(description="LoRAs that are still there")
    message: str = Field(description="what was deleted, in words")


def deletion_tools(jobs: TrainingJobs) -> list[AnyTool]:
    """Return the tool over these jobs."""

    async def delete(args: DeleteTrainingJob, call: Call) -> DeletedJob:
        outcome = await jobs.delete(args.job_id, models=args.delete_models, wait_s=args.wait_s, report=call.report)
        return DeletedJob(
            job_id=args.job_id,
            name=outcome.report.name,
            status=outcome.report.status,
            was_stopped=outcome.was_stopped,
            deleted_models=list(outcome.deleted_models),
            kept_models=list(outcome.kept_models),
            message=outcome.message,
        )

    return [
        Tool(name="delete-training-job", args=DeleteTrainingJob, result=DeletedJob, effect=Effect.DESTROY, run=delete)
    ]
