"""The datasets of a trainer: folders of images with captions beside them, under one root.

    <root>/<dataset>/cat.png  cat.txt  .aitk_size.json
    <root>/.staging/<dataset>.<id>.new          an upload that is not yet whole
    <root>/.staging/<dataset>.<id>.old          what an upload replaced, or a delete removed, on its way out

A server that is killed between two renames finds in `recover` what to put back and what to throw away.
"""

import shutil
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from anyio import CancelScope, Lock, to_thread

from aitk_mcp.datasets.contents import (
    DatasetImage,
    DatasetSummary,
    TrainingImages,
    caption_problems,
    chosen_caption,
    find_image,
    images_of,
    summary_of,
    training_images,
)
from aitk_mcp.datasets.in_use import JobsUsing, no_jobs, refuse_in_use
from aitk_mcp.datasets.port import Upload
from aitk_mcp.datasets.refusals import known_name, none_left, refuse_bad, taken, translated
from aitk_mcp.datasets.staging import ImageSource, plan_names, stage, unfit
from aitk_mcp.recipes.names import dataset_folder_name
from aitk_mcp.size_index import FILE_NAME, image_files, write_index
from mcp_toolserver.errors import Forbidden, InvalidArguments
from mcp_toolserver.files import make_folder, sync_directory, write_now
from mcp_toolserver.tools import Report, unheard

T = TypeVar("T")


