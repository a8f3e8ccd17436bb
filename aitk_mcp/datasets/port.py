"""Where datasets live: a folder of this machine, or the disk behind AI Toolkit's API."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aitk_mcp.datasets.contents import CaptionProblem, DatasetImage, DatasetSummary, TrainingImages
from aitk_mcp.datasets.staging import ImageSource, Renamed
from mcp_toolserver.tools import Report, unheard


@dataclass(frozen=True)
class Upload:
    """A dataset that was published.

    `size_file` is None where only the trainer can write it; `notes` say what else is different there.
    """

    name: str
    path: Path
    images: int
    captions: int
    size_file: Path | None
    renamed: tuple[Renamed, ...]
    problems: tuple[CaptionProblem, ...]
    notes: tuple[str, ...] = ()


class DatasetHome(Protocol):
    """The datasets of a trainer; paths are those of its machine. A name that is not there raises NotFound."""

    @property
    def root(self) -> Path:
        """Return the folder of all datasets."""
        ...

    @property
    def workplace(self) -> Path:
        """Return the folder of this machine in which uploads are made ready."""
        ...

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
        ...

    async def all(self) -> list[DatasetSummary]:
        """Return every dataset, by name."""
        ...

    async def summary(self, name: str) -> DatasetSummary:
        """Return one dataset."""
        ...

    async def images(self, name: str, start: int = 0, limit: int | None = None) -> list[DatasetImage]:
        """Return images of a dataset by file name, with captions and sizes: all, or `limit` from `start` on."""
        ...

    async def set_caption(self, name: str, filename: str, caption: str) -> Path:
        """Write the caption of an image, or remove it where it is blank; returns the caption file."""
        ...

    async def delete_images(self, name: str, filenames: Sequence[str]) -> int:
        """Delete images with their captions, all or none, and return how many are left.

        Raises Conflict where none would be left, and where a training reads them.
        """
        ...

    async def delete(self, name: str) -> DatasetSummary:
        """Delete a dataset with everything in it and return what it was; raises Conflict where a training reads it."""
        ...

    async def jobs_using(self, name: str) -> list[str]:
        """Return the ids of the jobs that wait or run and read a dataset."""
        ...

    async def recover(self) -> None:
        """Put in order what a killed server left."""
        ...

    def at_hand(self, name: str) -> AbstractAsyncContextManager[Path]:
        """Lend a folder of this machine with the files of a dataset, which may be a copy of them."""
        ...

    def find(self, name: str) -> Path:
        """Return the folder of a dataset; blocks, in a worker thread."""
        ...

    def folders(self) -> list[Path]:
        """Return the folder of every dataset, by name; blocks, in a worker thread."""
        ...

    def training_images(self, path: Path) -> TrainingImages | None:
        """Return what a trainer finds at an absolute path, None where nothing is; blocks, in a worker thread."""
        ...
