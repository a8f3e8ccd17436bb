"""What is in a dataset's folder: images, captions, and what may be wrong with the captions. Everything blocks."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from aitk_mcp.datasets.refusals import no_image
from aitk_mcp.images import is_image
from aitk_mcp.size_index import image_files, sizes_of
from mcp_toolserver.errors import InvalidArguments
from mcp_toolserver.files import safe_relative

SAMPLED_CAPTIONS = 2
"""How many captions show what those of a dataset are like."""


@dataclass(frozen=True)
class CaptionProblem:
    """Something about a caption that the caller may want to correct; nothing was refused for it."""

    filename: str
    problem: str
    cure: str


@dataclass(frozen=True)
class DatasetSummary:
    """A dataset without its images; `modified` is a Unix time in seconds.

    Size and time are None where only AI Toolkit's API tells of the images.
    """

    name: str
    path: Path
    images: int
    captions: int
    size_bytes: int | None
    modified: float | None


@dataclass(frozen=True)
class DatasetImage:
    """One image; `filename` is relative to the dataset, sizes are None where it cannot be read."""

    filename: str
    caption: str | None
    width: int | None
    height: int | None
    size_bytes: int


@dataclass(frozen=True)
class TrainingImages:
    """What a trainer will find at a path: the number of images, the first captions, and whether it is one of ours."""

    path: Path
    images: int
    captions: tuple[str, ...]
    is_ours: bool


def chosen_caption(given: str | None, default: str | None) -> str | None:
    """Return the caption to store: blank ones count as none."""
    caption = given if given is not None and given.strip() else default
    return caption if caption is not None and caption.strip() else None


def caption_problems(
    filenames: Sequence[str], captions: Sequence[str | None], trigger_word: str | None
) -> Iterator[CaptionProblem]:
    """Yield what may be wrong with the captions of these files."""
    for filename, caption in zip(filenames, captions, strict=True):
        if caption is None:
            cure = "Give it one with set-caption, or send `default_caption`."
            yield CaptionProblem(filename, "it has no caption", cure)
        # As AI Toolkit looks for it: letter by letter.
        elif trigger_word and trigger_word not in caption and "[trigger]" not in caption:
            yield CaptionProblem(
                filename,
                f"its caption lacks the trigger word `{trigger_word}`",
                f"Give `trigger_word: {trigger_word}` to create-training-config: AI Toolkit then puts it before such"
                " captions. Or write it into the caption with set-caption.",
            )


def summary_of(folder: Path) -> DatasetSummary:
    """Return a dataset without its images."""
    paths = list(image_files(folder))
    return DatasetSummary(
        name=folder.name,
        path=folder,
        images=len(paths),
        captions=sum(read_caption(path) is not None for path in paths),
        size_bytes=sum(path.stat().st_size for path in paths),
        modified=max((path.stat().st_mtime for path in (folder, *paths)), default=0.0),
    )


def images_of(folder: Path) -> list[DatasetImage]:
    """Return the images of a dataset by file name."""
    return sorted(
        (
            DatasetImage(
                filename=path.relative_to(folder).as_posix(),
                caption=read_caption(path),
                width=size.width if size else None,
                height=size.height if size else None,
                size_bytes=path.stat().st_size,
            )
            for path, size in sizes_of(folder).items()
        ),
        key=lambda image: image.filename,
    )


def read_caption(image: Path) -> str | None:
    """Return the caption beside an image as it stands there, or None where it is missing or blank."""
    try:
        text = image.with_suffix(".txt").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    return text if text.strip() else None


def find_image(folder: Path, filename: str) -> Path:
    """Return an image by its name in the dataset; raises NotFound with the closest names."""
    path = folder / safe_relative(filename)
    if is_image(path.name) and path.is_file():
        return path
    raise no_image(folder.name, filename, [each.relative_to(folder).as_posix() for each in image_files(folder)])


def training_images(path: Path, *, is_ours: bool) -> TrainingImages | None:
    """Return what a trainer finds at a path of this machine, a folder or a JSON dataset; None where nothing is."""
    if path.is_dir():
        images = sorted(image_files(path))
        captions = [caption.strip() for each in images if (caption := read_caption(each))]
        return TrainingImages(path, len(images), tuple(captions[:SAMPLED_CAPTIONS]), is_ours)
    return _json_dataset(path) if path.is_file() else None


def _json_dataset(path: Path) -> TrainingImages:
    try:
        loaded: Any = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        loaded = None
    if not isinstance(loaded, dict):
        raise InvalidArguments(
            f"`dataset_path` is the file {path}, which is no JSON object of image paths.",
            hint="Give the folder of the images.",
            details={"field": "dataset_path", "value": str(path)},
        )
    return TrainingImages(path, len(cast(dict[str, Any], loaded)), (), is_ours=False)
