"""The tools that make pictures."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from anyio import to_thread
from pydantic import AliasChoices, Field

from comfy_mcp.generation import Generation, ImageRequest, LoraChoice
from comfy_mcp.images import Images
from comfy_mcp.jobs.jobs import Jobs
from comfy_mcp.jobs.live import JobState
from comfy_mcp.jobs.store import JobStatus
from comfy_mcp.tools.jobs import DEFAULT_WAIT_S, LONGEST_WAIT_S, JobImage, job_images
from mcp_toolserver.base64_content import decode_base64
from mcp_toolserver.errors import BackendRejected
from mcp_toolserver.tools import AnyTool, Arguments, Call, Effect, Result, Tool

_WAIT = "longest time to wait for the pictures, in seconds; afterwards the job goes on, and wait-job has the result"


class LoraArgument(Arguments):
    """A LoRA to apply."""

    name: str = Field(
        validation_alias=AliasChoices("name", "filename", "lora_name"), description="name, as list-loras has it"
    )
    strength: float = Field(
        1.0,
        ge=0.0,
        le=2.0,
        validation_alias=AliasChoices("strength", "strength_model", "weight"),
        description="how strongly it works on the picture, 0.0 to 2.0",
    )
    strength_clip: float | None = Field(
        None, ge=0.0, le=2.0, description="how strongly it works on the text encoder; as `strength` when left out"
    )


class GenerateImage(Arguments):
    """Make pictures from a prompt, with LoRAs if wanted, on the right graph for the checkpoint's family (FLUX:
    FluxGuidance, cfg 1.0, heunpp2/simple). Every value left out takes the family's own. Waits for the result up to
    `wait_s`; the job goes on after that."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "cfg": "the argument is `cfg_scale`.",
        "guidance_scale": "the argument is `guidance` for FLUX, `cfg_scale` for other models.",
        "sampler_name": "the argument is `sampler`.",
        "num_inference_steps": "the argument is `steps`.",
        "lora": "the argument is `loras`, a list of {name, strength}.",
        "image": "the argument is `input_image`, the name that upload-image returned.",
    }
    prompt: str = Field(min_length=1, description="what to show; name the LoRA's trigger word")
    negative_prompt: str = Field("", description="what to avoid; FLUX never reads it")
    checkpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("checkpoint", "model", "ckpt_name"),
        description="model to start from, as list-models has it; the first of the FLUX family when left out",
    )
    loras: tuple[LoraArgument, ...] = Field((), description="LoRAs, applied in this order")
    width: int | None = Field(None, description="width in pixels, a multiple of 8")
    height: int | None = Field(None, description="height in pixels, a multiple of 8")
    seed: int = Field(-1, ge=-1, le=2**64 - 1, description="seed of the noise; -1 draws one, which the result tells")
    steps: int | None = Field(None, description="sampling steps")
    cfg_scale: float | None = Field(None, description="classifier-free guidance; FLUX takes 1.0 and no other")
    guidance: float | None = Field(None, description="FLUX guidance, 1.0 to 10.0")
    sampler: str | None = Field(None, description="sampler")
    scheduler: str | None = Field(None, description="scheduler")
    batch_size: int = Field(1, description="how many pictures, 1 to 20")
    input_image: str | None = Field(None, description="picture to start from: a name that upload-image returned")
    denoise: float | None = Field(None, description="how much of the input image to replace, 0.0 to 1.0")
    engine: Literal["auto", "comfyui", "embedded"] = Field(
        "auto", description="engine that must render; another than the server's own is refused"
    )
    wait_s: float = Field(DEFAULT_WAIT_S, ge=0, le=LONGEST_WAIT_S, description=_WAIT)


class ExecuteWorkflow(Arguments):
    """Run a ComfyUI graph in API format, checked before anything is queued. A graph as ComfyUI's page saves it must
    be exported with `Workflow > Export (API)`."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "prompt": "the graph belongs in `workflow`.",
        "graph": "the graph belongs in `workflow`.",
        "parameters": "values for the graph belong in `inputs`.",
    }
    workflow: dict[str, Any] = Field(description="nodes by id, each with `class_type` and `inputs`")
    inputs: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description='values to put into the graph: {"6": {"text": "a cat"}} or {"6.text": "a cat"}',
    )
    wait_s: float = Field(DEFAULT_WAIT_S, ge=0, le=LONGEST_WAIT_S, description=_WAIT)


class UploadImage(Arguments):
    """Store a picture for `input_image` or a LoadImage node, and return the name that both take."""

    filename: str = Field(description="plain file name")
    content: str = Field(validation_alias=AliasChoices("content", "data"), description="the file as base64")
    overwrite: bool = Field(False, description="replace a picture of that name; otherwise another name is found")


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


class UploadedImage(Result):
    """A picture that was stored."""

    name: str = Field(description="what `input_image` and LoadImage take; it differs from `filename` if that was taken")
    width: int = Field(description="width in pixels")
    height: int = Field(description="height in pixels")
    size_bytes: int = Field(description="size in bytes")


def generation_tools(generation: Generation, jobs: Jobs, images: Images) -> list[AnyTool]:
    """Return the tools that make pictures and take them."""

    async def finished(state: JobState, wait_s: float, call: Call) -> GeneratedImages:
        record = (await jobs.wait(state.record.job_id, wait_s, call.report)).record
        if record.status == "failed":
            raise BackendRejected(
                f"The job {record.job_id} failed: {record.error}",
                hint="`get-job` has the details.",
                details={"job_id": record.job_id, "status": record.status, **(record.error_details or {})},
            )
        return GeneratedImages(
            job_id=record.job_id,
            status=record.status,
            seed=record.seed,
            engine=record.engine,
            images=await job_images(record, images, call),
            workflow_name=record.workflow_name,
            cached=record.cached,
            warnings=list(record.warnings),
            message=_next_step(record.status),
        )

    async def generate(args: GenerateImage, call: Call) -> GeneratedImages:
        loras = tuple(LoraChoice(**lora.model_dump()) for lora in args.loras)
        request = ImageRequest(loras=loras, **args.model_dump(exclude={"loras", "wait_s"}))
        return await finished(await generation.generate(request), args.wait_s, call)

    async def execute(args: ExecuteWorkflow, call: Call) -> GeneratedImages:
        return await finished(await generation.execute(args.workflow, args.inputs, "custom"), args.wait_s, call)

    async def upload(args: UploadImage, call: Call) -> UploadedImage:
        content = await to_thread.run_sync(partial(decode_base64, args.content, field="content"))
        stored = await images.upload(args.filename, content, overwrite=args.overwrite)
        return UploadedImage(name=stored.name, width=stored.width, height=stored.height, size_bytes=stored.size_bytes)

    return [
        Tool(name="generate-image", args=GenerateImage, result=GeneratedImages, effect=Effect.WRITE, run=generate),
        Tool(name="execute-workflow", args=ExecuteWorkflow, result=GeneratedImages, effect=Effect.WRITE, run=execute),
        Tool(name="upload-image", args=UploadImage, result=UploadedImage, effect=Effect.WRITE, run=upload),
    ]


def _next_step(status: JobStatus) -> str:
    if status == "completed":
        return "Fetch each picture from its url."
    if status == "cancelled":
        return "The job was cancelled."
    return "The job goes on; call wait-job with its job_id for the pictures."
