"""Bring 32 x 32 pictures to the size that was asked for, and pictures of any size to 32 x 32.

The model knows squares only. A picture that is wider than high, or higher than wide, is the middle of a square:
decoding scales the square to the longer side and cuts, so that pixels stay square; encoding puts the picture in the
middle of a square of its longer side, whose borders repeat its edge. So a picture keeps its place there and back.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from comfy_mcp.embedded.nodes.models import RENDERED_SIZE_PX

PREVIEW_SIZE_PX = 256
_JPEG_QUALITY = 90


def _nearest(length: int, square: int) -> NDArray[np.intp]:
    """Return for each of `length` pixels, in the middle of a square, the row or column of the model's that it shows."""
    first = (square - length) // 2
    return ((np.arange(first, first + length) + 0.5) * RENDERED_SIZE_PX / square).astype(np.intp)


def enlarge(pixels: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Scale (B, 32, 32, 3) to (B, height, width, 3) by repeating pixels, cutting what is beyond the shorter side."""
    square = max(width_px, height_px)
    rows, columns = _nearest(height_px, square), _nearest(width_px, square)
    return pixels[:, rows[:, None], columns[None, :]]


def reduce(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale (B, H, W, 3) to (B, 32, 32, 3) by averaging, the edges repeated where the picture is no square."""
    height, width = pixels.shape[1:3]
    square = max(width, height)
    above, left = (square - height) // 2, (square - width) // 2
    borders = ((above, square - height - above), (left, square - width - left), (0, 0))
    size = (RENDERED_SIZE_PX, RENDERED_SIZE_PX)
    return np.stack(
        [
            np.asarray(Image.fromarray(np.pad(one, borders, mode="edge")).resize(size, Image.Resampling.BOX))
            for one in pixels
        ]
    )


def preview_jpeg(pixels: NDArray[np.uint8], width_px: int, height_px: int) -> bytes:
    """Return the first of (B, 32, 32, 3) as a JPEG in the proportions of the final picture."""
    scale = min(1.0, PREVIEW_SIZE_PX / max(width_px, height_px))
    shown = enlarge(pixels[:1], max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    buffer = io.BytesIO()
    Image.fromarray(shown[0]).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