class Datasets:
    """List, fill, edit and delete the datasets under one root; a name never leads out of it."""

    def __init__(self, root: Path, jobs_using: JobsUsing = no_jobs) -> None:
        """Take who reads a dataset: what a training reads is neither replaced nor deleted."""
        self.root = root
        self._jobs_using = jobs_using
        self._staging = root / ".staging"
        self._publishing = Lock()

    @property
    def workplace(self) -> Path:
        """Return the folder in which uploads are made ready."""
        return self.root

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
        """Publish a dataset of these images, or nothing at all.

        Raises InvalidArguments that names each bad image, Conflict where the name is taken and `overwrite` is false
        or a training reads what would be replaced, and InsufficientStorage.
        """
        folder = dataset_folder_name(name)
        if not images:
            raise InvalidArguments("`images` is empty: a dataset needs at least one image.")
        names = plan_names([image.filename for image in images])
        refuse_bad(await to_thread.run_sync(unfit, images, names), len(images))
        await self._require_free(folder, overwrite)
        captions = [chosen_caption(image.caption, default_caption) for image in images]
        async with self._work_folder(folder) as work:
            refuse_bad(await stage(work, images, names, captions, report), len(images))
            async with self._publishing:
                await self._require_free(folder, overwrite)
                await to_thread.run_sync(self._publish, work, folder, overwrite)
        return Upload(
            name=folder,
            path=self.root / folder,
            images=len(images),
            captions=sum(caption is not None for caption in captions),
            size_file=self.root / folder / FILE_NAME,
            renamed=names.renamed,
            problems=tuple(caption_problems(names.stored, captions, trigger_word)),
        )

    async def all(self) -> list[DatasetSummary]:
        """Return every dataset, by name."""
        return await to_thread.run_sync(lambda: [summary_of(folder) for folder in self.folders()])

    async def summary(self, name: str) -> DatasetSummary:
        """Return one dataset; raises NotFound with the closest names."""
        return await self._in(name, summary_of)

    async def images(self, name: str, start: int = 0, limit: int | None = None) -> list[DatasetImage]:
        """Return images of a dataset by file name, with captions and sizes: all, or `limit` from `start` on."""
        return (await self._in(name, images_of))[start : None if limit is None else start + limit]

    async def image_file(self, name: str, filename: str) -> Path:
        """Return the file of an image; raises NotFound with the closest names."""
        return await self._in(name, lambda folder: find_image(folder, filename))

    async def set_caption(self, name: str, filename: str, caption: str) -> Path:
        """Write the caption of an image, or remove it where it is blank; returns the caption file."""

        def write(folder: Path) -> Path:
            target = find_image(folder, filename).with_suffix(".txt")
            if caption.strip():
                write_now(target, caption.encode())
            else:
                target.unlink(missing_ok=True)
            return target

        return await self._in(name, write)

    async def jobs_using(self, name: str) -> list[str]:
        """Return the ids of the jobs that wait or run and read a dataset."""
        return await self._jobs_using(await to_thread.run_sync(self.find, name))

    async def delete_images(self, name: str, filenames: Sequence[str]) -> int:
        """Delete images with their captions, all or none, and return how many are left.

        Raises Conflict where none would be left, and where a training reads them.
        """

        def remove(folder: Path) -> int:
            doomed = {find_image(folder, filename) for filename in filenames}
            left = set(image_files(folder)) - doomed
            if not left:
                raise none_left(folder.name)
            kept_stems = {path.with_suffix("") for path in left}
            for path in doomed:
                path.unlink()
                if path.with_suffix("") not in kept_stems:
                    path.with_suffix(".txt").unlink(missing_ok=True)
            write_index(folder)
            return len(left)

        await self._require_unused(name)
        return await self._in(name, remove)

    async def delete(self, name: str) -> DatasetSummary:
        """Delete a dataset with everything in it and return what it was; raises Conflict where a training reads it."""

        def remove(folder: Path) -> DatasetSummary:
            found = summary_of(folder)
            if folder.is_symlink():
                raise Forbidden(
                    f"Dataset `{folder.name}` is a link to {folder.resolve()}, which does not belong to this server.",
                    hint="Remove the link by hand.",
                )
            self._set_aside(folder)
            return found

        async with self._publishing:
            await self._require_unused(name)
            return await self._in(name, remove)

    @asynccontextmanager
    async def at_hand(self, name: str) -> AsyncGenerator[Path]:
        """Lend the folder of a dataset itself."""
        yield await to_thread.run_sync(self.find, name)

    async def recover(self) -> None:
        """Put back what a killed server had set aside, and throw away what it had not finished."""
        await to_thread.run_sync(self._recover)

    def find(self, name: str) -> Path:
        """Return the folder of a dataset by its own name or the name that it was uploaded under; blocks.

        Raises NotFound with the closest names.
        """
        return self.root / known_name(name, [folder.name for folder in self.folders()])

    def training_images(self, path: Path) -> TrainingImages | None:
        """Return what a trainer finds at an absolute path, None where nothing is; blocks."""
        return training_images(path, is_ours=path.parent == self.root)

    async def _require_free(self, folder: str, overwrite: bool) -> None:
        if not await to_thread.run_sync((self.root / folder).exists):
            return
        if not overwrite:
            raise taken(folder)
        await refuse_in_use(self.root / folder, self._jobs_using)

    async def _require_unused(self, name: str) -> None:
        await refuse_in_use(await to_thread.run_sync(self.find, name), self._jobs_using)

    async def _in(self, name: str, work: Callable[[Path], T]) -> T:
        def found() -> T:
            try:
                return work(self.find(name))
            except OSError as error:
                raise translated(error) from error

        return await to_thread.run_sync(found)

    def folders(self) -> list[Path]:
        """Return the folder of every dataset, by name; blocks."""
        if not self.root.is_dir():
            return []
        return sorted(path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))

    @asynccontextmanager
    async def _work_folder(self, folder: str) -> AsyncGenerator[Path]:
        work = self._staging / f"{folder}.{uuid4().hex}.new"
        try:
            yield work
        except OSError as error:
            raise translated(error) from error
        finally:
            # A caller that goes away must not leave half a dataset behind.
            with CancelScope(shield=True):
                await to_thread.run_sync(lambda: shutil.rmtree(work, ignore_errors=True))

    def _publish(self, work: Path, folder: str, overwrite: bool) -> None:
        target = self.root / folder
        if target.exists():
            if not overwrite:
                raise taken(folder)
            aside = self._aside(target)
            target.replace(aside)
            try:
                work.replace(target)
            except OSError:
                aside.replace(target)
                raise
            shutil.rmtree(aside)
        else:
            work.replace(target)
        sync_directory(self.root)

    def _set_aside(self, target: Path) -> None:
        make_folder(self._staging)
        aside = self._aside(target, "deleted")
        target.replace(aside)
        sync_directory(self.root)
        shutil.rmtree(aside)

    def _aside(self, target: Path, why: str = "old") -> Path:
        return self._staging / f"{target.name}.{uuid4().hex}.{why}"

    def _recover(self) -> None:
        for path in self._staging.iterdir() if self._staging.is_dir() else ():
            target = self.root / path.name.rsplit(".", 2)[0]
            if path.suffix == ".old" and not target.exists():
                path.replace(target)
            else:
                shutil.rmtree(path)
