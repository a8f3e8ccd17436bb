"""What a caller asks of a picture, and the settings that this comes to for a family of models."""

import math
from dataclasses import dataclass

from comfy_mcp.workflows.families import title_of
from comfy_mcp.workflows.recipes import Recipe
from mcp_toolserver.errors import InvalidArguments

MAX_SEED = 2**64 - 1
SIDE_PIXELS = (64, 8192)
STEPS = (1, 150)
CFG = (1.0, 30.0)
GUIDANCE = (1.0, 10.0)
STRENGTH = (0.0, 2.0)
BATCH = (1, 20)
IMG2IMG_DENOISE = 0.75
# A side must be a whole number of latent cells of 8 pixels.
CELL_PIXELS = 8
# Past this area, decoding in one piece needs more memory than the sampling did.
TILED_OVER_PIXELS = 1536 * 1536


@dataclass(frozen=True, kw_only=True)
class LoraUse:
    """Name a LoRA as its loader's list has it, and how strongly it works.

    `strength_clip` is that of the text encoder, the same as `strength` when None; `model_only` is for a LoRA without
    text-encoder keys.
    """

    name: str
    strength: float = 1.0
    strength_clip: float | None = None
    model_only: bool = False


@dataclass(frozen=True, kw_only=True)
class SplitModel:
    """Name the files of a model that comes in parts: diffusion model, text encoders in the loader's order, VAE."""

    diffusion_model: str
    text_encoders: tuple[str, ...]
    vae: str
    weight_dtype: str = "default"


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """Ask for pictures; None leaves a setting to the family.

    `seed` is from 0 to 2**64 - 1: a random one is the caller's to draw, so that a request says all. `input_image` is
    the name that LoadImage takes; without a size the picture keeps that of the image. `tiled_decode` None decides by
    the area.
    """

    prompt: str
    checkpoint: str | SplitModel
    seed: int
    negative_prompt: str = ""
    loras: tuple[LoraUse, ...] = ()
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    guidance: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    input_image: str | None = None
    denoise: float | None = None
    tiled_decode: bool | None = None
    filename_prefix: str = "loraloop"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold what is really sampled; `width` and `height` are None where the input image decides."""

    seed: int
    steps: int
    cfg: float
    guidance: float | None
    sampler: str
    scheduler: str
    denoise: float
    width: int | None
    height: int | None
    batch_size: int
    negative_prompt: str
    tiled_decode: bool


def settle(request: GenerationRequest, recipe: Recipe) -> tuple[Settings, list[str]]:
    """Fill a request from the family's recipe, and return the settings with a warning for each value that was changed.

    Raises InvalidArguments that names the field, its value and the closest valid one.
    """
    _check_ranges(request)
    warnings: list[str] = []
    cfg, guidance = _strength_of_prompt(request, recipe, warnings)
    sampler, scheduler = _sampling(request, recipe, warnings)
    negative = _negative(request, recipe, warnings)
    denoise = _denoise(request, warnings)
    width, height = _size(request, recipe)
    steps = recipe.steps if request.steps is None else request.steps
    _advise_steps(steps, recipe, request, warnings)
    large = width is not None and height is not None and width * height > TILED_OVER_PIXELS
    settings = Settings(
        seed=request.seed,
        steps=steps,
        cfg=cfg,
        guidance=guidance,
        sampler=sampler,
        scheduler=scheduler,
        denoise=denoise,
        width=width,
        height=height,
        batch_size=request.batch_size,
        negative_prompt=negative,
        tiled_decode=large if request.tiled_decode is None else request.tiled_decode,
    )
    return settings, warnings


def _strength_of_prompt(request: GenerationRequest, recipe: Recipe, warnings: list[str]) -> tuple[float, float | None]:
    title = title_of(recipe.family)
    if recipe.guidance is None:
        if request.guidance is not None:
            warnings.append(f"`guidance` {request.guidance} was ignored: {title} is steered by `cfg_scale`.")
        return (recipe.cfg if request.cfg_scale is None else request.cfg_scale), None
    guidance = recipe.guidance if request.guidance is None else request.guidance
    if request.cfg_scale is not None and request.cfg_scale != recipe.cfg:
        warnings.append(
            f"`cfg_scale` {request.cfg_scale} was set to {recipe.cfg}: {title} has its guidance trained in and burns "
            f"at a higher cfg; FluxGuidance steers it instead, here at {guidance} (`guidance`, 1.0 to 10.0)."
        )
    return recipe.cfg, guidance


def _sampling(request: GenerationRequest, recipe: Recipe, warnings: list[str]) -> tuple[str, str]:
    title = title_of(recipe.family)
    sampler = request.sampler or recipe.sampler
    scheduler = request.scheduler or recipe.scheduler
    if not recipe.samplers:
        return sampler, scheduler
    unfit_scheduler = scheduler in recipe.unfit_schedulers
    # `euler` runs well on a scheduler meant for flow models; alone or beside `normal` it is the habit from SD.
    if request.sampler == "euler" and (request.scheduler is None or unfit_scheduler):
        warnings.append(
            f"`sampler` euler was set to {recipe.sampler}: with the settings of Stable Diffusion {title} loses detail; "
            f"{', '.join(recipe.samplers)} suit it."
        )
        sampler = recipe.sampler
    if unfit_scheduler:
        warnings.append(
            f"`scheduler` {scheduler} was set to {recipe.scheduler}: it spaces the noise for Stable Diffusion, and "
            f"{title} is a flow model; {', '.join(recipe.schedulers)} suit it."
        )
        scheduler = recipe.scheduler
    return sampler, scheduler


def _negative(request: GenerationRequest, recipe: Recipe, warnings: list[str]) -> str:
    if recipe.guidance is None or not request.negative_prompt.strip():
        return request.negative_prompt
    warnings.append(
        f"`negative_prompt` was left out: at cfg {recipe.cfg} {title_of(recipe.family)} never reads it. "
        "Say in `prompt` what should be there instead."
    )
    return ""


def _denoise(request: GenerationRequest, warnings: list[str]) -> float:
    if request.input_image is not None:
        return IMG2IMG_DENOISE if request.denoise is None else request.denoise
    if request.denoise is not None and request.denoise != 1.0:
        warnings.append(
            f"`denoise` {request.denoise} was set to 1.0: without `input_image` there is nothing to keep, and part of "
            "the noise would stay in the picture."
        )
    return 1.0


def _size(request: GenerationRequest, recipe: Recipe) -> tuple[int | None, int | None]:
    if request.input_image is not None and request.width is None and request.height is None:
        return None, None
    return request.width or recipe.width, request.height or recipe.height


def _advise_steps(steps: int, recipe: Recipe, request: GenerationRequest, warnings: list[str]) -> None:
    name = request.checkpoint if isinstance(request.checkpoint, str) else request.checkpoint.diffusion_model
    # The distilled variants are made for 1 to 8 steps.
    if recipe.advised_steps is None or any(word in name.lower() for word in ("schnell", "turbo", "hyper")):
        return
    low, high = recipe.advised_steps
    if steps < low:
        warnings.append(f"{title_of(recipe.family)} wants {low} to {high} steps; {steps} may leave the picture rough.")


def _check_ranges(request: GenerationRequest) -> None:
    _whole("seed", request.seed, (0, MAX_SEED))
    _whole("steps", request.steps, STEPS)
    _whole("batch_size", request.batch_size, BATCH)
    _side("width", request.width)
    _side("height", request.height)
    _within("cfg_scale", request.cfg_scale, CFG)
    _within("guidance", request.guidance, GUIDANCE)
    _within("denoise", request.denoise, (0.0, 1.0))
    for index, lora in enumerate(request.loras):
        if not lora.name.strip():
            raise _refusal(f"loras.{index}.name", lora.name, "must be the name of a LoRA", None)
        _within(f"loras.{index}.strength", lora.strength, STRENGTH)
        _within(f"loras.{index}.strength_clip", lora.strength_clip, STRENGTH)


def _side(field: str, pixels: int | None) -> None:
    _whole(field, pixels, SIDE_PIXELS)
    if pixels is not None and pixels % CELL_PIXELS:
        nearest = round(pixels / CELL_PIXELS) * CELL_PIXELS
        raise _refusal(field, pixels, f"must be a multiple of {CELL_PIXELS} pixels", nearest)


def _whole(field: str, value: int | None, bounds: tuple[int, int]) -> None:
    low, high = bounds
    if value is not None and not low <= value <= high:
        raise _refusal(field, value, f"must be from {low} to {high}", min(max(value, low), high))


def _within(field: str, value: float | None, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if value is None or low <= value <= high:
        return
    nearest = None if math.isnan(value) else min(max(value, low), high)
    raise _refusal(field, value, f"must be from {low} to {high}", nearest)


def _refusal(field: str, value: object, rule: str, nearest: float | None) -> InvalidArguments:
    # NaN and infinity have no JSON form, so that `details` carries them as text.
    shown = value if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)) else str(value)
    return InvalidArguments(
        f"Argument `{field}` is {value!r}; it {rule}.",
        hint=None if nearest is None else f"The closest valid value is {nearest}.",
        details={"field": field, "value": shown, "closest": nearest},
    )
