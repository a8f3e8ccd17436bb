"""Make pictures from Python, without a server: the engines, checks and jobs of comfy_mcp in the caller's own process.

async with GenerationService(comfyui_api_url="http://127.0.0.1:8188") as service:
    result = await service.generate_image(prompt="a red cat", num_inference_steps=20, guidance_scale=3.5, seed=42)
    print(result["workflow"], result["model"])
    Path("cat.png").write_bytes(result["images"][0]["content"])
"""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypedDict

from anyio import to_thread
from pydantic import Field

from comfy_mcp.animation import QUALITIES, joined
from comfy_mcp.app import assemble
from comfy_mcp.generation.requests import ImageRequest
from comfy_mcp.jobs.store import JobRecord
from comfy_mcp.settings import ComfySettings
from comfy_mcp.tools.generation import image_request
from comfy_mcp.tools.generation_arguments import GenerateImage
from comfy_mcp.workflows.graphs import inputs_of
from mcp_toolserver.arguments import parse_arguments
from mcp_toolserver.errors import BackendRejected, InvalidArguments, closest, did_you_mean
from mcp_toolserver.tools import Report, unheard

MOST_FRAMES = 200
_FRAME_DURATION_S = (0.02, 60.0)
_VIDEO_TYPES = ("multi_frame",)
_MOST_IMAGE_BYTES = 256 * 1024 * 1024
# How nodes name the model's own file; as a link, `model` is no text.
_MODEL_INPUTS = ("ckpt_name", "unet_name", "model")


class ServiceImage(TypedDict):
    """A picture: the bytes of its file, and its sides in pixels."""

    id: str
    filename: str
    content: bytes
    width: int | None
    height: int | None


class ServiceResult(TypedDict):
    """What a call came to.

    `workflow` is what rendered: comfyui, diffusers or embedded. `model` is the name of its file or folder, None where
    the graph names none.
    """

    status: Literal["success"]
    workflow: str
    workflow_name: str
    model: str | None
    seed: int | None
    warnings: list[str]


class ImageResult(ServiceResult):
    """What `generate_image` came to."""

    job_id: str
    images: list[ServiceImage]


class VideoResult(ServiceResult):
    """What `generate_video` came to: `content` is an animated WebP, of the sides and the number of `frames` (each as
    `generate_image` returned it)."""

    content: bytes
    duration_s: float
    frames: list[ServiceImage]


class GenerationService:
    """Render as comfy_mcp does, with ComfyUI or what stands in for it; use it as an asynchronous context manager, once.

    `given` are fields of ComfySettings and come before its environment variables; one that does not exist is a
    TypeError. What a caller should know, such as that diffusers rendered because ComfyUI did not answer, stands in
    `warnings`. Outside of `async with`, every call is a RuntimeError.
    """

    def __init__(self, settings: ComfySettings | None = None, **given: Any) -> None:
        if settings is not None and given:
            raise TypeError("give settings, or fields of settings, and not both")
        for name in given:
            if name not in ComfySettings.model_fields:
                raise TypeError(
                    f"There is no setting `{name}`, which GenerationService was given."
                    + did_you_mean(name, ComfySettings.model_fields)
                )
        self._parts = assemble(settings or ComfySettings(**given))
        self._stack = AsyncExitStack()
        self._is_open = False

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._parts.server.lifespan())
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        await self._stack.__aexit__(kind, error, trace)

    async def generate_image(
        self,
        prompt: str,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        report: Report = unheard,
        **arguments: Any,
    ) -> ImageResult:
        """Render a prompt to its end, however long that takes, and return the pictures.

        `arguments` are those of the tool `generate-image`. `num_inference_steps` is its `steps`, and `guidance_scale`
        what steers the model: `guidance` of FLUX, `cfg_scale` of others. Raises the ToolErrors of that tool, and
        BackendRejected for a job that fails or is cancelled.
        """
        self._check_open()
        request = _request(prompt, num_inference_steps, guidance_scale, arguments)
        started = (await self._parts.generation.generate(request)).record
        record = (await self._parts.jobs.wait(started.job_id, math.inf, report)).record
        if record.status != "completed":
            raise BackendRejected(
                f"The job {record.job_id} was cancelled."
                if record.status == "cancelled"
                else f"The job {record.job_id} failed: {record.error}",
                details={"job_id": record.job_id, "status": record.status, **(record.error_details or {})},
            )
        return ImageResult(**_told(record), job_id=record.job_id, images=await self._images(record))

    async def generate_video(
        self,
        prompt: Sequence[str],
        *,
        video_type: str = "multi_frame",
        quality: str = "high",
        use_ai_generation: bool = True,
        frame_duration_s: float = 1.0,
        report: Report = unheard,
        **arguments: Any,
    ) -> VideoResult:
        """Render one picture for each prompt and join them to an animated WebP: a slide show, and no moving scene.

        That is `multi_frame`, and it needs no video model; the tool `generate-video` uses those. `quality` (draft,
        standard or high) is how little the file loses, and `use_ai_generation` can only be true. `arguments` are those
        of `generate_image`; all frames share a seed. Raises InvalidArguments for what cannot be, before anything is
        rendered, and what `generate_image` raises.
        """
        self._check_open()
        prompts = _prompts(prompt)
        _one_of("video_type", video_type, _VIDEO_TYPES, "Videos of a video model are made by the tool generate-video.")
        _one_of("quality", quality, QUALITIES)
        frame_duration_s = _seconds(frame_duration_s)
        _check_frames(arguments, use_ai_generation=use_ai_generation)
        results: list[ImageResult] = []
        for index, words in enumerate(prompts):
            await report(index, len(prompts), f"frame {index + 1}")
            results.append(await self.generate_image(words, **arguments))
            arguments["seed"] = results[0]["seed"]
        frames = [result["images"][0] for result in results]
        contents = [frame["content"] for frame in frames]
        content, scaled = await to_thread.run_sync(
            partial(joined, contents, frame_duration_s=frame_duration_s, quality=quality)
        )
        first = results[0]
        return VideoResult(
            status="success",
            workflow=first["workflow"],
            workflow_name=first["workflow_name"],
            model=first["model"],
            seed=first["seed"],
            warnings=[*dict.fromkeys(words for result in results for words in result["warnings"]), *scaled],
            content=content,
            duration_s=frame_duration_s * len(frames),
            frames=frames,
        )

    def _check_open(self) -> None:
        if not self._is_open:
            raise RuntimeError(
                "GenerationService renders only within its own `async with` block, which has not begun or is over: "
                "async with GenerationService(...) as service: ..."
            )

    async def _images(self, record: JobRecord) -> list[ServiceImage]:
        return [
            ServiceImage(
                id=link.id,
                filename=file.filename,
                content=await self._parts.images.content(link.id, _MOST_IMAGE_BYTES),
                width=file.width,
                height=file.height,
            )
            for link, file in zip(await self._parts.images.links(record, ""), record.files, strict=True)
        ]


