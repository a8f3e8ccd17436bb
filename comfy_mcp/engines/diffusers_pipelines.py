"""Render with diffusers in this process. All of it blocks and belongs into a worker thread; torch is imported late."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from comfy_mcp.engines.diffusers_models import DiffusersModel
from mcp_toolserver.errors import BackendUnavailable

Stepped = Callable[[int, int], bool]
"""Hear of step and steps; False stops the rendering after this step."""


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """A safetensors file, and how strongly it works."""

    path: Path
    strength: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureRequest:
    """Ask for pictures; sizes are pixels, and `guidance` is what the model's pipeline takes as guidance_scale."""

    prompt: str
    negative_prompt: str = ""
    width: int
    height: int
    steps: int
    guidance: float
    seed: int
    count: int = 1
    loras: tuple[LoraWeights, ...] = ()


def render(model: DiffusersModel, request: PictureRequest, stepped: Stepped) -> tuple[bytes, ...] | None:
    """Return pictures as PNG files, or None where `stepped` stopped it.

    Everything comes from this disk. Raises BackendUnavailable where diffusers or torch is not installed, and whatever
    diffusers raises for a model or LoRA that it cannot read.
    """
    # Read once, when the libraries are imported: no model hub is ever asked.
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch, diffusers = _library("torch"), _library("diffusers")
    on_gpu = torch.cuda.is_available()
    half = torch.bfloat16 if model.family == "flux" else torch.float16
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        str(model.path),
        torch_dtype=half if on_gpu else torch.float32,
        use_safetensors=True,
        local_files_only=True,
    ).to("cuda" if on_gpu else "cpu")
    pipeline.set_progress_bar_config(disable=True)
    _apply(pipeline, request.loras)
    stopped = False

    def after_step(running: Any, step: int, _timestep: object, values: dict[str, Any]) -> dict[str, Any]:
        nonlocal stopped
        if not stepped(step + 1, request.steps):
            stopped = True
            running._interrupt = True
        return values

    # FLUX has its guidance trained in and reads no negative prompt.
    negative = {} if model.family == "flux" else {"negative_prompt": request.negative_prompt}
    made = pipeline(
        prompt=request.prompt,
        width=request.width,
        height=request.height,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        num_images_per_prompt=request.count,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        callback_on_step_end=after_step,
        **negative,
    )
    return None if stopped else tuple(_png(image) for image in made.images)


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


def _png(image: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
