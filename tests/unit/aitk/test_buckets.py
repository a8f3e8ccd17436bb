"""The sizes that images are trained at, against what AI Toolkit's own rule answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitk_mcp.recipes.buckets import bucket_of, bucket_step, cropped_share


@pytest.mark.parametrize(
    ("size", "at_512_by_32", "at_1024_by_16"),
    [
        ((1024, 1024), (512, 512), (1024, 1024)),
        ((1024, 768), (576, 448), (1024, 768)),
        ((3000, 2000), (608, 416), (1248, 832)),
        ((512, 400), (512, 384), (512, 400)),
        ((64, 48), (64, 32), (64, 48)),
        ((1, 5000), (32, 4992), (16, 4992)),
        ((1080, 1920), (384, 672), (768, 1360)),
    ],
)
def test_buckets_are_those_that_ai_toolkit_makes(
    size: tuple[int, int], at_512_by_32: tuple[int, int], at_1024_by_16: tuple[int, int]
) -> None:
    """The expected sizes were answered by toolkit/buckets.py of AI Toolkit 0.12.26."""
    for resolution, step, expected in ((512, 32, at_512_by_32), (1024, 16, at_1024_by_16)):
        bucket = bucket_of(*size, resolution, step)
        assert (bucket.width, bucket.height) == expected


@pytest.mark.parametrize(
    ("architecture", "step"),
    [
        *(("flux", 32), ("flex1", 32), ("flux_kontext", 16), ("sdxl", 16), ("sd15", 16), ("sd3", 32), ("wan22_5b", 32)),
        *(("wan22_14b:t2v", 16), ("qwen_image:2512", 32), ("zimage:turbo", 16), ("chroma", 32), ("flux2", 16)),
    ],
)
def test_an_architecture_tells_the_step_of_its_buckets(architecture: str, step: int) -> None:
    assert bucket_step(architecture) == step


SIDES = st.integers(1, 6000)


@given(SIDES, SIDES, st.sampled_from([256, 512, 1024]), st.sampled_from([16, 32]))
def test_a_bucket_has_whole_steps_and_no_more_pixels_than_allowed(
    width: int, height: int, resolution: int, step: int
) -> None:
    bucket = bucket_of(width, height, resolution, step)
    assert bucket.width % step == bucket.height % step == 0
    assert min(bucket.width, bucket.height) >= step
    if min(width, height) >= step * 2 and max(width, height) < 20 * min(width, height):
        assert bucket.width * bucket.height <= resolution * resolution
    assert 0 <= cropped_share(width, height, bucket) < 1
