"""What a caller asks for, as the tools hand it on: names as people write them, and a seed of -1 for any."""

import secrets
from dataclasses import dataclass, replace
from typing import Self

from comfy_mcp.workflows import Hires
from comfy_mcp.workflows.recipes import ImageRecipe

RANDOM_SEED = -1
# Of ComfyUI's 2**64, those that a program reads back exactly even where JSON's numbers are doubles, as in JavaScript.
_SEEDS = 2**53


def drawn_seed(asked: int) -> int:
    """Return the seed that was asked for, or one that is drawn for `RANDOM_SEED`."""
    return secrets.randbelow(_SEEDS) if asked == RANDOM_SEED else asked


@dataclass(frozen=True, kw_only=True)
class LoraChoice:
    """A LoRA as the caller names it."""

    name: str
    strength: float = 1.0
    strength_clip: float | None = None


@dataclass(frozen=True, kw_only=True)
class ControlNetChoice:
    """A ControlNet as the caller names it, and the picture that it reads."""

    name: str
    image: str
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """What a caller asks of a picture; None leaves a value to the model's family. Seed -1 is a random one.

    `guidance_scale` is for callers who do not know the family: what steers it, be it `guidance` or `cfg_scale`.
    """

    prompt: str
    negative_prompt: str = ""
    checkpoint: str | None = None
    loras: tuple[LoraChoice, ...] = ()
    width: int | None = None
    height: int | None = None
    seed: int = RANDOM_SEED
    steps: int | None = None
    cfg_scale: float | None = None
    guidance: float | None = None
    guidance_scale: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    input_image: str | None = None
    reference_images: tuple[str, ...] = ()
    mask: str | None = None
    denoise: float | None = None
    hires: Hires | None = None
    upscale_model: str | None = None
    controlnet: ControlNetChoice | None = None
    engine: str | None = None

    def steered(self, recipe: ImageRecipe) -> Self:
        """Return the request with its `guidance_scale` as what steers a model of the recipe."""
        if self.guidance_scale is None:
            return self
        if recipe.guidance is None:
            return replace(self, guidance_scale=None, cfg_scale=self.guidance_scale)
        return replace(self, guidance_scale=None, guidance=self.guidance_scale)


@dataclass(frozen=True, kw_only=True)
class AnimationRequest:
    """What a caller asks of a video; None leaves a value to the model's family. Seed -1 is a random one."""

    prompt: str = ""
    negative_prompt: str | None = None
    input_image: str | None = None
    video_model: str | None = None
    loras: tuple[LoraChoice, ...] = ()
    width: int | None = None
    height: int | None = None
    frames: int = 49
    fps: int = 24
    motion_strength: float | None = None
    seed: int = RANDOM_SEED
    steps: int | None = None
    cfg_scale: float | None = None
    engine: str | None = None
