"""Make a dataset of a zip or a folder on this machine, all or nothing."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import to_thread

from aitk_mcp.datasets.port import DatasetHome, Upload
from aitk_mcp.datasets.sources import Ignored, Source, find_source, gathered
from aitk_mcp.datasets.staging import Renamed
from aitk_mcp.datasets.zip_uploads import ZipUploads
from mcp_toolserver.errors import InsufficientStorage
from mcp_toolserver.tools import Report, unheard


@dataclass(frozen=True, slots=True)
class NewDataset:
    """The dataset that is wanted; `default_caption` is for images that come without one."""

    name: str
    overwrite: bool = False
    default_caption: str | None = None
    trigger_word: str | None = None


@dataclass(frozen=True)
class Import:
    """A dataset that was published from a source, the files that got other names there, and what was not taken."""

    source: str
    upload: Upload
    renamed: tuple[Renamed, ...]
    ignored: tuple[Ignored, ...]


async def import_path(
    datasets: DatasetHome, roots: Sequence[Path], path: str, wanted: NewDataset, report: Report = unheard
) -> Import:
    """Publish the images of a zip or folder within the import roots as a dataset, or nothing at all.

    Raises Forbidden and NotFound for the path, InvalidArguments that names each file that must not be taken or is no
    whole image, Conflict where the name is taken, and InsufficientStorage before anything is written.
    """
    return await _import(datasets, await to_thread.run_sync(find_source, path, roots), wanted, report)


async def import_upload(
    datasets: DatasetHome,
    zips: ZipUploads,
    upload_id: str,
    wanted: NewDataset,
    *,
    sha256: str | None = None,
    report: Report = unheard,
) -> Import:
    """Publish the images of a zip that was uploaded, or nothing at all: the upload is used up, or stays as it was.

    Raises NotFound for the upload, Conflict while bytes of it are missing and when it was used before, and what
    `import_path` raises for what is in it.
    """
    async with zips.taken(upload_id, sha256=sha256, report=report) as taken:
        return await _import(datasets, Source(taken.path, taken.filename, "upload_id"), wanted, report)


async def _import(datasets: DatasetHome, source: Source, wanted: NewDataset, report: Report) -> Import:
    opened = gathered(source)
    found = await to_thread.run_sync(opened.__enter__)
    try:
        await to_thread.run_sync(_refuse_without_room, datasets.workplace, found.total_bytes)
        upload = await datasets.upload(
            wanted.name,
            found.images,
            overwrite=wanted.overwrite,
            default_caption=wanted.default_caption,
            trigger_word=wanted.trigger_word,
            report=report,
        )
    finally:
        await to_thread.run_sync(partial(opened.__exit__, None, None, None))
    moved = {each.renamed_to: each for each in found.renamed}
    later = {each.filename: each for each in upload.renamed}
    renamed = [
        Renamed(each.filename, later[name].renamed_to if name in later else name, each.reason)
        for name, each in moved.items()
    ]
    renamed += [each for each in upload.renamed if each.filename not in moved]
    return Import(source.called, upload, tuple(renamed), found.ignored)


def _refuse_without_room(root: Path, needed_bytes: int) -> None:
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        raise InsufficientStorage(
            f"The images take {needed_bytes} bytes, and {free_bytes} are free where the datasets lie.",
            hint="Free some room on the trainer's machine and import it again.",
            details={"needed_bytes": needed_bytes, "free_bytes": free_bytes},
        )
