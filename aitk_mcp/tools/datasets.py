"""The tools for datasets: upload, list, look into, edit and delete."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from aitk_mcp.datasets.contents import DatasetImage, DatasetSummary
from aitk_mcp.datasets.in_use import in_words
from aitk_mcp.datasets.port import DatasetHome, Upload
from aitk_mcp.datasets.routes import image_url
from aitk_mcp.datasets.staging import NewImage
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import InvalidArguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool

_NAME_FIELD = Field(description="Name of the dataset, as list-datasets shows it.")


class ImageToUpload(BaseModel):
    """One image of a dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filename: str = Field(description="Bare file name ending in .jpg, .jpeg, .png or .webp.")
    content: str = Field(
        validation_alias=AliasChoices("content", "data"),
        description="The file's bytes as base64; a `data:image/…;base64,` prefix is dropped.",
    )
    caption: str | None = Field(None, description="What the image shows; stored beside it as a text file.")


class UploadDataset(Arguments):
    """Store images with captions as a dataset to train on, all or nothing.

    Each image is proven whole to its last byte; a single bad one refuses the call, and the answer names each bad
    one. The name is normalised as AI Toolkit does (lower case, anything but a-z and 0-9 becomes `_`); the answered
    `path` is what create-training-config takes as `dataset_path`. With `trigger_word`, captions that lack it are
    reported.
    """

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "name": "the argument is `dataset_name`.",
        "files": "the argument is `images`: a list of {filename, content, caption}.",
        "captions": "each image carries its own `caption`.",
        "image": "the bytes of an image are in `content`, as base64.",
        "text": "the caption of an image is in `caption`.",
    }

    dataset_name: str = Field(description="Name of the dataset.")
    images: list[ImageToUpload] = Field(min_length=1, description="The images; 10 to 30 good ones train a subject.")
    overwrite: bool = Field(False, description="Replace the whole dataset of this name.")
    default_caption: str | None = Field(None, description="Caption of images that come without one.")
    trigger_word: str | None = Field(None, min_length=1, description="Word that is to call the subject later.")


class RenamedFile(Result):
    """An image that is stored under another name."""

    filename: str = Field(description="The name that was sent.")
    renamed_to: str = Field(description="The name that it has now.")
    reason: str = Field(description="Why.")


class UploadProblem(Result):
    """Something to correct; nothing was refused for it."""

    filename: str = Field(description="The image.")
    problem: str = Field(description="What is wrong.")
    cure: str = Field(description="What to do about it.")


class UploadedDataset(Result):
    """A dataset that was stored."""

    dataset_name: str = Field(description="The normalised name, which is also the folder's.")
    requested_name: str = Field(description="The name that was asked for.")
    path: str = Field(description="Absolute path: what `dataset_path` takes.")
    images_saved: int = Field(description="Number of images.")
    captions_saved: int = Field(description="Number of captions.")
    size_file: str | None = Field(
        description="Where the sizes of the images are kept for AI Toolkit; null where it writes them itself."
    )
    renamed: list[RenamedFile] = Field(description="Images that are stored under another name.")
    problems: list[UploadProblem] = Field(description="What may be worth correcting before the training.")
    notes: list[str] = Field(description="What else to know, where the trainer's disk is another machine's.")


class ListDatasets(Arguments):
    """List the datasets that a training can use."""


class Dataset(Result):
    """A dataset without its images."""

    dataset_name: str = Field(description="Name.")
    path: str = Field(description="Absolute path: what `dataset_path` takes.")
    images: int = Field(description="Number of images that AI Toolkit would find.")
    captions: int = Field(description="Number of images with a caption.")
    size_bytes: int | None = Field(
        description="Size of all images in bytes; null where AI Toolkit's disk is another machine's."
    )
    modified: datetime | None = Field(description="When an image last changed; null as `size_bytes` is.")


class DatasetList(Result):
    """Every dataset."""

    datasets: list[Dataset] = Field(description="The datasets, by name.")
    total: int = Field(description="How many there are.")
    root: str = Field(description="The folder that they lie in.")


class GetDataset(Arguments):
    """Show the images of a dataset with their captions and sizes."""

    dataset_name: str = _NAME_FIELD
    limit: int = Field(100, ge=1, le=1000, description="At most this many images.")
    cursor: str | None = Field(None, description="`next_cursor` of the answer before, for the images after it.")


class Image(Result):
    """An image of a dataset."""

    filename: str = Field(description="Name within the dataset.")
    caption: str | None = Field(description="Its caption; null where it has none.")
    width: int | None = Field(description="Width in pixels, turned upright; null where the image cannot be read.")
    height: int | None = Field(description="Height in pixels, turned upright.")
    size_bytes: int = Field(description="Size of the file in bytes.")
    url: str = Field(description="Address of the file; serves byte ranges.")
    thumbnail_url: str = Field(description="Address of a small picture of it, to look at.")


class DatasetContents(Dataset):
    """A dataset with its images."""

    items: list[Image] = Field(description="The images, by name.")
    next_cursor: str | None = Field(description="Where to go on; null after the last image.")


class SetCaption(Arguments):
    """Write the caption of one image; an empty caption removes it.

    A training keeps the captions that it read when it began: `warnings` names those that will not see the new one.
    """

    dataset_name: str = _NAME_FIELD
    filename: str = Field(description="The image, as get-dataset names it.")
    caption: str = Field(max_length=20_000, description="The caption.")


