"""What a request for pictures comes to for one kind of model: its mode, and what is really sampled."""

import math
from dataclasses import dataclass

from comfy_mcp.workflows.families import title_of
from comfy_mcp.workflows.picture_sizes import check_mask, with_both_sides
from comfy_mcp.workflows.ranges import HIRES_SCALE, SIDE_PIXELS, check_image, refusal
from comfy_mcp.workflows.recipes import ImageRecipe, Mode, Recipe
from comfy_mcp.workflows.requests import GenerationRequest, file_of
from mcp_toolserver.errors import InvalidArguments

IMG2IMG_DENOISE = 0.75
# What the mask leaves open is to be replaced, and a trace of it keeps light and colours together.
INPAINT_DENOISE = 0.9
# Past this area, decoding in one piece needs more memory than the sampling did.
TILED_OVER_PIXELS = 1536 * 1536
_WAYS_IN: dict[Mode, str] = {
    "txt2img": "a prompt alone",
    "img2img": "`input_image` to start from",
    "edit": "`input_image` to edit",
    "inpaint": "`input_image` with a `mask`",
    "hires": "`hires`",
    "controlnet": "`controlnet`",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold what is really sampled; `width` and `height` are None where the input image decides."""

    mode: Mode
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


def settle(request: GenerationRequest, recipe: ImageRecipe) -> tuple[Settings, list[str]]:
    """Fill a request from the family's recipe, and return the settings with a warning for each value that was changed.

    Raises InvalidArguments that names the field, its value and the closest valid one, or the mode that the model lacks
    and those that it has.
    """
    check_image(request, recipe.guidance_range)
    mode = _mode(request, recipe)
    warnings = check_mask(request)
    cfg, guidance = _strength_of_prompt(request, recipe, warnings)
    sampler, scheduler = _sampling(request, recipe, warnings)
    negative = negative_prompt(request.negative_prompt, recipe, warnings)
    denoise = _denoise(request, recipe, mode, warnings)
    width, height = _size(request, recipe, warnings)
    steps = recipe.steps if request.steps is None else request.steps
    _advise_steps(steps, recipe, request, warnings)
    if mode == "img2img":
        _advise_denoise("denoise", denoise, steps, "`input_image`", warnings)
    if request.hires is not None:
        second = request.hires.steps or steps
        _advise_denoise("hires.denoise", request.hires.denoise, second, "the first pass", warnings)
    settings = Settings(
        mode=mode,
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
        tiled_decode=_in_tiles(request, width, height),
    )
    return settings, warnings


def fixed_cfg(asked: float | None, recipe: Recipe, warnings: list[str], instead: str = "") -> float:
    """Return the cfg to sample with, and say where the model takes no other than its own."""
    if asked is None or not recipe.fixed_cfg or asked == recipe.cfg:
        return recipe.cfg if asked is None else asked
    warnings.append(
        f"`cfg_scale` {asked} was set to {recipe.cfg}: {title_of(recipe.name)} has its guidance trained in and burns "
        f"at a higher cfg{instead}."
    )
    return recipe.cfg


def negative_prompt(text: str, recipe: Recipe, warnings: list[str]) -> str:
    """Return the negative prompt, empty where the model would never read it."""
    if not recipe.fixed_cfg or not text.strip():
        return text
    warnings.append(
        f"`negative_prompt` was left out: at cfg {recipe.cfg} {title_of(recipe.name)} never reads it. "
        "Say in `prompt` what should be there instead."
    )
    return ""


def to_step(field: str, pixels: int, recipe: Recipe, warnings: list[str]) -> int:
    """Return the nearest side that the model can render, and say so where it is another."""
    step = recipe.side_step
    nearest = max(step, round(pixels / step) * step)
    if nearest != pixels:
        warnings.append(
            f"`{field}` {pixels} was set to {nearest}: {title_of(recipe.name)} renders sides that are multiples of "
            f"{step} pixels."
        )
    return nearest


def _mode(request: GenerationRequest, recipe: ImageRecipe) -> Mode:
    for field, value in (("mask", request.mask), ("reference_images", request.reference_images)):
        if value and request.input_image is None:
            raise InvalidArguments(
                f"Argument `{field}` is given without `input_image`, the picture that it belongs to.",
                hint="Upload that picture with `upload-image`, and name it as `input_image`.",
                details={"field": field, "missing": "input_image"},
            )
    mode: Mode = "txt2img"
    if request.input_image is not None:
        mode = "inpaint" if request.mask else "edit" if recipe.references else "img2img"
    wanted: dict[Mode, str] = {mode: "mask" if request.mask else "input_image"}
    if request.hires:
        wanted["hires"] = "hires"
    if request.controlnet:
        wanted["controlnet"] = "controlnet"
    for needed, field in wanted.items():
        if needed not in recipe.modes:
            raise _lacks(needed, field, recipe)
    allowed = max(recipe.references, 1)
    if len(request.reference_images) >= allowed and request.reference_images:
        raise InvalidArguments(
            f"Argument `reference_images` has {len(request.reference_images)} pictures; {title_of(recipe.name)} reads "
            f"{allowed - 1} beside `input_image`.",
            hint="Editing models read several: FLUX.1 Kontext and Qwen-Image-Edit." if allowed == 1 else None,
            details={"field": "reference_images", "value": len(request.reference_images), "closest": allowed - 1},
        )
    return mode


def _lacks(mode: Mode, field: str, recipe: ImageRecipe) -> InvalidArguments:
    ways = [_WAYS_IN[known] for known in _WAYS_IN if known in recipe.modes]
    asked = _WAYS_IN[mode]
    return InvalidArguments(
        f"{title_of(recipe.name)} has no mode `{mode}` ({asked}).",
        hint=f"It takes {', '.join(ways)}. Name another model, or change `{field}`.",
        details={"field": field, "mode": mode, "modes": sorted(recipe.modes), "family": recipe.name},
    )


def _strength_of_prompt(
    request: GenerationRequest, recipe: ImageRecipe, warnings: list[str]
) -> tuple[float, float | None]:
    if recipe.guidance is None:
        if request.guidance is not None:
            steered = "it has its guidance trained in" if recipe.fixed_cfg else "it is steered by `cfg_scale`"
            warnings.append(f"`guidance` {request.guidance} was ignored for {title_of(recipe.name)}: {steered}.")
        return fixed_cfg(request.cfg_scale, recipe, warnings), None
    guidance = recipe.guidance if request.guidance is None else request.guidance
    low, high = recipe.guidance_range
    instead = f"; FluxGuidance steers it instead, here at {guidance} (`guidance`, {low} to {high})"
    return fixed_cfg(request.cfg_scale, recipe, warnings, instead), guidance


def _sampling(request: GenerationRequest, recipe: ImageRecipe, warnings: list[str]) -> tuple[str, str]:
    title = title_of(recipe.name)
    sampler = request.sampler or recipe.sampler
    scheduler = request.scheduler or recipe.scheduler
    unfit_scheduler = scheduler in recipe.unfit_schedulers
    # `euler` runs well on a scheduler meant for flow models; alone or beside `normal` it is the habit from SD.
    if recipe.samplers and request.sampler == "euler" and (request.scheduler is None or unfit_scheduler):
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


def _denoise(request: GenerationRequest, recipe: ImageRecipe, mode: Mode, warnings: list[str]) -> float:
    if mode in {"img2img", "inpaint"}:
        usual = IMG2IMG_DENOISE if mode == "img2img" else 1.0 if recipe.inpaint == "channels" else INPAINT_DENOISE
        return usual if request.denoise is None else request.denoise
    if request.denoise is not None and request.denoise != 1.0:
        why = "without `input_image` there is nothing to keep" if mode == "txt2img" else "the model keeps what it edits"
        warnings.append(
            f"`denoise` {request.denoise} was set to 1.0: {why}, and part of the noise would stay in the picture."
        )
    return 1.0


def _advise_denoise(field: str, denoise: float, steps: int, kept: str, warnings: list[str]) -> None:
    # KSampler takes the last `steps` of int(steps / denoise): where both are the same, it begins with noise alone.
    if 0 < denoise < 1 and steps / denoise < steps + 1:
        most = int(100 * steps / (steps + 1)) / 100
        warnings.append(
            f"`{field}` {denoise} in {steps} steps keeps hardly anything of {kept}: sampling begins at a whole step, "
            f"and here at the first. Take more steps, or {most} at most."
        )


def _size(request: GenerationRequest, recipe: ImageRecipe, warnings: list[str]) -> tuple[int | None, int | None]:
    if request.input_image is not None and request.width is None and request.height is None:
        if request.hires is not None and request.upscale_model is not None:
            raise InvalidArguments(
                "`hires` with `upscale_model` on an `input_image` needs `width` and `height`: how much the model "
                "enlarges is known to the server alone.",
                hint="Give the size of the picture before it is enlarged, or leave out `upscale_model`.",
                details={"field": "width", "missing": ["width", "height"]},
            )
        return None, None
    width, height = request.width or recipe.width, request.height or recipe.height
    if request.input_image is not None and None in (request.width, request.height):
        width, height = with_both_sides(request, recipe.side_step)
    width = to_step("width", width, recipe, warnings)
    height = to_step("height", height, recipe, warnings)
    if request.hires is not None:
        _check_enlarged(width, height, request.hires.scale, recipe)
    return width, height


def _check_enlarged(width: int, height: int, scale: float, recipe: Recipe) -> None:
    """Refuse a second pass that is larger than any picture may be."""
    field, side = ("width", width) if width >= height else ("height", height)
    least, longest = HIRES_SCALE[0], SIDE_PIXELS[1]
    if side * scale <= longest:
        return
    most = math.floor(longest / side * 100) / 100
    if most >= least:
        raise refusal("hires.scale", scale, f"makes a side longer than {longest} pixels", most)
    nearest = math.floor(longest / least / recipe.side_step) * recipe.side_step
    raise refusal(field, side, f"is too long for `hires`, which makes it longer than {longest} pixels", nearest)


def _in_tiles(request: GenerationRequest, width: int | None, height: int | None) -> bool:
    if request.tiled_decode is not None:
        return request.tiled_decode
    scale = 1.0 if request.hires is None else request.hires.scale
    return width is not None and height is not None and width * height * scale * scale > TILED_OVER_PIXELS


def _advise_steps(steps: int, recipe: ImageRecipe, request: GenerationRequest, warnings: list[str]) -> None:
    name = file_of(request.checkpoint).lower()
    # The distilled variants are made for 1 to 8 steps.
    if recipe.advised_steps is None or any(word in name for word in ("schnell", "turbo", "hyper")):
        return
    low, high = recipe.advised_steps
    if steps < low:
        warnings.append(f"{title_of(recipe.name)} wants {low} to {high} steps; {steps} may leave the picture rough.")
