"""A side that was left out beside a picture, and masks of another size than their picture."""

from typing import Any

import pytest

from comfy_mcp.workflows import BuiltGraph, GenerationRequest, build
from mcp_toolserver.errors import InvalidArguments


def built(**changes: Any) -> BuiltGraph:
    fields: dict[str, Any] = {"prompt": "a house", "checkpoint": "a.safetensors", "seed": 1, "input_image": "a.png"}
    return build(GenerationRequest(**fields, **changes), "sd15")


@pytest.mark.parametrize(
    ("size", "sides", "expected"),
    [
        ((64, 64), {"width": 256}, (256, 256)),
        ((1200, 800), {"width": 768}, (768, 512)),
        ((1200, 800), {"height": 512}, (768, 512)),
        ((1000, 667), {"width": 512}, (512, 344)),
        ((1000, 667), {}, (None, None)),
        ((1000, 667), {"width": 512, "height": 512}, (512, 512)),
    ],
)
def test_the_other_side_follows_the_ratio_of_the_picture(
    size: tuple[int, int], sides: dict[str, int], expected: tuple[int, int]
) -> None:
    made = built(input_size=size, **sides)
    assert (made.settings.width, made.settings.height) == expected
    assert made.warnings == ()


def test_a_side_of_a_picture_that_cannot_be_read_is_asked_for() -> None:
    with pytest.raises(InvalidArguments, match="`height` is left out") as refused:
        built(width=256)
    assert refused.value.details["field"] == "height"


def test_a_ratio_that_makes_no_picture_is_refused_with_the_closest() -> None:
    with pytest.raises(InvalidArguments, match="4000 x 20") as refused:
        built(input_size=(4000, 20), width=256)
    assert refused.value.details == {"field": "width", "value": 256, "closest": None}
    with pytest.raises(InvalidArguments, match="`height` 32 at the ratio") as refused:
        built(input_size=(400, 100), width=128)
    assert refused.value.details == {"field": "width", "value": 128, "closest": 256}


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidArguments, match=r"4000 x 1 pixels.*64 x 64") as refused:
        built(input_size=(64, 64), mask="m.png", mask_size=(4000, 1))
    assert refused.value.details == {"field": "mask", "value": [4000, 1], "closest": [64, 64]}


@pytest.mark.parametrize("mask", [(500, 334), (2000, 1334), (1000, 664)])
def test_a_mask_of_the_same_shape_is_scaled_and_said(mask: tuple[int, int]) -> None:
    [warning] = built(input_size=(1000, 667), mask="m.png", mask_size=mask).warnings
    assert f"{mask[0]} x {mask[1]}" in warning
    assert "1000 x 667" in warning


@pytest.mark.parametrize("mask", [(1000, 667), None])
def test_of_a_mask_that_fits_or_is_not_known_nothing_is_said(mask: tuple[int, int] | None) -> None:
    assert built(input_size=(1000, 667), mask="m.png", mask_size=mask).warnings == ()
