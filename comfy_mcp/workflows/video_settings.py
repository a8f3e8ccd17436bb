"""What a request for a video comes to for one kind of model: frames, sides and motion that it can render."""

import re
from dataclasses import dataclass

from comfy_mcp.workflows.families import title_of
from comfy_mcp.workflows.ranges import check_video
from comfy_mcp.workflows.recipes import VideoRecipe
from comfy_mcp.workflows.requests import VideoRequest, file_of
from comfy_mcp.workflows.settings import fixed_cfg, negative_prompt, to_step
from mcp_toolserver.errors import InvalidArguments

MOTION_STRENGTH = 0.7
# What a card of 24 GB has left beside the desktop.
LARGE_GB = 22.0
_BASE_PIXELS = 768 * 768
_BASE_FRAMES = 49


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """Hold what is really sampled; `motion_shift` is None where nothing sets how much moves."""

    seed: int
    steps: int
    cfg: float
    width: int
    height: int
    frames: int
    fps: int
    negative_prompt: str
    motion_shift: float | None

    @property
    def duration_s(self) -> float:
        """Length of the video."""
        return self.frames / self.fps


def settle_video(request: VideoRequest, recipe: VideoRecipe) -> tuple[VideoSettings, list[str]]:
    """Fill a request from the recipe, and return the settings with a warning for each value that was changed.

    Raises InvalidArguments that names the field, its value and the closest valid one.
    """
    check_video(request)
    _check_start(request, recipe)
    warnings: list[str] = []
    cfg = fixed_cfg(request.cfg_scale, recipe, warnings)
    asked = request.negative_prompt
    negative = negative_prompt(asked, recipe, warnings) if asked is not None else _own_negative(recipe)
    settings = VideoSettings(
        seed=request.seed,
        steps=recipe.steps if request.steps is None else request.steps,
        cfg=cfg,
        width=to_step("width", request.width or recipe.width, recipe, warnings),
        height=to_step("height", request.height or recipe.height, recipe, warnings),
        frames=_frames(request, recipe, warnings),
        fps=request.fps,
        negative_prompt=negative,
        motion_shift=_motion_shift(request, recipe, warnings),
    )
    needed_gb = vram_gb(recipe, settings)
    if needed_gb > LARGE_GB:
        warnings.append(
            f"{title_of(recipe.name)} may take about {needed_gb:.0f} GB of VRAM for {settings.frames} frames of "
            f"{settings.width} x {settings.height}; fewer frames or smaller ones take less."
        )
    return settings, warnings


def vram_gb(recipe: VideoRecipe, settings: VideoSettings) -> float:
    """Estimate the memory of the graphics card: the model's at 49 frames of 768 x 768, more for more of both."""
    area = settings.width * settings.height / _BASE_PIXELS
    length = settings.frames / _BASE_FRAMES
    return recipe.vram_gb * (1 + (area - 1) * 0.3) * (1 + (length - 1) * 0.2)


def _check_start(request: VideoRequest, recipe: VideoRecipe) -> None:
    if not request.prompt.strip() and request.input_image is None:
        raise InvalidArguments(
            "A video needs `input_image`, `prompt`, or both.",
            hint="Upload a picture with `upload-image` and name it as `input_image`, or say in `prompt` what happens.",
            details={"field": "input_image", "missing": ["input_image", "prompt"]},
        )
    # Those who train a model for one of the two alone write it into its name.
    made_for = re.search(r"(?<![a-z])(t2v|i2v)(?![a-z])", file_of(request.checkpoint).lower())
    if made_for is None or (made_for[1] == "i2v") == (request.input_image is not None):
        return
    needs_image = made_for[1] == "i2v"
    raise InvalidArguments(
        f"`{file_of(request.checkpoint)}` makes videos from {'an image' if needs_image else 'text'} alone, and "
        f"`input_image` is {'missing' if needs_image else 'given'}.",
        hint="Give `input_image`, or name the t2v model." if needs_image else "Name the i2v model, or leave it out.",
        details={"field": "input_image", "value": request.input_image, "family": recipe.name},
    )


def _own_negative(recipe: VideoRecipe) -> str:
    return "" if recipe.fixed_cfg else recipe.negative


def _frames(request: VideoRequest, recipe: VideoRecipe, warnings: list[str]) -> int:
    step = recipe.frame_step
    frames = max(1, round((request.frames - 1) / step)) * step + 1
    title = title_of(recipe.name)
    if frames != request.frames:
        warnings.append(
            f"`frames` {request.frames} was set to {frames}: {title} renders one frame and a multiple of {step} more."
        )
    if frames > recipe.trained_frames:
        warnings.append(
            f"`frames` {frames} is longer than the {recipe.trained_frames} that {title} was trained on; the video may "
            "drift or repeat itself."
        )
    return frames


def _motion_shift(request: VideoRequest, recipe: VideoRecipe, warnings: list[str]) -> float | None:
    if recipe.motion_shift is None:
        if request.motion_strength is not None:
            warnings.append(
                f"`motion_strength` {request.motion_strength} was ignored: {title_of(recipe.name)} has no such "
                "setting. Say in `prompt` what moves, and how."
            )
        return None
    least, most = recipe.motion_shift
    strength = MOTION_STRENGTH if request.motion_strength is None else request.motion_strength
    return round(least + (most - least) * strength, 2)
