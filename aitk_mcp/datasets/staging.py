"""Put the files of a new dataset into a folder beside the others, where nothing sees it before it is whole."""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from anyio import CapacityLimiter, create_task_group, to_thread

from aitk_mcp.images import EXTENSIONS, BadImage, ImageSize, check_image
from aitk_mcp.size_index import FILE_NAME, render_index
from mcp_toolserver.base64_content import decode_base64
from mcp_toolserver.errors import InvalidArguments, ToolError
from mcp_toolserver.files import safe_relative, sync_directory
from mcp_toolserver.tools import Report, unheard

_DECODERS = 2
"""How many images are decoded at once: each may take hundreds of megabytes while it is."""


class ImageSource(Protocol):
    """An image to be stored: a bare file name, its caption, and its bytes once they are wanted."""

    @property
    def filename(self) -> str: ...

    @property
    def caption(self) -> str | None: ...

    def read(self) -> bytes:
        """Return its bytes; raises BadImage or ToolError where they cannot be had. Blocks."""
        ...


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image as a caller sends it: a file name, base64, and its caption."""

    filename: str
    content: str
    caption: str | None = None

    def read(self) -> bytes:
        """Return its bytes; raises InvalidArguments where it is no base64."""
        return decode_base64(self.content, field="content")


@dataclass(frozen=True, slots=True)
class Renamed:
    """A file that bears another name than the caller gave it, and why."""

    filename: str
    renamed_to: str
    reason: str


@dataclass(frozen=True, slots=True)
class BadUpload:
    """An image that was refused, and why."""

    filename: str
    problem: str


@dataclass(frozen=True, slots=True)
class Names:
    """Under which names the images of one upload are stored, in their order."""

    stored: tuple[str, ...]
    renamed: tuple[Renamed, ...]
    bad: tuple[BadUpload, ...]


def plan_names(filenames: Sequence[str]) -> Names:
    """Choose a file name for each image, so that none replaces another and each has a caption file of its own.

    `cat.png` and `cat.jpg` would share `cat.txt`: the later one is renamed. The same name twice is refused, since one
    of the two images is probably a mistake.
    """
    stored: list[str] = []
    renamed: list[Renamed] = []
    bad: list[BadUpload] = []
    seen: dict[str, str] = {}
    stems = {_key(Path(name).stem) for name in filenames}
    taken: set[str] = set()
    for filename in filenames:
        problem = _problem_of(filename) or (
            f"it has the same name as `{seen[_key(filename)]}`" if _key(filename) in seen else None
        )
        if problem:
            bad.append(BadUpload(filename, problem))
            continue
        seen[_key(filename)] = filename
        stem, suffix = Path(filename).stem, Path(filename).suffix
        if _key(stem) in taken:
            free = f"{stem}_{suffix[1:].lower()}"
            while _key(free) in stems | taken:
                free += "_"
            renamed.append(Renamed(filename, free + suffix, f"another image uses the caption file `{stem}.txt`"))
            stem = free
        taken.add(_key(stem))
        stored.append(stem + suffix)
    return Names(tuple(stored), tuple(renamed), tuple(bad))


def _key(name: str) -> str:
    # Two names that differ only in case or in how an accent is composed are one on Windows and macOS.
    return unicodedata.normalize("NFC", name).casefold()


def _problem_of(filename: str) -> str | None:
    try:
        path = safe_relative(filename)
    except InvalidArguments as error:
        return error.message.split(": ", 1)[-1].rstrip(".")
    if len(path.parts) > 1:
        return "it has a folder in it; send the bare file name"
    if path.suffix.lower() not in EXTENSIONS or not path.stem:
        return f"AI Toolkit trains on files that end in {', '.join(EXTENSIONS)}"
    return None


async def stage(
    folder: Path, images: Sequence[ImageSource], names: Names, captions: Sequence[str | None], report: Report = unheard
) -> list[BadUpload]:
    """Write images, captions and the size file into `folder`, durably; returns the images that are none.

    Where anything is returned, the folder holds only part of the dataset, and no size file.
    """
    bad: list[BadUpload] = []
    sizes: dict[str, ImageSize] = {}
    failures: list[OSError] = []
    done = 0
    threads = CapacityLimiter(_DECODERS)

    async def take(image: ImageSource, name: str, caption: str | None) -> None:
        nonlocal done
        try:
            sizes[name] = await to_thread.run_sync(_store, folder / name, image, caption, limiter=threads)
        except BadImage as error:
            bad.append(BadUpload(image.filename, str(error)))
        except ToolError as error:
            bad.append(BadUpload(image.filename, error.message.split(": ", 1)[-1].rstrip(".")))
        except OSError as error:
            failures.append(error)
        done += 1
        await report(done, len(images), f"checked {image.filename}")

    await to_thread.run_sync(partial(folder.mkdir, parents=True))
    async with create_task_group() as group:
        for image, name, caption in zip(images, names.stored, captions, strict=True):
            group.start_soon(take, image, name, caption)
    if failures:
        # Raised here, since the group would wrap it: a full disk must be told as one.
        raise failures[0]
    if not bad:
        await to_thread.run_sync(_seal, folder, sizes)
    order = {image.filename: index for index, image in enumerate(images)}
    return sorted(bad, key=lambda each: order[each.filename])


def _store(path: Path, image: ImageSource, caption: str | None) -> ImageSize:
    data = image.read()
    size = check_image(data)
    _write(path, data)
    if caption is not None:
        _write(path.with_suffix(".txt"), caption.encode())
    return size


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _seal(folder: Path, sizes: dict[str, ImageSize]) -> None:
    # The order in which os.walk will find them, which is also that of this folder once it was renamed.
    found = {Path(folder, name): sizes[name] for _, _, names in os.walk(folder) for name in names if name in sizes}
    _write(folder / FILE_NAME, render_index(folder, found))
    sync_directory(folder)
