"""Bring staged images to AI Toolkit's disk through its API, all or nothing as far as that goes.

A new dataset that does not arrive whole is deleted again. One that is replaced cannot be exchanged at once over HTTP:
what the new images will write over is copied here first and put back after a failure (where even that fails, the copy
is kept and named), and the old ones that nobody wants any more are deleted last, when all that is new was seen there.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import anyio
from anyio import to_thread

from aitk_mcp.trainers.at_once import at_once
from aitk_mcp.trainers.ui_datasets import UiDatasets
from aitk_mcp.trainers.ui_disk import UiDisk
from mcp_toolserver.errors import BackendRejected, Conflict, ToolError
from mcp_toolserver.files import make_folder, sync_directory, write_now
from mcp_toolserver.tools import Report

log = logging.getLogger(__name__)

_MOST_FILES_AT_ONCE = 32
_MOST_BYTES_AT_ONCE = 32 * 1024 * 1024
_CLEANING_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Staged:
    """Images in a folder of this machine, by the names to send them under, with the caption beside each or None."""

    folder: Path
    captions: Mapping[str, str | None]

    def files(self) -> list[Path]:
        """Return images and caption files, the two of an image together."""
        found: list[Path] = []
        for name, caption in self.captions.items():
            path = self.folder / name
            found += [path] if caption is None else [path, path.with_suffix(".txt")]
        return found


@dataclass(frozen=True)
class Backup:
    """Where to copy images that will be written over, and where to keep the copies if they cannot be put back."""

    folder: Path
    kept: Path

    def keep(self) -> Path:
        """Move the copies to where nothing deletes them, and return that place; blocks."""
        make_folder(self.kept.parent)
        self.folder.replace(self.kept)
        sync_directory(self.kept.parent)
        return self.kept


class RemoteUpload:
    """The upload of one dataset."""

    def __init__(self, api: UiDatasets, disk: UiDisk, root: Path, name: str) -> None:
        """Take the folder of all datasets on AI Toolkit's machine, and the normalised name."""
        self._api, self._disk, self._root, self._name = api, disk, root, name
        self._folder = str(root / name)

    async def create(self, staged: Staged, report: Report) -> None:
        """Make a new dataset of staged images; raises BackendRejected where they do not arrive."""
        await self._api.create(self._name)
        try:
            await self._send(staged, report)
            await self._verify(staged)
        except BaseException as error:
            if not await self._undone(partial(self._api.delete, self._name)) and isinstance(error, ToolError):
                error.details["left_over"] = self._folder
            raise

    async def replace(self, staged: Staged, before: Sequence[str], backup: Backup, report: Report) -> None:
        """Put staged images in the place of those that are there (`before`, by their paths within the dataset)."""
        names = {name.casefold() for name in staged.captions}
        captions = await self._api.captions([self._at(place) for place in before])
        old = {place: captions[self._at(place)] for place in before}
        await to_thread.run_sync(partial(backup.folder.mkdir, parents=True))
        try:
            # On a disk where case does not count, a name that differs in it only is written over too.
            for place in [place for place in before if place.casefold() in names]:
                await self._disk.copy(self._at(place), backup.folder / place)
                await to_thread.run_sync(write_now, (backup.folder / place).with_suffix(".txt"), old[place].encode())
        except FileNotFoundError as error:
            raise Conflict(
                f"Dataset `{self._name}` was changed while it was to be replaced.", hint="Call again."
            ) from error
        try:
            await self._send(staged, report)
            await self._verify(staged)
        except BaseException as error:
            if not await self._undone(partial(self._put_back, staged, old, backup)):
                kept = await to_thread.run_sync(backup.keep)
                if isinstance(error, ToolError):
                    error.details.update(left_over=self._folder, kept=str(kept))
            raise
        await self._remove_unwanted(staged, before)
        await self._verify(staged, alone=True)

    async def _send(self, staged: Staged, report: Report) -> None:
        batch: list[Path] = []
        batch_bytes = sent = 0
        files = staged.files()
        for index, path in enumerate(files):
            batch.append(path)
            batch_bytes += (await anyio.Path(path).stat()).st_size
            if len(batch) >= _MOST_FILES_AT_ONCE or batch_bytes >= _MOST_BYTES_AT_ONCE or index == len(files) - 1:
                await self._disk.send(self._name, batch)
                sent += sum(each.name in staged.captions for each in batch)
                await report(sent, len(staged.captions), f"sent {path.name}")
                batch, batch_bytes = [], 0

    async def _verify(self, staged: Staged, *, alone: bool = False) -> None:
        """Raise BackendRejected where anything is not there as it was sent; `alone`, where anything else is."""
        there = set(await self._api.media(self._name) or ())
        arrived = [name for name in staged.captions if name in there]
        captions = await self._api.captions([self._at(name) for name in arrived])

        async def is_as_sent(name: str) -> bool:
            caption, told = staged.captions[name], captions[self._at(name)]
            is_captioned = told == caption if caption is not None else not (alone and told.strip())
            local_bytes = (await anyio.Path(staged.folder / name).stat()).st_size
            return is_captioned and await self._size_bytes(name) == local_bytes

        right = dict(zip(arrived, await at_once(is_as_sent, arrived), strict=True))
        wrong = [name for name in staged.captions if not right.get(name, False)]
        wrong += sorted(there - set(staged.captions)) if alone else []
        if wrong:
            raise BackendRejected(
                f"{len(wrong)} files of dataset `{self._name}` are not on AI Toolkit's disk as they were sent: "
                f"{', '.join(wrong[:5])}.",
                hint="Call again; if it happens again, look for room and for errors on AI Toolkit's machine.",
                details={"dataset_name": self._name, "filenames": wrong},
            )

    async def _size_bytes(self, name: str) -> int | None:
        try:
            return (await self._disk.state(self._at(name))).size_bytes
        except FileNotFoundError:
            return None

    async def _remove_unwanted(self, staged: Staged, before: Sequence[str]) -> None:
        for place in before:
            if place not in staged.captions:
                # Not by `img/delete`, which takes the caption of that stem too, and that may be a new one.
                await self._disk.delete(self._at(place), below=str(self._root))
        captioned = {_stem(name) for name, caption in staged.captions.items() if caption is not None}
        for stem in {_stem(place) for place in before} - captioned:
            await self._disk.delete(self._at(f"{stem}.txt"), below=str(self._root))

    async def _put_back(self, staged: Staged, old: Mapping[str, str], backup: Backup) -> None:
        """Undo what was sent: the old images and captions as they were, and none of the new."""
        for name in [name for name in staged.captions if name not in old]:
            await self._disk.delete(self._at(name), below=str(self._root))
        stems = {_stem(name).casefold() for name in staged.captions}
        for stem in {_stem(name) for name in staged.captions}:
            await self._disk.delete(self._at(f"{stem}.txt"), below=str(self._root))
        for place, caption in old.items():
            if await anyio.Path(backup.folder / place).exists():
                await self._disk.send(self._name, [backup.folder / place])
            if caption and _stem(place).casefold() in stems:
                await self._api.set_caption(self._at(place), caption)

    async def _undone(self, undo: Callable[[], Awaitable[None]]) -> bool:
        """Take back what was sent; return whether that could be done."""
        with anyio.move_on_after(_CLEANING_PATIENCE_S, shield=True):
            try:
                await undo()
                return True
            except (ToolError, FileNotFoundError):
                log.exception("what was sent of a dataset could not be taken back", extra={"dataset": self._name})
        return False

    def _at(self, place: str) -> str:
        return f"{self._folder}/{place}"


def _stem(place: str) -> str:
    return str(PurePosixPath(place).with_suffix(""))
