"""Render with diffusers in this process. All of it blocks and belongs into a worker thread; torch is imported late."""

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_mcp.engines.diffusers_models import DiffusersModel
from comfy_mcp.engines.diffusers_samplers import Sampling
from comfy_mcp.workflows.families import FLUX
from mcp_toolserver.errors import BackendUnavailable

if TYPE_CHECKING:
    from PIL.Image import Image

_LIBRARIES = ("torch", "diffusers", "transformers", "peft")

Stepped = Callable[[int, int], bool]
"""Hear of step and steps; False stops the rendering after this step."""


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """A safetensors file, and how strongly it works."""

    path: Path
    strength: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureRequest:
    """Ask for pictures; sizes are pixels, and `guidance` is what the model's pipeline takes as guidance_scale.

    With an `image`, `denoise` of it is drawn anew, and only where `mask` is white; without a size the result keeps its.
    At a size of another ratio, both are cut at their edges.
    """

    prompt: str
    negative_prompt: str = ""
    width: int | None
    height: int | None
    steps: int
    guidance: float
    seed: int
    sampling: Sampling
    count: int = 1
    loras: tuple[LoraWeights, ...] = ()
    image: Path | None = None
    mask: Path | None = None
    denoise: float = 1.0

    @property
    def steps_run(self) -> int:
        """Return how many steps are really computed: those of the beginning are left out where a picture is kept."""
        return self.steps if self.image is None else min(self.steps, int(self.steps * self.denoise))


@dataclass(frozen=True, slots=True)
class Memory:
    """Say where rendering happens and how much memory is free there."""

    on_gpu: bool
    free_bytes: int


def missing_library() -> str | None:
    """Return the first library of the extra that is not installed, or None; imports none of them."""
    return next((name for name in _LIBRARIES if find_spec(name) is None), None)


def memory() -> Memory:
    """Return the memory that is free for rendering. Raises BackendUnavailable where torch is not installed."""
    torch = _library("torch")
    if torch.cuda.is_available():
        return Memory(True, int(torch.cuda.mem_get_info()[0]))
    return Memory(False, _available_bytes())


def _available_bytes() -> int:
    try:
        # Unlike the free pages, it counts what the page cache would give back.
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (FileNotFoundError, StopIteration):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def render(model: DiffusersModel, request: PictureRequest, stepped: Stepped) -> tuple["Image", ...] | None:
    """Return pictures, or None where `stepped` stopped it.

    Everything comes from this disk. Raises BackendUnavailable where diffusers or torch is not installed, and whatever
    diffusers raises for a model or LoRA that it cannot read.
    """
    # Read once, when the libraries are imported: no model hub is ever asked.
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch, diffusers = _library("torch"), _library("diffusers")
    for library in (diffusers, _library("transformers")):
        # They draw on stderr, which is the server's log.
        library.utils.logging.disable_progress_bar()
    pipeline = _pipeline(torch, diffusers, model, request)
    stopped = False

    def after_step(running: Any, step: int, _timestep: object, values: dict[str, Any]) -> dict[str, Any]:
        nonlocal stopped
        if not stepped(step + 1, request.steps_run):
            stopped = True
            running._interrupt = True
        return values

    takes = signature(pipeline.__call__).parameters
    asked: dict[str, Any] = {
        "prompt": request.prompt,
        # FLUX has its guidance trained in and reads no negative prompt.
        **({} if model.family == FLUX else {"negative_prompt": request.negative_prompt}),
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance,
        "num_images_per_prompt": request.count,
        "generator": torch.Generator("cpu").manual_seed(request.seed),
        "callback_on_step_end": after_step,
        **_pictures(model, request),
    }
    try:
        if not stepped(0, request.steps_run):
            return None
        made = pipeline(**{name: value for name, value in asked.items() if name in takes})
    finally:
        # ComfyUI may come back to this GPU, and torch keeps what it no longer needs.
        del pipeline, asked
        gc.collect()
        torch.cuda.empty_cache()
    return None if stopped else tuple(made.images)


def _pipeline(torch: Any, diffusers: Any, model: DiffusersModel, request: PictureRequest) -> Any:
    on_gpu = torch.cuda.is_available()
    half = torch.bfloat16 if model.family == FLUX else torch.float16
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        str(model.path),
        torch_dtype=half if on_gpu else torch.float32,
        use_safetensors=True,
        local_files_only=True,
    )
    if request.sampling.class_name is not None:
        scheduler = getattr(diffusers, request.sampling.class_name)
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **request.sampling.settings)
    if request.mask is not None:
        pipeline = diffusers.AutoPipelineForInpainting.from_pipe(pipeline)
    elif request.image is not None:
        pipeline = diffusers.AutoPipelineForImage2Image.from_pipe(pipeline)
    pipeline.to("cuda" if on_gpu else "cpu")
    pipeline.set_progress_bar_config(disable=True)
    _apply(pipeline, request.loras)
    return pipeline


def _pictures(model: DiffusersModel, request: PictureRequest) -> dict[str, Any]:
    if request.image is None:
        return {"width": request.width, "height": request.height}
    from PIL import Image, ImageOps

    step = 16 if model.family == FLUX else 8
    with Image.open(request.image) as image:
        picture = ImageOps.exif_transpose(image).convert("RGB")
    wanted = (request.width or picture.width, request.height or picture.height)
    width, height = (max(step, side // step * step) for side in wanted)
    pictures: dict[str, Any] = {
        "image": ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS),
        "strength": request.denoise,
        "width": width,
        "height": height,
    }
    if request.mask is not None:
        with Image.open(request.mask) as mask:
            upright = ImageOps.exif_transpose(mask).convert("L")
        pictures["mask_image"] = ImageOps.fit(upright, (width, height), Image.Resampling.LANCZOS)
    return pictures


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise BackendUnavailable(
            f"The engine `diffusers` needs `{name}`, which cannot be imported: {error}.",
            hint="Install the extra: pip install 'loraloop[diffusers]'.",
            details={"engine": "diffusers", "missing": name},
        ) from error


def _apply(pipeline: Any, loras: tuple[LoraWeights, ...]) -> None:
    names = [f"lora_{index}" for index in range(len(loras))]
    for name, lora in zip(names, loras, strict=True):
        pipeline.load_lora_weights(
            str(lora.path.parent), weight_name=lora.path.name, adapter_name=name, local_files_only=True
        )
    if loras:
        pipeline.set_adapters(names, adapter_weights=[lora.strength for lora in loras])
