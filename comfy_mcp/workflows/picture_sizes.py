"""What the sides of the pictures that a request names decide: a side that was left out, and whether a mask fits."""

from comfy_mcp.workflows.ranges import SIDE_PIXELS, refusal
from comfy_mcp.workflows.requests import GenerationRequest
from mcp_toolserver.errors import InvalidArguments

# A mask that was scaled is a pixel or two off the ratio of its picture.
_OFF_RATIO = 0.01


def with_both_sides(request: GenerationRequest, step: int) -> tuple[int, int]:
    """Return width and height in pixels where one of them is given: the other follows the ratio of `input_image`.

    It is a multiple of `step`. Raises InvalidArguments where the size of `input_image` is not known, and where the
    ratio makes a side that cannot be rendered.
    """
    given, missing = ("height", "width") if request.width is None else ("width", "height")
    pixels = (request.height if request.width is None else request.width) or 0
    if request.input_size is None:
        raise InvalidArguments(
            f"Argument `{given}` is {pixels} and `{missing}` is left out: it would follow the ratio of `input_image` "
            f"{request.input_image!r}, and that picture cannot be read.",
            hint="Give both or none of them; `upload-image` returns the name that `input_image` takes.",
            details={"field": missing, "value": None, "input_image": request.input_image},
        )
    width, height = request.input_size
    ratio = height / width if given == "width" else width / height
    low, high = SIDE_PIXELS
    other = round(pixels * ratio / step) * step
    if not low <= other <= high:
        nearest = min(max(round(min(max(other, low), high) / ratio / step) * step, low), high)
        raise refusal(
            given,
            pixels,
            f"makes `{missing}` {other} at the ratio of `input_image` ({width} x {height}), and a side must be from "
            f"{low} to {high}",
            nearest if low <= nearest * ratio <= high else None,
        )
    return (pixels, other) if given == "width" else (other, pixels)


def check_mask(request: GenerationRequest) -> list[str]:
    """Return a warning for a mask that has the shape of `input_image` and another size; none where they are not known.

    Raises InvalidArguments for a mask of another shape, which would be stretched.
    """
    if request.input_size is None or request.mask_size is None or request.mask_size == request.input_size:
        return []
    (width, height), (mask_width, mask_height) = request.input_size, request.mask_size
    sizes = f"{mask_width} x {mask_height} pixels, and `input_image` of {width} x {height}"
    if abs(mask_width * height / width - mask_height) > max(1.0, _OFF_RATIO * mask_height):
        raise InvalidArguments(
            f"Argument `mask` is {request.mask!r}, a picture of {sizes}: it would be stretched.",
            hint=f"Send a mask of {width} x {height} pixels.",
            details={"field": "mask", "value": [mask_width, mask_height], "closest": [width, height]},
        )
    return [f"`mask` is a picture of {sizes}: it was scaled to fit."]
