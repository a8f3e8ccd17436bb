"""Look at the datasets on AI Toolkit's disk through its API, and copy from them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from anyio import to_thread

from aitk_mcp.datasets.contents import SAMPLED_CAPTIONS, DatasetImage, DatasetSummary, TrainingImages
from aitk_mcp.datasets.refusals import known_name, no_image
from aitk_mcp.datasets.sent_names import shown_name
from aitk_mcp.images import ImageSize, is_image, size_in
from aitk_mcp.trainers.at_once import at_once
from aitk_mcp.trainers.ui_datasets import UiDatasets
from aitk_mcp.trainers.ui_disk import UiDisk
from mcp_toolserver.errors import BackendRejected, NotFound
from mcp_toolserver.files import write_now

# Enough for the header of an image with a thumbnail of its own in it.
_HEADER_BYTES = 64 * 1024
_MOST_IMAGE_BYTES = 256 * 1024 * 1024
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


class RemoteFiles:
    """The datasets below `root`, a folder of AI Toolkit's machine, as all paths are; images by the names shown here."""

    def __init__(self, api: UiDatasets, disk: UiDisk, root: Path) -> None:
        self._api, self._disk, self._root = api, disk, root

    async def known(self, name: str) -> str:
        """Return the name of a dataset as AI Toolkit has it; raises NotFound with the closest names."""
        return known_name(name, await self._api.names())

    async def media(self, folder: str) -> list[str]:
        """Return images and videos of a dataset by their paths within it; none where it is gone."""
        return await self._api.media(folder) or []

    async def images(self, folder: str) -> dict[str, str]:
        """Return where each image lies, by the name that it is shown under."""
        files: dict[str, str] = {}
        for place in await self.media(folder):
            if is_image(PurePosixPath(place).name):
                shown = shown_name(place)
                files[place if shown in files else shown] = f"{self._root}/{folder}/{place}"
        return dict(sorted(files.items()))

    async def summary(self, folder: str) -> DatasetSummary:
        """Return a dataset without its images."""
        paths = list((await self.images(folder)).values())
        captions = await self._api.captions(paths)
        captioned = sum(bool(caption.strip()) for caption in captions.values())
        return DatasetSummary(folder, self._root / folder, len(paths), captioned, size_bytes=None, modified=None)

    async def described(self, images: Sequence[tuple[str, str]]) -> list[DatasetImage]:
        """Return images, given by name and path, with captions and sizes."""
        captions = await self._api.captions([path for _, path in images])
        sizes = await at_once(self._size, [path for _, path in images])
        return [
            DatasetImage(
                filename=filename,
                caption=captions[path] if captions[path].strip() else None,
                width=size.width if size else None,
                height=size.height if size else None,
                size_bytes=size_bytes,
            )
            for (filename, path), (size, size_bytes) in zip(images, sizes, strict=True)
        ]

    async def training_images(self, path: Path) -> TrainingImages | None:
        """Return what a trainer finds at a path below the root, None where there is no such dataset."""
        name = path.relative_to(self._root).parts[0]
        if name not in await self._api.names():
            return None
        paths = [image for image in (await self.images(name)).values() if Path(image).is_relative_to(path)]
        captions = [caption.strip() for caption in (await self._api.captions(paths)).values() if caption.strip()]
        return TrainingImages(path, len(paths), tuple(captions[:SAMPLED_CAPTIONS]), path.parent == self._root)

    async def copy(self, folder: str, target: Path) -> None:
        """Copy a dataset to a new folder of this machine; what AI Toolkit does not train on becomes an empty file."""
        files = await self.images(folder)
        captions = await self._api.captions(list(files.values()))

        async def take(filename: str) -> None:
            place, path = target / _plain(filename), files[filename]
            await to_thread.run_sync(partial(place.parent.mkdir, parents=True, exist_ok=True))
            try:
                await self._disk.copy(path, place)
                if _UNREADABLE in captions[path]:
                    # AI Toolkit answers what it could make of it; the bytes tell.
                    await self._disk.copy(str(Path(path).with_suffix(".txt")), place.with_suffix(".txt"))
                elif captions[path]:
                    await to_thread.run_sync(write_now, place.with_suffix(".txt"), captions[path].encode())
            except FileNotFoundError:
                raise _gone(path) from None

        await to_thread.run_sync(partial(target.mkdir, parents=True))
        await at_once(take, list(files))
        for other in [media for media in await self.media(folder) if not is_image(PurePosixPath(media).name)]:
            place = target / _plain(other)
            await to_thread.run_sync(partial(place.parent.mkdir, parents=True, exist_ok=True))
            await to_thread.run_sync(place.touch)

    async def _size(self, path: str) -> tuple[ImageSize | None, int]:
        try:
            start, state = await self._disk.beginning(path, _HEADER_BYTES)
            size = await to_thread.run_sync(size_in, start)
            if size is None and len(start) < state.size_bytes <= _MOST_IMAGE_BYTES:
                whole = await self._disk.read(path, most_bytes=_MOST_IMAGE_BYTES)
                size = await to_thread.run_sync(size_in, whole)
        except FileNotFoundError:
            raise _gone(path) from None
        return size, state.size_bytes


def found_image(files: dict[str, str], folder: str, filename: str) -> str:
    """Return where an image lies, by its name here or the one that AI Toolkit's pages show; raises NotFound."""
    ending = f"/{folder}/{filename}"
    path = files.get(filename) or next((image for image in files.values() if image.endswith(ending)), None)
    if path is None:
        raise no_image(folder, filename, files)
    return path


def _plain(filename: str) -> PurePosixPath:
    path = PurePosixPath(filename)
    if path.is_absolute() or ".." in path.parts:
        raise BackendRejected(f"AI Toolkit names an image {filename!r}.", details={"filename": filename})
    return path


def _gone(path: str) -> NotFound:
    return NotFound(
        f"{path} was deleted at this moment.", hint="get-dataset lists what is left.", details={"path": path}
    )
