"""Read a dataset folder as AI Toolkit does: which files count, which captions belong to them, what is left out."""

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from aitk_mcp.documents import TrainingDocument, dataset_path, mapping_of
from aitk_mcp.size_index import FILE_NAME, image_files, write_index
from tinyflux import IMAGE_SIZE, from_bytes


@dataclass(frozen=True)
class Dataset:
    """Images (N, 32, 32, 3) in [-1, 1], each with its caption."""

    images: NDArray[np.float32]
    captions: tuple[str, ...]


def load_datasets(document: TrainingDocument, working_folder: Path) -> Dataset:
    """Load every dataset of a document and tell of it on stdout; raises where one is missing or has no images."""
    images: list[NDArray[np.uint8]] = []
    captions: list[str] = []
    for block in document.datasets:
        found = _load(block, document.trigger_word, working_folder)
        images += [pixels for pixels, _ in found]
        captions += [caption for _, caption in found]
    if not images:
        raise ValueError("the config names no dataset")
    return Dataset(from_bytes(np.stack(images)), tuple(captions))


def caption_of(
    image: Path, block: Mapping[str, Any], trigger_word: str | None, captions: Mapping[str, Any] | None = None
) -> str:
    """Return the caption that an image is trained with, by AI Toolkit's rules.

    The text file beside the image, or the dataset's JSON; `default_caption` where it is missing or blank. Parts
    between commas are joined by a comma and a blank, `[trigger]` is replaced, and a trigger word that the caption
    lacks is put before it.
    """
    if captions is not None and "caption" in mapping_of(captions.get(str(image))):
        text = str(captions[str(image)]["caption"])
    else:
        text = _text_beside(image, str(block.get("caption_ext") or "txt"))
        if not text.strip():
            text = str(block.get("default_caption") or "")
    text = ", ".join(text.split(","))
    trigger = str(block.get("trigger_word") or trigger_word or "")
    for placeholder in ("[name]", "[trigger]"):
        text = text.replace(placeholder, trigger)
    if trigger.strip() and trigger not in text and not block.get("is_reg"):
        text = f"{trigger} {text}"
    return text


def to_square(image: Image.Image) -> NDArray[np.uint8]:
    """Crop the middle square of an image and scale it to 32 x 32, upright and in RGB."""
    upright = ImageOps.exif_transpose(image).convert("RGB")
    # Each pixel of the small picture is the mean of its part of the large one: pixel art stays as it was drawn.
    shrinks = min(upright.size) >= IMAGE_SIZE
    method = Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST
    return np.asarray(ImageOps.fit(upright, (IMAGE_SIZE, IMAGE_SIZE), method=method), dtype=np.uint8)


def _load(
    block: Mapping[str, Any], trigger_word: str | None, working_folder: Path
) -> list[tuple[NDArray[np.uint8], str]]:
    place = working_folder / dataset_path(block)
    captions: Mapping[str, Any] | None = None
    if place.is_dir():
        files: Sequence[Path] = sorted(image_files(place))
    else:
        # As AI Toolkit: what is no folder is a JSON file of captions by path, and a missing one fails here.
        captions = mapping_of(json.loads(place.read_text(encoding="utf-8")))
        files = [Path(path) for path in captions]
    print(f"Dataset: {place}")
    print("  -  Preprocessing image dimensions")
    found: list[tuple[NDArray[np.uint8], str]] = []
    for file in files:
        try:
            with Image.open(file) as image:
                found.append((to_square(image), caption_of(file, block, trigger_word, captions)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            print(traceback.format_exc())
            print(f"Error processing image: {file}")
            print(error)
    folder = place if place.is_dir() else place.parent
    try:
        write_index(folder)
    except OSError as error:
        # It is only a cache; a dataset that cannot be written to can still be trained on.
        print(f"Could not write {folder / FILE_NAME}: {error}")
    print(f"  -  Found {len(found)} images")
    if not found:
        raise ValueError(f"no images found in {place}")
    found *= max(1, int(block.get("num_repeats") or 1))
    for key, axis in (("flip_x", 1), ("flip_y", 0)):
        if block.get(key):
            print(f"  -  adding {key[-1]} axis flips")
            found += [(np.flip(pixels, axis), caption) for pixels, caption in found]
    return found


def _text_beside(image: Path, extension: str) -> str:
    file = image.with_suffix("." + extension.removeprefix("."))
    return file.read_text(encoding="utf-8") if file.exists() else ""
