"""Images that are proven whole without being decoded: never one that does not decode, and never a wrong size."""

from io import BytesIO
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from aitk_mcp.image_structure import is_whole_jpeg, is_whole_png
from aitk_mcp.images import BadImage, ImageSize, check_image, open_image

NOISE = Image.fromarray(np.random.RandomState(0).randint(0, 255, (60, 90, 3), np.uint8))


def saved(form: str, **given: Any) -> bytes:
    file = BytesIO()
    NOISE.save(file, form, **given)
    return file.getvalue()


def turned() -> Image.Exif:
    """Return EXIF data that turn an image by 90 degrees."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + crc32(kind + data).to_bytes(4, "big")


IMAGES = {
    "baseline": saved("JPEG"),
    "progressive": saved("JPEG", progressive=True),
    "restarts": saved("JPEG", restart_marker_rows=1),
    "grey": saved("JPEG", quality=30, comment=b"\xff\xd9"),
    "turned jpeg": saved("JPEG", exif=turned()),
    "png": saved("PNG"),
    "turned png": saved("PNG", exif=turned()),
    "lossy webp": saved("WEBP", quality=60),
    "lossless webp": saved("WEBP", lossless=True),
    "turned webp": saved("WEBP", exif=turned()),
    "moving webp": saved("WEBP", save_all=True, append_images=[NOISE.rotate(90)]),
}


def decodes(data: bytes) -> bool:
    try:
        open_image(data, enough=1)[0].close()
    except BadImage:
        return False
    return True


def passes(data: bytes) -> bool:
    try:
        check_image(data)
    except BadImage:
        return False
    return True


@pytest.mark.parametrize("name", IMAGES)
def test_a_whole_image_is_proven_whole_and_sized(name: str) -> None:
    data = IMAGES[name]
    assert check_image(data) == (ImageSize(60, 90) if "turned" in name else ImageSize(90, 60))
    if "webp" not in name:
        assert (is_whole_png if "png" in name else is_whole_jpeg)(data)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(list(IMAGES)), st.floats(0, 1, exclude_max=True))
def test_of_what_was_cut_off_nothing_passes_that_does_not_decode(name: str, share: float) -> None:
    cut = IMAGES[name][: int(len(IMAGES[name]) * share)]
    assert passes(cut) == decodes(cut)


@pytest.mark.parametrize("name", IMAGES)
def test_the_last_bytes_count(name: str) -> None:
    for missing in range(1, 13):
        cut = IMAGES[name][:-missing]
        assert passes(cut) == decodes(cut)


def test_a_flipped_bit_of_a_png_is_found() -> None:
    whole = IMAGES["png"]
    for at in (20, 60, len(whole) // 2, len(whole) - 18):
        assert not is_whole_png(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


def test_what_stands_behind_the_end_does_not_matter() -> None:
    for name, data in IMAGES.items():
        assert check_image(data + b"\0 more") == check_image(data), name


def test_metadata_behind_the_pixels_turn_the_image_too() -> None:
    whole = saved("PNG")
    late = whole[:-12] + chunk(b"eXIf", turned().tobytes().removeprefix(b"Exif\0\0")) + whole[-12:]
    assert not is_whole_png(late)
    assert check_image(late) == ImageSize(60, 90)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xda\0\0\xff\xd9"])
def test_markers_alone_are_no_image(data: bytes) -> None:
    assert not passes(data)
    assert not is_whole_png(b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""))
