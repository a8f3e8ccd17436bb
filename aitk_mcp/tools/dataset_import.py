"""The tool that makes a dataset of a zip or a folder on the trainer's machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from aitk_mcp.datasets.datasets import Datasets
from aitk_mcp.datasets.imports import Import, import_dataset
from aitk_mcp.tools.datasets import RenamedFile, UploadedDataset, uploaded
from mcp_toolserver.tools import AnyTool, Arguments, Call, Effect, Result, Tool

_SHOWN = 200


class ImportDataset(Arguments):
    """Make a dataset of a zip or a folder that lies on the trainer's machine, all or nothing; for any number of images.

    Captions are the .txt (or .caption) files beside the images. Folders within it are made one, and `renamed` says
    what became of names. Every image is decoded; a single bad one, a path that leads out, a link, an encrypted or an
    absurdly packed entry refuses the import, and the answer names each. The path must lie within the server's import
    roots.
    """

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "name": "the argument is `dataset_name`.",
        "zip": "the argument is `path`.",
        "folder": "the argument is `path`.",
    }

    path: str = Field(min_length=1, description="Zip or folder; relative to an import root, or absolute within one.")
    dataset_name: str = Field(description="Name of the dataset.")
    overwrite: bool = Field(False, description="Replace the whole dataset of this name.")
    default_caption: str | None = Field(None, description="Caption of images that come without one.")
    trigger_word: str | None = Field(None, min_length=1, description="Word that is to call the subject later.")


class IgnoredFile(Result):
    """A file that was not taken."""

    filename: str = Field(description="Its path in the source.")
    reason: str = Field(description="Why.")


class ImportedDataset(UploadedDataset):
    """A dataset that was imported."""

    source: str = Field(description="The zip or folder.")
    ignored: list[IgnoredFile] = Field(description=f"Files that were not taken; the first {_SHOWN}.")
    ignored_total: int = Field(description="How many files were not taken.")
    renamed_total: int = Field(description=f"How many images are stored under another name; {_SHOWN} are shown.")
    problems_total: int = Field(description=f"How many captions could be better; {_SHOWN} are shown.")


def dataset_import_tools(datasets: Datasets, roots: Sequence[Path]) -> list[AnyTool]:
    """Return the tool over these datasets; it takes files from these roots only."""

    async def take(args: ImportDataset, call: Call) -> ImportedDataset:
        found = await import_dataset(
            datasets,
            roots,
            args.path,
            args.dataset_name,
            overwrite=args.overwrite,
            default_caption=args.default_caption,
            trigger_word=args.trigger_word,
            report=call.report,
        )
        return _imported(found, args.dataset_name)

    return [Tool(name="import-dataset", args=ImportDataset, result=ImportedDataset, effect=Effect.WRITE, run=take)]


def _imported(found: Import, requested_name: str) -> ImportedDataset:
    stored = uploaded(found.upload, requested_name)
    return ImportedDataset(
        **stored.model_dump(exclude={"renamed", "problems"}),
        problems=stored.problems[:_SHOWN],
        renamed=[
            RenamedFile(filename=each.filename, renamed_to=each.renamed_to, reason=each.reason)
            for each in found.renamed[:_SHOWN]
        ],
        source=str(found.source),
        ignored=[IgnoredFile(filename=each.filename, reason=each.reason) for each in found.ignored[:_SHOWN]],
        ignored_total=len(found.ignored),
        renamed_total=len(found.renamed),
        problems_total=len(stored.problems),
    )
