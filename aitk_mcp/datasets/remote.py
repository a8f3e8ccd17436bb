"""The datasets of an AI Toolkit whose disk is another machine's, through its API.

File names are shown as they were sent to this server, whatever AI Toolkit made of them (`sent_names`). Sizes of whole
datasets and times are not told: the API would have to be asked for each image.
"""

import logging
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

from anyio import CancelScope, Lock, from_thread, to_thread

from aitk_mcp.datasets.contents import DatasetImage, DatasetSummary, TrainingImages, caption_problems, chosen_caption
from aitk_mcp.datasets.in_use import JobsUsing, no_jobs, refuse_in_use
from aitk_mcp.datasets.port import Upload
from aitk_mcp.datasets.refusals import no_image, none_left, refuse_bad, taken, translated
from aitk_mcp.datasets.remote_files import RemoteFiles, found_image
from aitk_mcp.datasets.remote_upload import Backup, RemoteUpload, Staged
from aitk_mcp.datasets.sent_names import UnsendableName, sent_name
from aitk_mcp.datasets.staging import BadUpload, ImageSource, Names, Renamed, plan_names, stage, unfit
from aitk_mcp.recipes.names import dataset_folder_name
from aitk_mcp.trainers.at_once import at_once
from aitk_mcp.trainers.ui_datasets import UiDatasets
from aitk_mcp.trainers.ui_disk import UiDisk
from aitk_mcp.trainers.ui_http import UiHttp
from mcp_toolserver.errors import BackendRejected, InvalidArguments
from mcp_toolserver.tools import Report, unheard

log = logging.getLogger(__name__)

_OLD = "old"
_SIZES_NOTE = (
    "AI Toolkit's disk is another machine's: its file of image sizes is left to AI Toolkit, which writes it when a"
    " training begins."
)
_REPLACED_NOTE = (
    "The images were replaced one by one, since AI Toolkit's API cannot exchange a whole dataset: whoever looked at it"
    " meanwhile saw old and new ones together."
)