class _Asked(GenerateImage):
    guidance_scale: float | None = Field(None)


def _request(
    prompt: str, num_inference_steps: int | None, guidance_scale: float | None, arguments: Mapping[str, Any]
) -> ImageRequest:
    _one_name("num_inference_steps", num_inference_steps, arguments, ("steps",))
    _one_name("guidance_scale", guidance_scale, arguments, ("guidance", "cfg_scale"))
    steps = {} if num_inference_steps is None else {"steps": num_inference_steps}
    given = {"prompt": prompt, **arguments, **steps, "guidance_scale": guidance_scale}
    return image_request(parse_arguments(_Asked, given))


def _told(record: JobRecord) -> ServiceResult:
    return ServiceResult(
        status="success",
        workflow=record.engine,
        workflow_name=record.workflow_name,
        model=_model_of(record),
        seed=record.seed,
        warnings=list(record.warnings),
    )


def _model_of(record: JobRecord) -> str | None:
    named = (inputs_of(node).get(name) for node in record.graph.values() for name in _MODEL_INPUTS)
    return next((name for name in named if isinstance(name, str)), None)


def _prompts(prompt: Sequence[str]) -> list[str]:
    prompts: list[Any] = [prompt] if isinstance(prompt, str) else list(prompt)
    if not 0 < len(prompts) <= MOST_FRAMES:
        raise InvalidArguments(
            f"Argument `prompt` has {len(prompts)} entries; it takes one for each frame, 1 to {MOST_FRAMES}.",
            hint='Give a list of texts: prompt=["a cat sits", "a cat jumps"].',
            details={"field": "prompt", "value": len(prompts), "closest": min(max(len(prompts), 1), MOST_FRAMES)},
        )
    for index, words in enumerate(prompts):
        if not isinstance(words, str) or not words:
            raise InvalidArguments(
                f"Argument `prompt.{index}` is {words!r}; each frame takes a text.",
                hint="Leave it out, or say what this frame shows.",
                details={"field": f"prompt.{index}", "value": str(words)},
            )
    return prompts


def _seconds(frame_duration_s: float) -> float:
    low, high = _FRAME_DURATION_S
    try:
        seconds = float(frame_duration_s)
    except (TypeError, ValueError):
        seconds = math.nan
    if not low <= seconds <= high:
        nearest = high if seconds > high else low
        raise InvalidArguments(
            f"Argument `frame_duration_s` is {frame_duration_s!r}; it must be from {low} to {high} seconds.",
            hint=f"The closest valid value is {nearest}.",
            details={"field": "frame_duration_s", "value": str(frame_duration_s), "closest": nearest},
        )
    return seconds


def _check_frames(arguments: Mapping[str, Any], *, use_ai_generation: bool) -> None:
    if not use_ai_generation:
        raise InvalidArguments(
            "Argument `use_ai_generation` is False, and there is no other way to make a frame here.",
            hint="Leave it out.",
            details={"field": "use_ai_generation", "value": False, "closest": True},
        )
    if arguments.get("batch_size", 1) != 1:
        raise InvalidArguments(
            f"Argument `batch_size` is {arguments['batch_size']!r}: each prompt is one frame.",
            hint="Leave it out, and give a prompt for each frame.",
            details={"field": "batch_size", "value": str(arguments["batch_size"]), "closest": 1},
        )


def _one_of(field: str, value: str, valid: Collection[str], hint: str = "") -> None:
    if value not in valid:
        raise InvalidArguments(
            f"Argument `{field}` is {value!r}; it takes {', '.join(valid)}.",
            hint=hint or None,
            details={"field": field, "value": value, "closest_matches": closest(value, valid) or list(valid)},
        )


def _one_name(field: str, value: object, arguments: Mapping[str, Any], others: Collection[str]) -> None:
    for other in others:
        if value is not None and arguments.get(other) is not None:
            raise InvalidArguments(
                f"Arguments `{field}` and `{other}` say the same, and both are given.",
                hint="Leave one of them out.",
                details={"fields": [field, other]},
            )
