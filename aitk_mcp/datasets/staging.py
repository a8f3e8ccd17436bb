"""Put the files of a new dataset into a folder beside the others, where nothing sees it before it is whole."""

import os
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from anyio import create_task_group, to_thread

from aitk_mcp.images import EXTENSIONS, BadImage, ImageSize, check_image
from aitk_mcp.size_index import FILE_NAME, render_index
from mcp_toolserver.base64_content import decode_base64
from mcp_toolserver.errors import InvalidArguments, ToolError
from mcp_toolserver.files import safe_relative, sync_directory
from mcp_toolserver.tools import Report, unheard

_WORKERS = 2
"""How many images are in memory at once."""
_BATCH = 16
_SYNCS = 32


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
class _Order:
    """An image, the file name that it is stored under, and the caption to store beside it."""

    image: ImageSource
    name: str
    caption: str | None


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
            while _key(free) in stems or _key(free) in taken:
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


def unfit(images: Sequence[ImageSource], names: Names) -> list[BadUpload]:
    """Return every image that cannot be stored, by its name or by what is in it; none where all names are good.

    So that a caller who has to correct a name hears of the broken images too. Blocks.
    """
    bad = list(names.bad)
    known = {each.filename for each in bad}
    for image in images if bad else ():
        if image.filename in known:
            continue
        try:
            check_image(image.read())
        except (BadImage, ToolError) as error:
            bad.append(BadUpload(image.filename, _in_words(error)))
    return bad


async def stage(
    folder: Path, images: Sequence[ImageSource], names: Names, captions: Sequence[str | None], report: Report = unheard
) -> list[BadUpload]:
    """Write images, captions and the size file into `folder`, durably; returns the images that are none.

    Where anything is returned, the folder holds only part of the dataset, and no size file.
    """
    bad: dict[int, BadUpload] = {}
    sizes: dict[str, ImageSize] = {}
    failures: list[OSError] = []
    done = 0
    orders = [_Order(*each) for each in zip(images, names.stored, captions, strict=True)]
    batches = iter([range(start, len(orders))[:_BATCH] for start in range(0, len(orders), _BATCH)])

    def take(positions: range) -> None:
        for position in positions:
            order = orders[position]
            try:
                sizes[order.name] = _store(folder, order)
            except (BadImage, ToolError) as error:
                bad[position] = BadUpload(order.image.filename, _in_words(error))

    async def work() -> None:
        nonlocal done
        for positions in batches:
            try:
                await to_thread.run_sync(take, positions)
            except OSError as error:
                failures.append(error)
            if failures:
                return
            done += len(positions)
            await report(done, len(orders), f"checked {orders[positions[-1]].image.filename}")

    await to_thread.run_sync(partial(folder.mkdir, parents=True))
    async with create_task_group() as group:
        for _ in range(_WORKERS):
            group.start_soon(work)
    if failures:
        # Raised here, since the group would wrap it: a full disk must be told as one.
        raise failures[0]
    if not bad:
        await to_thread.run_sync(_seal, folder, sizes)
    return [bad[position] for position in sorted(bad)]


def _in_words(error: BadImage | ToolError) -> str:
    return error.message.split(": ", 1)[-1].rstrip(".") if isinstance(error, ToolError) else str(error)


def _store(folder: Path, order: _Order) -> ImageSize:
    data = order.image.read()
    size = check_image(data)
    _write(folder / order.name, data)
    if order.caption is not None:
        _write((folder / order.name).with_suffix(".txt"), order.caption.encode())
    return size


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)


def _seal(folder: Path, sizes: dict[str, ImageSize]) -> None:
    # The order in which os.walk will find them, which is also that of this folder once it was renamed.
    found = {Path(folder, name): sizes[name] for _, _, names in os.walk(folder) for name in names if name in sizes}
    _write(folder / FILE_NAME, render_index(folder, found))
    # One after the other each would wait for the disk; many at once share one wait.
    with ThreadPoolExecutor(_SYNCS) as pool:
        list(pool.map(_sync, folder.iterdir()))
    sync_directory(folder)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
