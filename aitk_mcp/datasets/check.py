"""Look through a dataset as its trainer will: what it cannot use, what harms the LoRA, and what to do about each.

What AI Toolkit 0.12.26 does with it: an image whose header cannot be read is left out with a line in the log, one that
is cut off is replaced by another each time it is its turn (and stops the training where many are), a caption that is
no UTF-8 stops it, and files in other formats are not seen at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from anyio import CapacityLimiter, create_task_group, to_thread

from aitk_mcp.datasets.contents import chosen_caption
from aitk_mcp.datasets.image_prints import ImagePrint, near_groups, read_print, same_groups
from aitk_mcp.datasets.port import DatasetHome
from aitk_mcp.images import BadImage
from aitk_mcp.recipes.buckets import Bucket, bucket_of, bucket_step, cropped_share
from aitk_mcp.size_index import image_files
from mcp_toolserver.tools import Report, unheard

Severity = Literal["error", "warning", "note"]
Verdict = Literal["ready", "usable", "not_usable"]
_DECODERS = 2
_FEW_IMAGES = 5
_SMALL_SHARE = 0.75
_MUCH_CROPPED = 0.1
_NOT_FOR_TRAINING = {".txt", ".json", ".safetensors", ".yaml", ".md"}


@dataclass(frozen=True)
class Action:
    """A call that cures a finding; `to_fill` names the arguments that the caller has to write."""

    tool: str
    arguments: Mapping[str, Any]
    why: str
    to_fill: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One thing that was found, in these files; an error keeps the dataset from being trained on as it is."""

    kind: str
    severity: Severity
    message: str
    filenames: tuple[str, ...]
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True)
class FilledBucket:
    """A bucket with the images that will be brought into it."""

    resolution: int
    bucket: Bucket
    filenames: tuple[str, ...]


@dataclass(frozen=True)
class DatasetCheck:
    """What was found in a dataset; `steps_per_epoch` counts the batches of one pass over it."""

    name: str
    path: Path
    images: int
    readable: int
    captions: int
    bucket_step: int
    buckets: tuple[FilledBucket, ...]
    steps_per_epoch: int
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """Return `not_usable` where anything must be corrected first, `ready` where nothing need be."""
        severities = {finding.severity for finding in self.findings}
        if "error" in severities:
            return "not_usable"
        return "usable" if "warning" in severities else "ready"


@dataclass
class _Look:
    """What was read of the images of one dataset, by file name."""

    prints: dict[str, ImagePrint] = field(default_factory=dict[str, ImagePrint])
    broken: dict[str, str] = field(default_factory=dict[str, str])
    captions: dict[str, str | None] = field(default_factory=dict[str, str | None])
    bad_captions: list[str] = field(default_factory=list[str])


async def check_dataset(
    datasets: DatasetHome,
    name: str,
    *,
    resolutions: Sequence[int],
    architecture: str,
    batch_size: int = 1,
    trigger_word: str | None = None,
    report: Report = unheard,
) -> DatasetCheck:
    """Decode every image of a dataset and say what a training at these resolutions would make of it."""
    place = await to_thread.run_sync(datasets.find, name)
    look = _Look()
    threads = CapacityLimiter(_DECODERS)
    async with datasets.at_hand(name) as folder:
        files = await to_thread.run_sync(lambda: sorted(image_files(folder)))

        async def take(path: Path) -> None:
            await to_thread.run_sync(_look_at, folder, path, look, limiter=threads)
            await report(len(look.captions), len(files), f"looked at {path.name}")

        async with create_task_group() as group:
            for path in files:
                group.start_soon(take, path)
        step = bucket_step(architecture)
        judged = await to_thread.run_sync(_judge, folder, look, tuple(resolutions), step, batch_size, trigger_word)
    return replace(judged, name=place.name, path=place)