class CaptionSet(Result):
    """A caption as it is now."""

    dataset_name: str = Field(description="The dataset.")
    filename: str = Field(description="The image.")
    caption: str | None = Field(description="Its caption; null where it has none now.")
    caption_file: str = Field(description="Where the caption is kept.")
    warnings: list[str] = Field(description="Trainings that may go on with the caption as it was.")


class DeleteImages(Arguments):
    """Delete images of a dataset with their captions, all of them or none."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {"filename": "the argument is `filenames`, a list."}

    dataset_name: str = _NAME_FIELD
    filenames: list[str] = Field(min_length=1, description="The images, as get-dataset names them.")


class ImagesDeleted(Result):
    """What is left of a dataset."""

    dataset_name: str = Field(description="The dataset.")
    deleted: int = Field(description="Number of images that were deleted.")
    images: int = Field(description="Number of images that are left.")


class DeleteDataset(Arguments):
    """Delete a dataset with all its images and captions, for good."""

    dataset_name: str = _NAME_FIELD


class DatasetDeleted(Dataset):
    """A dataset that is gone: what it was."""


def dataset_tools(datasets: DatasetHome) -> list[AnyTool]:
    """Return the tools over these datasets."""

    async def upload(args: UploadDataset, call: Call) -> UploadedDataset:
        images = [NewImage(image.filename, image.content, image.caption) for image in args.images]
        stored = await datasets.upload(
            args.dataset_name,
            images,
            overwrite=args.overwrite,
            default_caption=args.default_caption,
            trigger_word=args.trigger_word,
            report=call.report,
        )
        return uploaded(stored, args.dataset_name)

    async def list_all(args: ListDatasets, call: Call) -> DatasetList:
        found = [_dataset(each) for each in await datasets.all()]
        return DatasetList(datasets=found, total=len(found), root=str(datasets.root))

    async def get(args: GetDataset, call: Call) -> DatasetContents:
        start = _start(args.cursor)
        summary = await datasets.summary(args.dataset_name)
        images = await datasets.images(args.dataset_name, start, args.limit)
        end = start + args.limit
        return DatasetContents(
            **_dataset(summary).model_dump(),
            items=[_image(each, image_url(call.base_url, summary.name, each.filename)) for each in images],
            next_cursor=str(end) if end < summary.images else None,
        )

    async def set_caption(args: SetCaption, call: Call) -> CaptionSet:
        file = await datasets.set_caption(args.dataset_name, args.filename, args.caption)
        job_ids = await datasets.jobs_using(args.dataset_name)
        late = [f"The dataset is in use: if {in_words(job_ids)} has begun, it keeps the caption that it read."]
        caption = args.caption if args.caption.strip() else None
        return CaptionSet(
            dataset_name=args.dataset_name,
            filename=args.filename,
            caption=caption,
            caption_file=str(file),
            warnings=late if job_ids else [],
        )

    async def delete_images(args: DeleteImages, call: Call) -> ImagesDeleted:
        left = await datasets.delete_images(args.dataset_name, args.filenames)
        return ImagesDeleted(dataset_name=args.dataset_name, deleted=len(set(args.filenames)), images=left)

    async def delete(args: DeleteDataset, call: Call) -> DatasetDeleted:
        return DatasetDeleted(**_dataset(await datasets.delete(args.dataset_name)).model_dump())

    return [
        Tool(name="upload-dataset", args=UploadDataset, result=UploadedDataset, effect=Effect.WRITE, run=upload),
        Tool(name="list-datasets", args=ListDatasets, result=DatasetList, effect=Effect.READ, run=list_all),
        Tool(name="get-dataset", args=GetDataset, result=DatasetContents, effect=Effect.READ, run=get),
        Tool(name="set-caption", args=SetCaption, result=CaptionSet, effect=Effect.WRITE, run=set_caption),
        Tool(name="delete-images", args=DeleteImages, result=ImagesDeleted, effect=Effect.DESTROY, run=delete_images),
        Tool(name="delete-dataset", args=DeleteDataset, result=DatasetDeleted, effect=Effect.DESTROY, run=delete),
    ]


def uploaded(stored: Upload, requested_name: str) -> UploadedDataset:
    """Return a dataset that was just published as its author sees it."""
    return UploadedDataset(
        dataset_name=stored.name,
        requested_name=requested_name,
        path=str(stored.path),
        images_saved=stored.images,
        captions_saved=stored.captions,
        size_file=str(stored.size_file) if stored.size_file is not None else None,
        notes=list(stored.notes),
        renamed=[
            RenamedFile(filename=each.filename, renamed_to=each.renamed_to, reason=each.reason)
            for each in stored.renamed
        ],
        problems=[
            UploadProblem(filename=each.filename, problem=each.problem, cure=each.cure) for each in stored.problems
        ],
    )


def _dataset(summary: DatasetSummary) -> Dataset:
    return Dataset(
        dataset_name=summary.name,
        path=str(summary.path),
        images=summary.images,
        captions=summary.captions,
        size_bytes=summary.size_bytes,
        modified=datetime.fromtimestamp(summary.modified, UTC) if summary.modified is not None else None,
    )


def _image(image: DatasetImage, url: str) -> Image:
    return Image(
        filename=image.filename,
        caption=image.caption,
        width=image.width,
        height=image.height,
        size_bytes=image.size_bytes,
        url=url,
        thumbnail_url=f"{url}?thumb=1",
    )


def _start(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit()):
        raise InvalidArguments(
            f"`cursor` is {cursor!r}, which no answer gave.",
            hint="Leave it out to begin, or send the `next_cursor` of the answer before.",
            details={"field": "cursor", "value": cursor},
        )
    return int(cursor)
