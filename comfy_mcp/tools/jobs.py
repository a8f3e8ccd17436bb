"""The tools for jobs, and how a job is told to a caller."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar

from pydantic import Field

from comfy_mcp.images import Images
from comfy_mcp.jobs.jobs import Jobs
from comfy_mcp.jobs.live import JobState
from comfy_mcp.jobs.store import JobRecord, JobStatus
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.tools import MOST_PICTURE_BYTES, AnyTool, Call, Effect, Link, Picture, Result, Tool

# Below the 60 seconds after which many MCP clients give a call up.
DEFAULT_WAIT_S = 50.0
LONGEST_WAIT_S = 3600.0

# Each costs the fetch of its file, and the caller's context; the rest is linked.
_MOST_SHOWN = 4
_MEDIA_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "mp4": "video/mp4",
    "webm": "video/webm",
}

_JOB_ID_MISTAKES = {"id": "the argument is `job_id`.", "prompt_id": "the argument is `job_id`; it is the same id."}


class GetJob(Arguments):
    """Say how far a generation job is, and where its pictures are once it is done. Jobs stay known after a restart."""

    classic_mistakes: ClassVar[Mapping[str, str]] = _JOB_ID_MISTAKES
    job_id: str = Field(description="id of the job, from generate-image, execute-workflow or list-jobs")


class WaitJob(Arguments):
    """Wait until a generation job has ended, or until the time runs out, which is a normal answer: the job goes on."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {**_JOB_ID_MISTAKES, "timeout": "the argument is `wait_s`."}
    job_id: str = Field(description="id of the job")
    wait_s: float = Field(DEFAULT_WAIT_S, ge=0, le=LONGEST_WAIT_S, description="longest time to wait, in seconds")


class CancelJob(Arguments):
    """Cancel one generation job, waiting or running, and no other. The answer tells what really became of it; a job
    that had ended already is refused as `conflict`."""

    classic_mistakes: ClassVar[Mapping[str, str]] = _JOB_ID_MISTAKES
    job_id: str = Field(description="id of the job")


class ListJobs(Arguments):
    """List generation jobs, newest first."""

    status: JobStatus | None = Field(None, description="only jobs with this status")
    limit: int = Field(20, ge=1, le=200, description="most jobs in one answer")
    cursor: str | None = Field(None, description="`next_cursor` of the page before")


class JobImage(Result):
    """A picture (or video) that a job made."""

    id: str = Field(description="stable id of the picture")
    url: str = Field(description="address to fetch the file from")
    width: int | None = Field(description="width in pixels; null for videos")
    height: int | None = Field(description="height in pixels; null for videos")


class JobProgress(Result):
    """How far a running job is."""

    percent: float = Field(description="share of the work that is done, 0 to 100")
    node_id: str | None = Field(description="id of the node that runs")
    node: str | None = Field(description="class of the node that runs")
    step: int | None = Field(description="step of that node")
    total_steps: int | None = Field(description="steps of that node")


class JobInfo(Result):
    """A generation job."""

    job_id: str = Field(description="id of the job")
    status: JobStatus = Field(description="queued, running, completed, failed or cancelled")
    tool: str = Field(description="tool that started it")
    engine: str = Field(description="what renders it: comfyui, embedded or diffusers")
    workflow_name: str = Field(description="name of the graph")
    seed: int | None = Field(description="seed; null for a caller's own workflow")
    created_at: datetime = Field(description="when it was started")
    started_at: datetime | None = Field(description="when it left the queue")
    finished_at: datetime | None = Field(description="when it ended")
    progress: JobProgress | None = Field(description="how far it is; null unless it runs")
    preview_url: str | None = Field(description="address of the latest preview; null when there is none")
    images: list[JobImage] = Field(description="what it made")
    cached: bool = Field(description="whether the pictures came from an earlier identical run")
    warnings: list[str] = Field(description="what the caller should know")
    error: str | None = Field(description="why it failed, in one sentence")
    error_details: dict[str, str] | None = Field(description="node_id, node_type, exception_type or code of a failure")


class JobList(Result):
    """A page of jobs."""

    jobs: list[JobInfo] = Field(description="jobs, newest first")
    next_cursor: str | None = Field(description="where the next page begins; null on the last")