def _look_at(folder: Path, path: Path, look: _Look) -> None:
    name = path.relative_to(folder).as_posix()
    try:
        look.prints[name] = read_print(path)
    except BadImage as error:
        look.broken[name] = str(error)
    caption = None
    try:
        caption = path.with_suffix(".txt").read_text(encoding="utf-8")
    except FileNotFoundError:
        caption = None
    except UnicodeDecodeError:
        look.bad_captions.append(name)
        caption = ""
    look.captions[name] = caption


def _judge(
    folder: Path,
    look: _Look,
    resolutions: tuple[int, ...],
    step: int,
    batch_size: int,
    trigger_word: str | None,
) -> DatasetCheck:
    names = sorted(look.captions)
    readable = [name for name in names if name in look.prints]
    buckets = [
        FilledBucket(resolution, bucket, tuple(filenames))
        for resolution in resolutions
        for bucket, filenames in sorted(_fill(look, readable, resolution, step).items())
    ]
    findings = [
        *_of_files(folder, look, names),
        *_of_captions(folder, look, names, trigger_word),
        *_of_twins(folder.name, look, readable),
        *_of_sizes(look, readable, resolutions, step),
    ]
    return DatasetCheck(
        name=folder.name,
        path=folder,
        images=len(names),
        readable=len(readable),
        captions=sum(chosen_caption(caption, None) is not None for caption in look.captions.values()),
        bucket_step=step,
        buckets=tuple(buckets),
        steps_per_epoch=sum(-(-len(each.filenames) // batch_size) for each in buckets),
        findings=tuple(findings),
    )


def _fill(look: _Look, readable: Sequence[str], resolution: int, step: int) -> dict[Bucket, list[str]]:
    filled: dict[Bucket, list[str]] = {}
    for name in readable:
        size = look.prints[name].size
        filled.setdefault(bucket_of(size.width, size.height, resolution, step), []).append(name)
    return filled


def _of_files(folder: Path, look: _Look, names: Sequence[str]) -> Iterator[Finding]:
    if not names:
        yield Finding(
            "no_images",
            "error",
            "There is no image that AI Toolkit reads (.jpg, .jpeg, .png, .webp).",
            (),
            (Action("upload-dataset", {"dataset_name": folder.name, "overwrite": True}, "Fill it.", ("images",)),),
        )
    if look.broken:
        broken = tuple(sorted(look.broken))
        told = "; ".join(f"`{name}`: {look.broken[name]}" for name in broken)
        remove = Action("delete-images", {"dataset_name": folder.name, "filenames": list(broken)}, "Remove them.")
        yield Finding("unreadable", "error", f"The trainer would leave out or stop at {told}.", broken, (remove,))
    if 0 < len(look.prints) < _FEW_IMAGES:
        few = f"{len(look.prints)} readable images are few: a LoRA of a subject wants 10 to 30 that differ."
        yield Finding("few_images", "warning", few, ())
    others = sorted(_others(folder))
    stems = {name.rpartition(".")[0] for name in names}
    orphans = tuple(name for name in others if name.endswith(".txt") and name.removesuffix(".txt") not in stems)
    if orphans:
        yield Finding("caption_without_image", "note", "Captions without an image of their name are not used.", orphans)
    unseen = tuple(name for name in others if Path(name).suffix.lower() not in _NOT_FOR_TRAINING)
    if unseen:
        kinds = ", ".join(sorted({Path(name).suffix.lower() or "no ending" for name in unseen}))
        message = f"AI Toolkit does not see {len(unseen)} of the files ({kinds}): send those that are images as PNG."
        yield Finding("not_seen", "warning", message, unseen)


def _others(folder: Path) -> Iterator[str]:
    images = set(image_files(folder))
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        # Folders that begin with `_` are the trainer's caches.
        if path.is_file() and path not in images and not any(part.startswith((".", "_")) for part in parts):
            yield "/".join(parts)


def _of_captions(folder: Path, look: _Look, names: Sequence[str], trigger_word: str | None) -> Iterator[Finding]:
    def cures(filenames: Sequence[str], why: str) -> tuple[Action, ...]:
        return tuple(
            Action("set-caption", {"dataset_name": folder.name, "filename": name}, why, ("caption",))
            for name in filenames
        )

    bad = tuple(sorted(look.bad_captions))
    if bad:
        message = "The trainer stops at captions that are no UTF-8 text."
        yield Finding("caption_not_utf8", "error", message, bad, cures(bad, "Write it again."))
    missing = tuple(name for name in names if look.captions[name] is None)
    empty = tuple(
        name for name in names if name not in bad and (text := look.captions[name]) is not None and not text.strip()
    )
    for kind, found, what in (
        ("missing_caption", missing, "have no caption"),
        ("empty_caption", empty, "have an empty one"),
    ):
        if found:
            instead = " Only the trigger word would stand for them." if trigger_word else ""
            message = f"{len(found)} of {len(names)} images {what}.{instead}"
            yield Finding(kind, "warning", message, found, cures(found, "Say what the image shows."))
    if trigger_word:
        lacking = tuple(
            name
            for name in names
            if (text := look.captions[name]) is not None
            and text.strip()
            and trigger_word not in text
            and "[trigger]" not in text
        )
        if lacking:
            put = Action(
                "create-training-config",
                {"dataset_path": folder.name, "trigger_word": trigger_word},
                "AI Toolkit then puts the trigger word before each caption that lacks it.",
                ("name", "model_name"),
            )
            message = f"The captions of {len(lacking)} images lack the trigger word `{trigger_word}`, letter by letter."
            yield Finding("trigger_word_missing", "warning", message, lacking, (put,))


def _of_twins(name: str, look: _Look, readable: Sequence[str]) -> Iterator[Finding]:
    prints = [look.prints[each] for each in readable]
    same = [[readable[index] for index in group] for group in same_groups(prints)]
    for group in same:
        kept, *rest = sorted(group, key=lambda each: (not (look.captions[each] or "").strip(), each))
        remove = Action("delete-images", {"dataset_name": name, "filenames": rest}, f"Keep `{kept}`.")
        message = f"{len(group)} files are the same image byte for byte, which weighs it {len(group)} times."
        yield Finding("duplicate", "warning", message, tuple(sorted(group)), (remove,))
    twins = {other for group in same for other in sorted(group)[1:]}
    single = [each for each in readable if each not in twins]
    for group in near_groups([look.prints[each] for each in single]):
        names = [single[index] for index in group]
        kept, *rest = sorted(names, key=lambda each: (-_pixels(look.prints[each]), each))
        why = f"If they show the same, keep `{kept}`, the largest; get-dataset has pictures to compare."
        remove = Action("delete-images", {"dataset_name": name, "filenames": rest}, why)
        yield Finding(
            "near_duplicate", "warning", f"{len(names)} images look the same.", tuple(sorted(names)), (remove,)
        )


def _of_sizes(look: _Look, readable: Sequence[str], resolutions: Sequence[int], step: int) -> Iterator[Finding]:
    turned = tuple(name for name in readable if look.prints[name].orientation != 1)
    if turned:
        message = "These lie turned in their files (EXIF); AI Toolkit turns them upright, and so do all sizes here."
        yield Finding("exif_rotated", "note", message, turned)
    largest = max(resolutions)
    small = tuple(name for name in readable if _pixels(look.prints[name]) < (_SMALL_SHARE * largest) ** 2)
    if small:
        message = (
            f"These are much smaller than {largest} x {largest} and are trained at their own size, never enlarged."
        )
        yield Finding("too_small", "warning", message, small)
    cropped = tuple(
        name
        for name in readable
        if max(_cropped(look.prints[name], each, step) for each in resolutions) > _MUCH_CROPPED
    )
    if cropped:
        message = (
            f"More than {_MUCH_CROPPED:.0%} of these is cut off to fit a bucket: they are very long or very small."
        )
        yield Finding("much_cropped", "warning", message, cropped)


def _cropped(image: ImagePrint, resolution: int, step: int) -> float:
    width, height = image.size.width, image.size.height
    return cropped_share(width, height, bucket_of(width, height, resolution, step))


def _pixels(image: ImagePrint) -> int:
    return image.size.width * image.size.height