class RemoteDatasets:
    """The datasets of one AI Toolkit server; paths are those of its machine."""

    def __init__(self, http: UiHttp, root: Path, workplace: Path, jobs_using: JobsUsing = no_jobs) -> None:
        """Take its folder of datasets, a folder of this machine for uploads and copies, and who reads a dataset.

        What may be the only copy of an image is kept beside that folder, in `rescued`.
        """
        self.root = root
        self.workplace = workplace
        self._rescued = workplace.with_name("rescued")
        self.disk = UiDisk(http)
        self._api = UiDatasets(http)
        self._files = RemoteFiles(self._api, self.disk, root)
        self._jobs_using = jobs_using
        self._publishing = Lock()

    async def upload(
        self,
        name: str,
        images: Sequence[ImageSource],
        *,
        overwrite: bool = False,
        default_caption: str | None = None,
        trigger_word: str | None = None,
        report: Report = unheard,
    ) -> Upload:
        """Check every image here, send them, see that all arrived, and take back what was sent where they did not.

        Raises as `DatasetHome.upload` does, and BackendUnavailable and BackendRejected.
        """
        folder = dataset_folder_name(name)
        if not images:
            raise InvalidArguments("`images` is empty: a dataset needs at least one image.")
        names = plan_names([image.filename for image in images])
        refuse_bad(await to_thread.run_sync(unfit, images, names), len(images))
        sent = _sent(names)
        refuse_bad(sent.bad, len(images))
        await self._require_free(folder, overwrite)
        captions = [chosen_caption(image.caption, default_caption) for image in images]
        async with self._work_folder(folder) as work:

            async def checked(done: float, /, total: float | None = None, message: str | None = None) -> None:
                await report(done, 2 * len(images), message)

            async def arrived(done: float, /, total: float | None = None, message: str | None = None) -> None:
                await report(len(images) + done, 2 * len(images), message)

            refuse_bad(await stage(work / "new", images, sent, captions, checked), len(images))
            staged = Staged(work / "new", dict(zip(sent.stored, captions, strict=True)))
            async with self._publishing:
                before = await self._require_free(folder, overwrite)
                sending = RemoteUpload(self._api, self.disk, self.root, folder)
                if before is None:
                    await sending.create(staged, arrived)
                else:
                    await sending.replace(staged, before, Backup(work / _OLD, self._rescued / work.name), arrived)
        return Upload(
            name=folder,
            path=self.root / folder,
            images=len(images),
            captions=sum(caption is not None for caption in captions),
            size_file=None,
            renamed=_renamed([image.filename for image in images], names, sent),
            problems=tuple(caption_problems(names.stored, captions, trigger_word)),
            notes=(_SIZES_NOTE, *([_REPLACED_NOTE] if before else [])),
        )

    async def all(self) -> list[DatasetSummary]:
        """Return every dataset, by name."""
        return await at_once(self._files.summary, await self._api.names())

    async def summary(self, name: str) -> DatasetSummary:
        """Return one dataset; raises NotFound with the closest names."""
        return await self._files.summary(await self._files.known(name))

    async def images(self, name: str, start: int = 0, limit: int | None = None) -> list[DatasetImage]:
        """Return images of a dataset by file name, with captions and sizes: all, or `limit` from `start` on."""
        files = list((await self._files.images(await self._files.known(name))).items())
        return await self._files.described(files[start : None if limit is None else start + limit])

    async def image_path(self, name: str, filename: str) -> str:
        """Return where an image lies on AI Toolkit's machine; raises NotFound with the closest names."""
        folder = await self._files.known(name)
        return found_image(await self._files.images(folder), folder, filename)

    async def set_caption(self, name: str, filename: str, caption: str) -> Path:
        """Write the caption of an image, or remove it where it is blank; returns the caption file."""
        folder = await self._files.known(name)
        files = await self._files.images(folder)
        path = found_image(files, folder, filename)
        file = Path(path).with_suffix(".txt")
        if caption.strip():
            try:
                await self._api.set_caption(path, caption)
            except FileNotFoundError:
                raise no_image(folder, filename, files) from None
        else:
            await self.disk.delete(str(file), below=str(self.root))
        told = (await self._api.captions([path]))[path]
        if told.strip() != caption.strip():
            raise BackendRejected(
                f"The caption of `{filename}` is not on AI Toolkit's disk as it was sent.",
                hint="Call again; AI Toolkit's own log may have the cause.",
                details={"dataset_name": folder, "filename": filename},
            )
        return file

    async def delete_images(self, name: str, filenames: Sequence[str]) -> int:
        """Delete images with their captions and return how many are left; names are looked up before any is deleted."""
        folder = await self._files.known(name)
        await self._require_unused(folder)
        files = await self._files.images(folder)
        doomed = {found_image(files, folder, filename) for filename in filenames}
        left = set(files.values()) - doomed
        if not left:
            raise none_left(folder)
        kept_stems = {Path(path).with_suffix("") for path in left}
        for path in sorted(doomed):
            if Path(path).with_suffix("") in kept_stems:
                await self.disk.delete(path, below=str(self.root))
            else:
                await self._api.delete_image(path)
        return len(left)

    async def delete(self, name: str) -> DatasetSummary:
        """Delete a dataset with everything in it and return what it was; raises Conflict where a training reads it."""
        async with self._publishing:
            folder = await self._files.known(name)
            await self._require_unused(folder)
            found = await self._files.summary(folder)
            await self._api.delete(folder)
            return found

    async def jobs_using(self, name: str) -> list[str]:
        """Return the ids of the jobs that wait or run and read a dataset."""
        return await self._jobs_using(self.root / await self._files.known(name))

    async def recover(self) -> None:
        """Keep what a killed server was about to replace, and throw away its other copies."""
        await to_thread.run_sync(self._recover)

    def _recover(self) -> None:
        for old in self.workplace.glob(f"*/{_OLD}"):
            if any(old.iterdir()):
                kept = Backup(old, self._rescued / old.parent.name).keep()
                log.warning("images of a dataset that was being replaced are kept", extra={"folder": str(kept)})
        shutil.rmtree(self.workplace, ignore_errors=True)

    @asynccontextmanager
    async def at_hand(self, name: str) -> AsyncGenerator[Path]:
        """Lend a copy of a dataset; what AI Toolkit does not train on is in it as an empty file."""
        folder = await self._files.known(name)
        async with self._work_folder(folder) as work:
            await self._files.copy(folder, work / folder)
            yield work / folder

    def find(self, name: str) -> Path:
        """Return the folder of a dataset; blocks, in a worker thread."""
        return self.root / from_thread.run(self._files.known, name)

    def folders(self) -> list[Path]:
        """Return the folder of every dataset, by name; blocks, in a worker thread."""
        return [self.root / name for name in from_thread.run(self._api.names)]

    def training_images(self, path: Path) -> TrainingImages | None:
        """Return what a trainer finds at an absolute path; blocks, in a worker thread.

        Raises InvalidArguments for a path outside of the folder of datasets, where this server cannot look.
        """
        if not path.is_relative_to(self.root) or path == self.root or ".." in path.parts:
            raise InvalidArguments(
                f"`dataset_path` is {path}, which lies outside of {self.root}: this server cannot look there on AI"
                " Toolkit's machine.",
                hint="Give the name of a dataset from list-datasets; upload-dataset adds one.",
                details={"field": "dataset_path", "value": str(path), "allowed": str(self.root)},
            )
        return from_thread.run(self._files.training_images, path)

    async def _require_free(self, folder: str, overwrite: bool) -> list[str] | None:
        """Return what is in a dataset that may be replaced, None where there is none."""
        if folder not in await self._api.names():
            return None
        if not overwrite:
            raise taken(folder)
        await self._require_unused(folder)
        return await self._files.media(folder)

    async def _require_unused(self, folder: str) -> None:
        await refuse_in_use(self.root / folder, self._jobs_using)

    @asynccontextmanager
    async def _work_folder(self, folder: str) -> AsyncGenerator[Path]:
        work = self.workplace / f"{folder}.{uuid4().hex}"
        try:
            yield work
        except OSError as error:
            raise translated(error) from error
        finally:
            # A caller that goes away must not leave half a dataset behind.
            with CancelScope(shield=True):
                await to_thread.run_sync(partial(shutil.rmtree, work, ignore_errors=True))


def _sent(names: Names) -> Names:
    """Return the names to send images under; one that cannot be sent is bad."""
    stored: list[str] = []
    bad: list[BadUpload] = []
    for name in names.stored:
        try:
            stored.append(sent_name(name))
        except UnsendableName as error:
            bad.append(BadUpload(name, str(error)))
    return Names(tuple(stored), (), tuple(bad))


def _renamed(filenames: Sequence[str], names: Names, sent: Names) -> tuple[Renamed, ...]:
    reasons = {each.filename: each.reason for each in names.renamed}
    found: list[Renamed] = []
    for filename, stored, there in zip(filenames, names.stored, sent.stored, strict=True):
        if there != stored:
            why = (
                f"AI Toolkit keeps only a-z, 0-9, `.`, `-` and `_` of a name; here it is shown and taken as `{stored}`"
            )
            found.append(Renamed(filename, there, "; ".join([*filter(None, [reasons.get(filename)]), why])))
        elif stored != filename:
            found.append(Renamed(filename, there, reasons[filename]))
    return tuple(found)
