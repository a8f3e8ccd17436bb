"""Fingerprints of images: which are the same file, and which only look the same. Everything blocks.

The perceptual hash is imagehash's `phash` of 64 bits, which sees no colours. A coarse colour picture beside it tells
apart what differs in colour only, and plain surfaces.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from aitk_mcp.images import BadImage, ImageSize, open_image

_ENOUGH, _TILES = 128, 8
_NEAR_BITS = 8
_NEAR_COLOUR = 16.0


@dataclass(frozen=True, slots=True)
class ImagePrint:
    """An image that decodes: upright size, EXIF orientation (1 is upright), and what it is recognised by."""

    size: ImageSize
    orientation: int
    sha256: str
    waves: NDArray[np.bool_]
    colours: NDArray[np.int16]


def read_print(path: Path) -> ImagePrint:
    """Decode an image file completely and return its fingerprint; raises BadImage that says what it is instead."""
    # It brings scipy along, which would make every start of the server slower.
    from imagehash import phash

    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImage(f"it cannot be read: {error.strerror}") from None
    image, size = open_image(data, enough=_ENOUGH)
    with image:
        orientation = image.getexif().get(ExifTags.Base.Orientation) or 1
        colour = ImageOps.exif_transpose(image).convert("RGB")
        tiles = np.asarray(colour.resize((_TILES, _TILES), Image.Resampling.BOX, reducing_gap=3.0), np.int16)
        grey = colour.resize((_ENOUGH, _ENOUGH), Image.Resampling.BOX, reducing_gap=3.0).convert("L")
    # The package's type comments name numpy's arrays in a way that no checker reads.
    waves = np.asarray(cast(Any, phash(grey)).hash, np.bool_).ravel()
    return ImagePrint(size, int(orientation), hashlib.sha256(data).hexdigest(), waves, tiles)


def same_groups(prints: Sequence[ImagePrint]) -> list[list[int]]:
    """Return groups of positions whose files are the same byte for byte."""
    groups: dict[str, list[int]] = {}
    for index, each in enumerate(prints):
        groups.setdefault(each.sha256, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_groups(prints: Sequence[ImagePrint]) -> list[list[int]]:
    """Return groups of positions whose images look the same, each connected to another of its group."""
    group_of = list(range(len(prints)))

    def root(index: int) -> int:
        while group_of[index] != index:
            index = group_of[index]
        return index

    for one, other in _near_pairs(prints):
        group_of[root(other)] = root(one)
    groups: dict[int, list[int]] = {}
    for index in range(len(prints)):
        groups.setdefault(root(index), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def _near_pairs(prints: Sequence[ImagePrint]) -> Iterator[tuple[int, int]]:
    if not prints:
        return
    waves = np.stack([each.waves for each in prints])
    colours = np.stack([each.colours for each in prints])
    for index in range(len(prints) - 1):
        differing = np.count_nonzero(waves[index + 1 :] != waves[index], axis=1)
        for offset in np.flatnonzero(differing <= _NEAR_BITS):
            other = index + 1 + int(offset)
            if float(np.abs(colours[index] - colours[other]).mean()) <= _NEAR_COLOUR:
                yield index, other
