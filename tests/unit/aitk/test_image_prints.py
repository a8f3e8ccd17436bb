"""Fingerprints: the same picture in other files is found, other pictures are not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from aitk_mcp.datasets.image_prints import ImagePrint, near_groups, read_print, same_groups
from aitk_mcp.images import BadImage
from tinyflux import sample_dataset_path


def picture(seed: int, side: int = 192) -> Image.Image:
    """Return a smooth picture of its own for each seed."""
    coarse = np.random.RandomState(seed).randint(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def printed(folder: Path, image: Image.Image, name: str, **given: Any) -> ImagePrint:
    image.save(folder / name, **given)
    return read_print(folder / name)


def test_the_same_picture_in_other_files_is_found(tmp_path: Path) -> None:
    original = picture(1)
    prints = [
        printed(tmp_path, original, "a.png"),
        printed(tmp_path, picture(2), "b.png"),
        printed(tmp_path, original.resize((640, 640)), "c.jpg", quality=60),
        printed(tmp_path, original, "d.webp", quality=70),
        printed(tmp_path, original, "e.png"),
    ]
    assert same_groups(prints) == [[0, 4]]
    assert near_groups(prints) == [[0, 2, 3, 4]]


def test_a_picture_that_only_lies_turned_is_the_same(tmp_path: Path) -> None:
    original = picture(3)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = printed(tmp_path, original.transpose(Image.Transpose.ROTATE_90), "turned.png", exif=exif)
    assert turned.orientation == 6
    assert near_groups([printed(tmp_path, original, "a.png"), turned]) == [[0, 1]]


def test_plain_colours_are_told_apart(tmp_path: Path) -> None:
    prints = [
        printed(tmp_path, Image.new("RGB", (40, 40), colour), f"{colour}.png") for colour in ("red", "teal", "black")
    ]
    assert near_groups(prints) == []


def test_pictures_of_one_subject_are_not_taken_for_copies() -> None:
    assert near_groups([read_print(path) for path in sorted(sample_dataset_path().rglob("*.png"))]) == []


def test_nothing_is_near_to_nothing() -> None:
    assert near_groups([]) == same_groups([]) == []


def test_what_is_no_image_says_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    with pytest.raises(BadImage, match="cannot be read"):
        read_print(file)
    file.write_bytes(b"<html>")
    with pytest.raises(BadImage, match="web page"):
        read_print(file)
