"""Ask how large the pictures of a request are, where that decides anything."""

from collections.abc import Awaitable, Callable

from comfy_mcp.generation.requests import ImageRequest

Size = tuple[int, int]
"""Width and height in pixels, as a renderer sees them."""

SizeOf = Callable[[str], Awaitable[Size | None]]
"""Return the size of a picture by the name that LoadImage takes, or None where it cannot be read."""


async def sizes_of(request: ImageRequest, size_of: SizeOf) -> tuple[Size | None, Size | None]:
    """Return the sizes of `input_image` and `mask`; None for what is not there, cannot be read, or decides nothing."""
    one_side = (request.width is None) != (request.height is None)
    if request.input_image is None or not (one_side or request.mask):
        return None, None
    return await size_of(request.input_image), await size_of(request.mask) if request.mask else None
