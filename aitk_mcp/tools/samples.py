"""The tools for the pictures that a training draws of its test prompts: list them, and have them drawn now."""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar
from urllib.parse import quote

from anyio import to_thread
from pydantic import Field

from aitk_mcp.images import BadImage, is_image, thumbnail
from aitk_mcp.trainers.port import JobStatus, Sample, TrainerJob
from aitk_mcp.training.jobs import TrainingJobs
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import NotFound
from mcp_toolserver.tools import MOST_PICTURE_BYTES, AnyTool, Call, Effect, Picture, Result, Tool

_JOB_ID = "id of the job, from start-training or list-training-jobs"
_JOB_ID_MISTAKES = {"id": "the argument is `job_id`.", "job": "the argument is `job_id`."}
_SHOW = Field(4, ge=0, le=12, description="how many of the newest to show within an answer over MCP, as small pictures")
_SAMPLE_WAIT_S, _LONGEST_WAIT_S = 50.0, 3600.0


class ListSamples(Arguments):
    """List the sample pictures that a training drew of its test prompts, newest first: step, prompt and addresses of
    each. Over MCP the newest are shown as small pictures too."""

    classic_mistakes: ClassVar[Mapping[str, str]] = _JOB_ID_MISTAKES
    job_id: str = Field(description=_JOB_ID)
    limit: int = Field(50, ge=1, le=1000, description="most pictures to list")
    show: int = _SHOW


class SampleNow(Arguments):
    """Make a running training draw its test prompts after its next step, and wait for the pictures. AI Toolkit's
    command line cannot, and says so as `conflict`."""

    classic_mistakes: ClassVar[Mapping[str, str]] = _JOB_ID_MISTAKES
    job_id: str = Field(description=_JOB_ID)
    wait_s: float = Field(
        _SAMPLE_WAIT_S, ge=0, le=_LONGEST_WAIT_S, description="longest time to wait for the pictures, in seconds"
    )
    show: int = _SHOW


class TrainingSample(Result):
    """A picture drawn while training."""

    url: str = Field(description="address to fetch it from")
    thumbnail_url: str | None = Field(description="address of a small picture of it; null for a video")
    filename: str = Field(description="its file name")
    step: int = Field(description="after which step it was drawn; 0 is the base model without training")
    prompt_index: int = Field(description="which of the test prompts, counted from 0")
    prompt: str | None = Field(description="the prompt")


class SampleList(Result):
    """The sample pictures of a training."""

    job_id: str = Field(description="id of the job")
    samples: list[TrainingSample] = Field(description="the pictures, newest step first, then by prompt")
    total: int = Field(description="pictures in all, beyond this answer's limit too")
    note: str | None = Field(description="what to know about the pictures, such as that small ones were scaled")


class DrawnSamples(SampleList):
    """The sample pictures that were drawn on demand."""

    status: JobStatus = Field(description="how the job stands")
    step: int = Field(description="finished steps")
    complete: bool = Field(description="whether every test prompt is drawn; list-samples has the rest later")


def sample_tools(jobs: TrainingJobs) -> list[AnyTool]:
    """Return the tools for samples."""

    async def list_(args: ListSamples, call: Call) -> SampleList:
        job, found = await jobs.samples(args.job_id)
        newest = sorted(found, key=lambda sample: (-sample.step, sample.prompt_index, sample.path.name))
        await _show(newest[: args.show], job, jobs, call)
        return SampleList(
            job_id=args.job_id,
            samples=[_described(sample, job, call) for sample in newest[: args.limit]],
            total=len(found),
            note=_note(job, found),
        )

    async def sample_now(args: SampleNow, call: Call) -> DrawnSamples:
        report, drawn = await jobs.sample_now(args.job_id, wait_s=args.wait_s)
        job, _ = await jobs.samples(args.job_id)
        await _show(drawn[: args.show], job, jobs, call)
        return DrawnSamples(
            job_id=args.job_id,
            samples=[_described(sample, job, call) for sample in drawn],
            total=len(drawn),
            note=_note(job, drawn) if drawn else "They are not drawn yet; list-samples shows them once they are.",
            status=report.status,
            step=report.step,
            complete=len(drawn) >= len(job.prompts),
        )

    return [
        Tool(name="list-samples", args=ListSamples, result=SampleList, effect=Effect.READ, run=list_),
        Tool(name="sample-now", args=SampleNow, result=DrawnSamples, effect=Effect.WRITE, run=sample_now),
    ]


def _described(sample: Sample, job: TrainerJob, call: Call) -> TrainingSample:
    url = f"{call.base_url}/samples/{quote(job.job_id)}/{quote(sample.path.name)}"
    return TrainingSample(
        url=url,
        thumbnail_url=f"{url}?thumb=1" if is_image(sample.path.name) else None,
        filename=sample.path.name,
        step=sample.step,
        prompt_index=sample.prompt_index,
        prompt=_prompt(sample, job),
    )


def _prompt(sample: Sample, job: TrainerJob) -> str | None:
    return job.prompts[sample.prompt_index] if sample.prompt_index < len(job.prompts) else None


def _note(job: TrainerJob, found: Sequence[Sample]) -> str | None:
    if found:
        return "Drawn by the embedded engine at 32 x 32 and scaled." if job.engine == "embedded" else None
    if not job.prompts:
        return "The config has no test prompts, or sampling is disabled in it."
    return "None are drawn yet; sample-now draws them after the next step." if job.status == "running" else None


async def _show(samples: Iterable[Sample], job: TrainerJob, jobs: TrainingJobs, call: Call) -> None:
    if call.pictures is None:
        return
    left_bytes = MOST_PICTURE_BYTES
    for sample in samples:
        small = await _small(sample, jobs)
        left_bytes -= len(small or b"")
        if small is not None and left_bytes >= 0:
            caption = f"Step {sample.step}, prompt {sample.prompt_index}: {_prompt(sample, job) or sample.path.name}"
            call.pictures.append(Picture(small, "image/jpeg", caption))


async def _small(sample: Sample, jobs: TrainingJobs) -> bytes | None:
    """Return a small picture of a sample, or None for a video and for what the trainer deletes at this moment."""
    if not is_image(sample.path.name):
        return None
    try:
        path = await jobs.picture_file(sample)
        return await to_thread.run_sync(lambda: thumbnail(path.read_bytes()))
    except (NotFound, OSError, BadImage):
        return None
