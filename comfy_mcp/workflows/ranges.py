"""The bounds of every number that a caller may give, and the refusal of one outside."""

import math
from collections.abc import Iterable, Mapping

from comfy_mcp.workflows.requests import MAX_SEED, GenerationRequest, LoraUse, VideoRequest
from mcp_toolserver.errors import InvalidArguments

SIDE_PIXELS = (64, 8192)
VIDEO_SIDE_PIXELS = (256, 1920)
STEPS = (1, 150)
CFG = (1.0, 30.0)
GUIDANCE = (1.0, 10.0)
STRENGTH = (0.0, 2.0)
BATCH = (1, 20)
HIRES_SCALE = (1.05, 4.0)
FRAMES = (1, 1025)
FPS = (1, 120)
FRACTION = (0.0, 1.0)
# A side must be a whole number of latent cells of 8 pixels.
CELL_PIXELS = 8


# Of a template's parameters, whatever its model; the model's own bounds may be narrower.
_PARAMETERS: Mapping[str, tuple[float, float]] = {
    "seed": (0, MAX_SEED),
    "steps": STEPS,
    "hires_steps": STEPS,
    "batch_size": BATCH,
    "frames": FRAMES,
    "fps": FPS,
    "width": SIDE_PIXELS,
    "height": SIDE_PIXELS,
    "cfg_scale": CFG,
    "guidance": GUIDANCE,
    "denoise": FRACTION,
    "hires_denoise": FRACTION,
    "hires_scale": HIRES_SCALE,
    "lora_strength": STRENGTH,
    "lora_strength_clip": STRENGTH,
    "controlnet_strength": STRENGTH,
}


def check_parameter(name: str, value: float) -> None:
    """Raise InvalidArguments for a template's parameter that is out of its bounds; one without bounds passes."""
    bounds = _PARAMETERS.get(name)
    if bounds is not None:
        within(f"parameters.{name}", value, bounds)
    if name in {"width", "height"}:
        _on_cells(f"parameters.{name}", int(value))


def check_image(request: GenerationRequest, guidance: tuple[float, float]) -> None:
    """Raise InvalidArguments for the first value of a request that is out of its bounds; `guidance` are the model's."""
    whole("seed", request.seed, (0, MAX_SEED))
    whole("steps", request.steps, STEPS)
    whole("batch_size", request.batch_size, BATCH)
    _side("width", request.width)
    _side("height", request.height)
    within("cfg_scale", request.cfg_scale, CFG)
    within("guidance", request.guidance, guidance)
    within("denoise", request.denoise, FRACTION)
    _check_loras(request.loras)
    if request.hires is not None:
        within("hires.scale", request.hires.scale, HIRES_SCALE)
        within("hires.denoise", request.hires.denoise, FRACTION)
        whole("hires.steps", request.hires.steps, STEPS)
    if request.controlnet is not None:
        within("controlnet.strength", request.controlnet.strength, STRENGTH)
        within("controlnet.start", request.controlnet.start, FRACTION)
        within("controlnet.end", request.controlnet.end, FRACTION)
        if request.controlnet.start >= request.controlnet.end:
            raise refusal(
                "controlnet.end", request.controlnet.end, f"must be after `start` ({request.controlnet.start})", 1.0
            )


def check_video(request: VideoRequest) -> None:
    """Raise InvalidArguments for the first value of a request that is out of its bounds."""
    whole("seed", request.seed, (0, MAX_SEED))
    whole("width", request.width, VIDEO_SIDE_PIXELS)
    whole("height", request.height, VIDEO_SIDE_PIXELS)
    whole("frames", request.frames, FRAMES)
    whole("fps", request.fps, FPS)
    whole("steps", request.steps, STEPS)
    within("cfg_scale", request.cfg_scale, CFG)
    within("motion_strength", request.motion_strength, FRACTION)
    _check_loras(request.loras)


def whole(field: str, value: int | None, bounds: tuple[int, int]) -> None:
    """Refuse a whole number outside of its bounds."""
    low, high = bounds
    if value is not None and not low <= value <= high:
        raise refusal(field, value, f"must be from {low} to {high}", min(max(value, low), high))


def within(field: str, value: float | None, bounds: tuple[float, float]) -> None:
    """Refuse a number outside of its bounds, or one that is none."""
    low, high = bounds
    if value is None or low <= value <= high:
        return
    nearest = None if math.isnan(value) else min(max(value, low), high)
    raise refusal(field, value, f"must be from {low} to {high}", nearest)


def refusal(field: str, value: object, rule: str, nearest: object) -> InvalidArguments:
    """Return the error that names a field, its value, the rule and the closest valid value."""
    # NaN and infinity have no JSON form, so that `details` carries them as text.
    shown = value if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)) else str(value)
    return InvalidArguments(
        f"Argument `{field}` is {value!r}; it {rule}.",
        hint="Give another value, or leave it out." if nearest is None else f"The closest valid value is {nearest}.",
        details={"field": field, "value": shown, "closest": nearest},
    )


def _check_loras(loras: Iterable[LoraUse]) -> None:
    for index, lora in enumerate(loras):
        if not lora.name.strip():
            raise refusal(f"loras.{index}.name", lora.name, "must be the name of a LoRA", None)
        within(f"loras.{index}.strength", lora.strength, STRENGTH)
        within(f"loras.{index}.strength_clip", lora.strength_clip, STRENGTH)


def _side(field: str, pixels: int | None) -> None:
    whole(field, pixels, SIDE_PIXELS)
    if pixels is not None:
        _on_cells(field, pixels)


def _on_cells(field: str, pixels: int) -> None:
    if pixels % CELL_PIXELS:
        nearest = round(pixels / CELL_PIXELS) * CELL_PIXELS
        raise refusal(field, pixels, f"must be a multiple of {CELL_PIXELS} pixels", nearest)
