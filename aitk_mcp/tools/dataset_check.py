"""The tool that looks through a dataset before it is trained on."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from aitk_mcp.datasets.check import DatasetCheck, Verdict, check_dataset
from aitk_mcp.datasets.port import DatasetHome
from aitk_mcp.recipes.architectures import ARCHITECTURES
from aitk_mcp.recipes.request import Resolution
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import InvalidArguments, closest
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool

_SHOWN = 50


class CheckDataset(Arguments):
    """Look through a dataset before a training: every image decoded, every caption read, and what to do about each
    finding.

    Finds files that do not decode, duplicates (the same bytes, or the same to the eye), captions that are missing,
    empty, or lack the trigger word, images that are turned, too small or much cropped, and files that the trainer
    would not see. `buckets` previews the sizes that AI Toolkit will train at. Nothing is changed.
    """

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "name": "the argument is `dataset_name`.",
        "dataset_path": "the argument is `dataset_name`.",
    }

    dataset_name: str = Field(description="Name of the dataset, as list-datasets shows it.")
    resolution: Resolution | Annotated[list[Resolution], Field(min_length=1, max_length=8)] = Field(
        512, description="Side of the training buckets in pixels, as create-training-config takes it."
    )
    trigger_word: str | None = Field(None, min_length=1, description="Word that is to call the subject.")
    batch_size: int = Field(1, ge=1, le=64, description="Images a step, for the number of steps.")
    architecture: str = Field(
        "flux", description="What will be trained, as list-model-presets names it; the sides of buckets depend on it."
    )


class RepairAction(Result):
    """A call that cures a finding."""

    tool: str = Field(description="The tool to call.")
    arguments: dict[str, Any] = Field(description="Its arguments, as far as they are known.")
    to_fill: list[str] = Field(description="Arguments that you have to write.")
    why: str = Field(description="What it does.")


class DatasetFinding(Result):
    """One thing that was found."""

    kind: str = Field(
        description="no_images, unreadable, caption_not_utf8, few_images, not_seen, missing_caption, empty_caption,"
        " trigger_word_missing, duplicate, near_duplicate, too_small, much_cropped, exif_rotated or"
        " caption_without_image."
    )
    severity: Literal["error", "warning", "note"] = Field(
        description="An error must be corrected before a training, a warning should be, a note need not."
    )
    message: str = Field(description="What it means.")
    filenames: list[str] = Field(description="The files that it is about, by name.")
    actions: list[RepairAction] = Field(description=f"What to do about it; at most {_SHOWN}.")


class DatasetBucket(Result):
    """A size that images are trained at."""

    resolution: int = Field(description="The resolution that it belongs to.")
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")
    images: int = Field(description="Number of images in it.")
    filenames: list[str] = Field(description=f"The first {_SHOWN} of them.")


class DatasetReport(Result):
    """What was found in a dataset."""

    dataset_name: str = Field(description="Name.")
    path: str = Field(description="Absolute path: what `dataset_path` takes.")
    verdict: Verdict = Field(
        description="`ready` to train on; `usable`, but better after the warnings; `not_usable` before the errors are"
        " corrected."
    )
    images: int = Field(description="Number of image files.")
    readable: int = Field(description="Number of images that decode.")
    captions: int = Field(description="Number of images with a caption.")
    findings: list[DatasetFinding] = Field(description="What was found, with its cure.")
    buckets: list[DatasetBucket] = Field(description="The sizes that the images will be trained at.")
    bucket_step: int = Field(description="What the sides of buckets are multiples of, in pixels.")
    steps_per_epoch: int = Field(description="Steps of one pass over the images; a batch never mixes buckets.")


def dataset_check_tools(datasets: DatasetHome) -> list[AnyTool]:
    """Return the tool over these datasets."""

    async def check(args: CheckDataset, call: Call) -> DatasetReport:
        if args.architecture not in ARCHITECTURES:
            matches = closest(args.architecture, ARCHITECTURES)
            raise InvalidArguments(
                f"`architecture` is {args.architecture!r}, which AI Toolkit does not know.",
                hint=f"Did you mean `{matches[0]}`?" if matches else "list-model-presets names every architecture.",
                details={"field": "architecture", "value": args.architecture, "closest_matches": matches},
            )
        resolutions = args.resolution if isinstance(args.resolution, list) else [args.resolution]
        found = await check_dataset(
            datasets,
            args.dataset_name,
            resolutions=resolutions,
            architecture=args.architecture,
            batch_size=args.batch_size,
            trigger_word=args.trigger_word,
            report=call.report,
        )
        return _report(found)

    return [Tool(name="check-dataset", args=CheckDataset, result=DatasetReport, effect=Effect.READ, run=check)]


def _report(found: DatasetCheck) -> DatasetReport:
    return DatasetReport(
        dataset_name=found.name,
        path=str(found.path),
        verdict=found.verdict,
        images=found.images,
        readable=found.readable,
        captions=found.captions,
        findings=[
            DatasetFinding(
                kind=each.kind,
                severity=each.severity,
                message=each.message,
                filenames=list(each.filenames),
                actions=[
                    RepairAction(
                        tool=action.tool,
                        arguments=dict(action.arguments),
                        to_fill=list(action.to_fill),
                        why=action.why,
                    )
                    for action in each.actions[:_SHOWN]
                ],
            )
            for each in found.findings
        ],
        buckets=[
            DatasetBucket(
                resolution=each.resolution,
                width=each.bucket.width,
                height=each.bucket.height,
                images=len(each.filenames),
                filenames=list(each.filenames[:_SHOWN]),
            )
            for each in found.buckets
        ],
        bucket_step=found.bucket_step,
        steps_per_epoch=found.steps_per_epoch,
    )
