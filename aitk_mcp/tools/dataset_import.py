"""The tool that makes a dataset of a zip that was uploaded, or of a zip or a folder on the trainer's machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from aitk_mcp.datasets.imports import Import, NewDataset, import_path, import_upload
from aitk_mcp.datasets.port import DatasetHome
from aitk_mcp.datasets.zip_uploads import ZipUploads
from aitk_mcp.tools.datasets import RenamedFile, UploadedDataset, uploaded
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import InvalidArguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool

_SHOWN = 200


class ImportDataset(Arguments):
    """Make a dataset of a zip, or of a folder on the trainer's machine, all or nothing; for any number of images.

    Send a zip to `/uploads` (tus 1.0) and give its `upload_id`, or give the `path` of a zip or a folder within the
    server's import roots. Captions are the .txt (or .caption) files beside the images. Folders within it are made one,
    and `renamed` says what became of names. A single image that is not whole, a path that leads out, a link, an
    encrypted or an absurdly packed entry refuses the import, and the answer names each; an upload then stays, to be
    imported otherwise or deleted.
    """

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "name": "the argument is `dataset_name`.",
        "zip": "the argument is `upload_id` for a zip sent to /uploads, `path` for one on the trainer's machine.",
        "folder": "the argument is `path`.",
    }

    upload_id: str | None = Field(
        None, min_length=1, description="Zip that was sent to `/uploads`: the last part of its address."
    )
    path: str | None = Field(
        None, min_length=1, description="Zip or folder; relative to an import root, or absolute within one."
    )
    dataset_name: str = Field(description="Name of the dataset.")
    overwrite: bool = Field(False, description="Replace the whole dataset of this name.")
    default_caption: str | None = Field(None, description="Caption of images that come without one.")
    trigger_word: str | None = Field(None, min_length=1, description="Word that is to call the subject later.")
    sha256: str | None = Field(
        None, pattern="^[0-9a-fA-F]{64}$", description="Digest of the uploaded zip, to be compared before it is opened."
    )


class IgnoredFile(Result):
    """A file that was not taken."""

    filename: str = Field(description="Its path in the source.")
    reason: str = Field(description="Why.")


class ImportedDataset(UploadedDataset):
    """A dataset that was imported."""

    source: str = Field(description="The zip or folder; of an upload, the name that it was sent under.")
    ignored: list[IgnoredFile] = Field(description=f"Files that were not taken; the first {_SHOWN}.")
    ignored_total: int = Field(description="How many files were not taken.")
    renamed_total: int = Field(description=f"How many images are stored under another name; {_SHOWN} are shown.")
    problems_total: int = Field(description=f"How many captions could be better; {_SHOWN} are shown.")


def dataset_import_tools(datasets: DatasetHome, roots: Sequence[Path], zips: ZipUploads) -> list[AnyTool]:
    """Return the tool over these datasets; it takes files from these roots and uploads only."""

    async def take(args: ImportDataset, call: Call) -> ImportedDataset:
        wanted = NewDataset(args.dataset_name, args.overwrite, args.default_caption, args.trigger_word)
        if args.upload_id is not None and args.path is None:
            found = await import_upload(datasets, zips, args.upload_id, wanted, sha256=args.sha256, report=call.report)
        elif args.path is not None and args.upload_id is None and args.sha256 is None:
            found = await import_path(datasets, roots, args.path, wanted, call.report)
        else:
            raise _not_one_source(args)
        return _imported(found, args.dataset_name)

    return [Tool(name="import-dataset", args=ImportDataset, result=ImportedDataset, effect=Effect.WRITE, run=take)]


def _not_one_source(args: ImportDataset) -> InvalidArguments:
    given = [name for name in ("upload_id", "path", "sha256") if getattr(args, name) is not None]
    together = " and ".join(f"`{name}`" for name in given)
    return InvalidArguments(
        f"{together} do not go together." if len(given) > 1 else "Neither `upload_id` nor `path` is given.",
        hint="Give `upload_id` for a zip that was sent to /uploads (`sha256` goes with it), or `path` for a zip or a"
        " folder on the trainer's machine.",
        details={"field": "upload_id", "given": given},
    )


def _imported(found: Import, requested_name: str) -> ImportedDataset:
    stored = uploaded(found.upload, requested_name)
    return ImportedDataset(
        **stored.model_dump(exclude={"renamed", "problems"}),
        problems=stored.problems[:_SHOWN],
        renamed=[
            RenamedFile(filename=each.filename, renamed_to=each.renamed_to, reason=each.reason)
            for each in found.renamed[:_SHOWN]
        ],
        source=found.source,
        ignored=[IgnoredFile(filename=each.filename, reason=each.reason) for each in found.ignored[:_SHOWN]],
        ignored_total=len(found.ignored),
        renamed_total=len(found.renamed),
        problems_total=len(stored.problems),
    )