class CancelledJob(Result):
    """What became of a cancel."""

    job_id: str = Field(description="id of the job")
    status: JobStatus = Field(description="the job's status now")
    cancelled: bool = Field(description="whether it has stopped; false when its engine was asked and has yet to obey")
    message: str = Field(description="the same in words")


def job_tools(jobs: Jobs, images: Images) -> list[AnyTool]:
    """Return the tools that look at, wait for, cancel and list jobs."""

    async def get(args: GetJob, call: Call) -> JobInfo:
        return await told(await jobs.get(args.job_id), call)

    async def wait(args: WaitJob, call: Call) -> JobInfo:
        return await told(await jobs.wait(args.job_id, args.wait_s, call.report), call)

    async def told(state: JobState, call: Call) -> JobInfo:
        await show_images(state.record, images, call)
        return await job_info(state, images, call)

    async def cancel(args: CancelJob, call: Call) -> CancelledJob:
        record = (await jobs.cancel(args.job_id)).record
        stopped = record.status == "cancelled"
        words = (
            "The job is cancelled."
            if stopped
            else "The engine was asked to stop the job and has yet to obey: it stops between two steps. Ask get-job."
        )
        return CancelledJob(job_id=record.job_id, status=record.status, cancelled=stopped, message=words)

    async def page(args: ListJobs, call: Call) -> JobList:
        found = await jobs.page(args.status, args.limit, args.cursor)
        return JobList(
            jobs=[await job_info(state, images, call) for state in found.jobs], next_cursor=found.next_cursor
        )

    return [
        Tool(name="get-job", args=GetJob, result=JobInfo, effect=Effect.READ, run=get),
        Tool(name="wait-job", args=WaitJob, result=JobInfo, effect=Effect.READ, run=wait),
        Tool(name="cancel-job", args=CancelJob, result=CancelledJob, effect=Effect.DESTROY, run=cancel),
        Tool(name="list-jobs", args=ListJobs, result=JobList, effect=Effect.READ, run=page),
    ]


async def job_info(state: JobState, images: Images, call: Call) -> JobInfo:
    """Tell a job to a caller."""
    record, progress = state.record, state.progress
    return JobInfo(
        job_id=record.job_id,
        status=record.status,
        tool=record.tool,
        engine=record.engine,
        workflow_name=record.workflow_name,
        seed=record.seed,
        created_at=_moment(record.created_at),
        started_at=_moment(record.started_at) if record.started_at else None,
        finished_at=_moment(record.finished_at) if record.finished_at else None,
        progress=JobProgress(
            percent=round(progress.fraction * 100, 1),
            node_id=progress.node_id,
            node=progress.node,
            step=progress.step,
            total_steps=progress.total_steps,
        )
        if progress
        else None,
        preview_url=f"{call.base_url}/previews/{record.job_id}" if state.has_preview and call.base_url else None,
        images=await job_images(record, images, call),
        cached=record.cached,
        warnings=job_warnings(state),
        error=record.error,
        error_details=record.error_details,
    )


def job_warnings(state: JobState) -> list[str]:
    """Return what a caller should know of a job: what was found when it was made, and what is doubtful now."""
    return [*state.record.warnings, *([state.doubt] if state.doubt else ())]


async def job_images(record: JobRecord, images: Images, call: Call) -> list[JobImage]:
    """Tell a job's pictures to a caller."""
    return [
        JobImage(id=link.id, url=link.url, width=link.width, height=link.height)
        for link in await images.links(record, call.base_url)
    ]


async def show_images(record: JobRecord, images: Images, call: Call) -> None:
    """Show small copies of a finished job's pictures to a caller whose door has room for them, and link the files."""
    if call.pictures is None or call.links is None or record.status != "completed":
        return
    left_bytes = MOST_PICTURE_BYTES
    for index, link in enumerate(await images.links(record, call.base_url)):
        call.links.append(Link(link.url, record.files[index].filename, _media_type(record.files[index].filename)))
        if index >= _MOST_SHOWN or link.width is None:
            continue
        small = await images.small_copy(link.id)
        if small is not None and len(small) <= left_bytes:
            left_bytes -= len(small)
            call.pictures.append(Picture(small, "image/jpeg", f"{link.id}: {link.width} x {link.height}, made small"))


def _media_type(filename: str) -> str | None:
    return _MEDIA_TYPES.get(filename.rpartition(".")[2].lower())


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
