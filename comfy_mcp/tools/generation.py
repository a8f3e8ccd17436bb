"""The tools that make pictures and videos."""

from functools import partial
from typing import Any

from anyio import to_thread
from pydantic import Field

from comfy_mcp.generation.generation import Generation
from comfy_mcp.generation.requests import AnimationRequest, ControlNetChoice, ImageRequest, LoraChoice
from comfy_mcp.images import Images, StoredImage
from comfy_mcp.jobs.jobs import Jobs
from comfy_mcp.jobs.live import JobState
from comfy_mcp.jobs.store import JobStatus
from comfy_mcp.tools.generation_arguments import (
    ExecuteWorkflow,
    GenerateImage,
    GenerateVideo,
    LoraArgument,
    UploadImage,
)
from comfy_mcp.tools.jobs import JobImage, job_images, job_warnings, show_images
from comfy_mcp.workflows import Hires
from mcp_toolserver.base64_content import decode_base64
from mcp_toolserver.errors import BackendRejected
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool


class GeneratedImages(Result):
    """What a generation came to."""

    job_id: str = Field(description="id of the job, for get-job, wait-job and cancel-job")
    status: JobStatus = Field(description="completed, or how far it is when `wait_s` ran out")
    seed: int | None = Field(description="seed that was used; null for a caller's own workflow")
    engine: str = Field(description="what rendered: comfyui or embedded")
    images: list[JobImage] = Field(description="the pictures, by address; empty until the job is completed")
    workflow_name: str = Field(description="name of the graph")
    cached: bool = Field(description="whether the pictures came from an earlier identical run")
    warnings: list[str] = Field(description="what was changed or is doubtful")
    message: str = Field(description="what to do next")


class GeneratedVideo(GeneratedImages):
    """What the generation of a video came to; the file is the one entry of `images`."""

    width: int = Field(description="width in pixels, as it is rendered")
    height: int = Field(description="height in pixels, as it is rendered")
    frames: int = Field(description="number of frames, as it is rendered")
    fps: int = Field(description="frames per second")
    duration_s: float = Field(description="length of the video, in seconds")


_CLEAR = (
    "Parts of this picture are transparent. As a `mask`, its colours count and not its transparency: send one that is "
    "white where the picture is to be drawn anew, and black elsewhere."
)


class UploadedImage(Result):
    """A picture that was stored."""

    name: str = Field(description="what `input_image` and LoadImage take; it differs from `filename` if that was taken")
    width: int = Field(description="width in pixels, after the turn that its EXIF asks for")
    height: int = Field(description="height in pixels, after that turn")
    size_bytes: int = Field(description="size in bytes")
    warnings: list[str] = Field(description="what the caller should know")


def generation_tools(generation: Generation, jobs: Jobs, images: Images) -> list[AnyTool]:
    """Return the tools that make pictures and take them."""

    async def finished(state: JobState, wait_s: float, call: Call) -> dict[str, Any]:
        state = await jobs.wait(state.record.job_id, wait_s, call.report)
        record = state.record
        if record.status == "failed":
            raise BackendRejected(
                f"The job {record.job_id} failed: {record.error}",
                hint="`get-job` has the details.",
                details={"job_id": record.job_id, "status": record.status, **(record.error_details or {})},
            )
        await show_images(record, images, call)
        return {
            "job_id": record.job_id,
            "status": record.status,
            "seed": record.seed,
            "engine": record.engine,
            "images": await job_images(record, images, call),
            "workflow_name": record.workflow_name,
            "cached": record.cached,
            "warnings": job_warnings(state),
            "message": _next_step(record.status),
        }

    async def generate(args: GenerateImage, call: Call) -> GeneratedImages:
        state = await generation.generate(image_request(args))
        return GeneratedImages(**await finished(state, args.wait_s, call))

    async def animate(args: GenerateVideo, call: Call) -> GeneratedVideo:
        request = AnimationRequest(loras=_loras(args.loras), **args.model_dump(exclude={"loras", "wait_s"}))
        state, video = await generation.animate(request)
        return GeneratedVideo(
            **await finished(state, args.wait_s, call),
            width=video.width,
            height=video.height,
            frames=video.frames,
            fps=video.fps,
            duration_s=video.duration_s,
        )

    async def execute(args: ExecuteWorkflow, call: Call) -> GeneratedImages:
        state = await generation.execute(args.workflow, args.inputs, "custom")
        return GeneratedImages(**await finished(state, args.wait_s, call))

    async def upload(args: UploadImage, call: Call) -> UploadedImage:
        content = await to_thread.run_sync(partial(decode_base64, args.content, field="content"))
        stored = await images.upload(args.filename, content, overwrite=args.overwrite)
        return UploadedImage(
            name=stored.name,
            width=stored.width,
            height=stored.height,
            size_bytes=stored.size_bytes,
            warnings=_doubts(stored),
        )

    return [
        Tool(name="generate-image", args=GenerateImage, result=GeneratedImages, effect=Effect.WRITE, run=generate),
        Tool(name="generate-video", args=GenerateVideo, result=GeneratedVideo, effect=Effect.WRITE, run=animate),
        Tool(name="execute-workflow", args=ExecuteWorkflow, result=GeneratedImages, effect=Effect.WRITE, run=execute),
        Tool(name="upload-image", args=UploadImage, result=UploadedImage, effect=Effect.WRITE, run=upload),
    ]


def image_request(args: GenerateImage) -> ImageRequest:
    """Return what the arguments ask for."""
    return ImageRequest(
        loras=_loras(args.loras),
        hires=None if args.hires is None else Hires(**args.hires.model_dump()),
        controlnet=None if args.controlnet is None else ControlNetChoice(**args.controlnet.model_dump()),
        **args.model_dump(exclude={"loras", "hires", "controlnet", "wait_s"}),
    )


def _loras(arguments: tuple[LoraArgument, ...]) -> tuple[LoraChoice, ...]:
    return tuple(LoraChoice(**lora.model_dump()) for lora in arguments)


def _doubts(stored: StoredImage) -> list[str]:
    frames = (
        f"The file has {stored.frames} frames. LoadImage of ComfyUI gives a batch of all of them, so that each is "
        "rendered; the embedded engine and diffusers take the first. Send a still picture for one result."
    )
    return [*([_CLEAR] if stored.transparent else []), *([frames] if stored.frames > 1 else [])]


def _next_step(status: JobStatus) -> str:
    if status == "completed":
        return "Fetch each picture from its url."
    if status == "cancelled":
        return "The job was cancelled."
    return "The job goes on; call wait-job with its job_id for the pictures."
