"""Into which size AI Toolkit brings an image: its bucket, by the rule of toolkit/buckets.py of AI Toolkit 0.12.26."""

import math
from dataclasses import dataclass

from aitk_mcp.recipes.architectures import ARCHITECTURES

_DEFAULT_STEP = 16
# By `get_bucket_divisibility` of each model; a latent and its patches cover that many pixels.
_STEPS_OF_32 = frozenset(
    {"flux", "sd3", "chroma", "anima", "ernie_image", "hidream_o1", "ltx2", "ltx2.3", "ltx2.5", "minimax_h3"}
    | {"minimax_h3_ref2va", "nucleus_image", "wan22_5b", "zeta_chroma", "qwen_image", "qwen_image_edit"}
    | {"qwen_image_edit_plus"}
)


@dataclass(frozen=True, order=True)
class Bucket:
    """The size that an image is scaled and then cropped to, in pixels."""

    width: int
    height: int


def bucket_step(architecture: str) -> int:
    """Return what the sides of an architecture's buckets are multiples of, in pixels."""
    row = ARCHITECTURES.get(architecture)
    return 32 if (row.backend_arch if row else architecture) in _STEPS_OF_32 else _DEFAULT_STEP


def bucket_of(width: int, height: int, resolution: int, step: int) -> Bucket:
    """Return the bucket of an upright image: at most resolution squared pixels, never more than the image has.

    The shape is kept as far as sides that are multiples of `step` allow; what sticks out is cropped around the middle.
    """
    pixels, most = width * height, resolution * resolution
    wanted = min(pixels, most)
    scale = math.sqrt(wanted / pixels)
    across, down = width * scale / step, height * scale / step
    choices = [
        Bucket(w * step, h * step)
        for w in (math.floor(across), math.ceil(across))
        for h in (math.floor(down), math.ceil(down))
        if w and h and w * h * step * step <= most
    ]
    if not choices:
        return Bucket(max(step, math.floor(across) * step), max(step, math.floor(down) * step))
    return min(choices, key=lambda bucket: abs(bucket.width * bucket.height - wanted))


def cropped_share(width: int, height: int, bucket: Bucket) -> float:
    """Return which share of an image is cut off when it is brought into its bucket, 0 to 1."""
    scale = max(bucket.width / width, bucket.height / height)
    return max(0.0, 1 - bucket.width * bucket.height / (width * height * scale * scale))
