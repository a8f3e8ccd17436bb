"""Bring staged images to AI Toolkit's disk through its API, all or nothing as far as that goes.

A new dataset that does not arrive whole is deleted again. One that is replaced cannot be exchanged at once over HTTP:
what the new images will write over is copied here first and put back after a failure, and the old ones that nobody
wants any more are deleted last, when everything new was seen to be there.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import anyio
from anyio import to_thread

from aitk_mcp.trainers.ui_datasets import UiDatasets
from aitk_mcp.trainers.ui_disk import UiDisk
from mcp_toolserver.errors import BackendRejected, ToolError
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
            with anyio.move_on_after(_CLEANING_PATIENCE_S, shield=True):
                await self._cleaned(error, partial(self._api.delete, self._name))
            raise

    async def replace(self, staged: Staged, before: Sequence[str], backup: Path, report: Report) -> None:
        """Put staged images in the place of those that are there (`before`, by their paths within the dataset).

        `backup` is a folder of this machine for what has to be kept until the new images are there.
        """
        captions = await self._api.captions([self._at(place) for place in before])
        overwritten = [place for place in before if place in staged.captions]
        await to_thread.run_sync(partial(backup.mkdir, parents=True))
        for place in overwritten:
            await self._disk.copy(self._at(place), backup / place)
        try:
            await self._send(staged, report)
            await self._verify(staged)
        except BaseException as error:
            old = {place: captions[self._at(place)] for place in before}
            with anyio.move_on_after(_CLEANING_PATIENCE_S, shield=True):
                await self._cleaned(error, partial(self._put_back, staged, old, backup))
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
        captions = await self._api.captions([self._at(name) for name in staged.captions if name in there])
        wrong = [name for name in staged.captions if name not in there]
        for name, caption in staged.captions.items():
            if name in there:
                told = captions[self._at(name)]
                is_captioned = told == caption if caption is not None else not (alone and told.strip())
                local_bytes = (await anyio.Path(staged.folder / name).stat()).st_size
                if not is_captioned or await self._size_bytes(name) != local_bytes:
                    wrong.append(name)
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

    async def _put_back(self, staged: Staged, old: Mapping[str, str], backup: Path) -> None:
        """Undo what was sent: the old images and captions as they were, and none of the new."""
        for name in staged.captions:
            if name not in old:
                await self._disk.delete(self._at(name), below=str(self._root))
        for stem in {_stem(name) for name in staged.captions}:
            await self._disk.delete(self._at(f"{stem}.txt"), below=str(self._root))
        for place in old:
            if place in staged.captions:
                await self._disk.send(self._name, [backup / place])
        for place, caption in old.items():
            if caption and _stem(place) in {_stem(name) for name in staged.captions}:
                await self._api.set_caption(self._at(place), caption)

    async def _cleaned(self, error: BaseException, clean: Callable[[], Awaitable[None]]) -> None:
        try:
            await clean()
        except (ToolError, FileNotFoundError):
            log.exception("what was sent of a dataset could not be taken back", extra={"dataset": self._name})
            if isinstance(error, ToolError):
                error.details["left_over"] = self._folder

    def _at(self, place: str) -> str:
        return f"{self._folder}/{place}"


def _stem(place: str) -> str:
    return str(PurePosixPath(place).with_suffix(""))
