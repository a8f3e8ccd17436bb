"""What the homes of datasets refuse, in the same words."""

import errno
from collections.abc import Collection, Sequence

from aitk_mcp.datasets.staging import BadUpload
from aitk_mcp.recipes.names import dataset_folder_name
from mcp_toolserver.errors import Conflict, InsufficientStorage, InvalidArguments, NotFound, closest

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def refuse_bad(bad: Sequence[BadUpload], of: int) -> None:
    """Raise InvalidArguments that names each image that cannot be stored."""
    if bad:
        raise InvalidArguments(
            f"{len(bad)} of {of} images were refused, and nothing was stored: "
            + "; ".join(f"`{each.filename}`: {each.problem}" for each in bad)
            + ".",
            hint="Correct or leave out these images, and send the whole dataset again.",
            details={
                "problems": [{"field": "images", "filename": each.filename, "message": each.problem} for each in bad]
            },
        )


def taken(folder: str) -> Conflict:
    """Return the error for a name that another dataset bears."""
    return Conflict(
        f"Dataset `{folder}` exists already.",
        hint="Send `overwrite: true` to replace all of it, or choose another name.",
        details={"dataset_name": folder},
    )


def none_left(folder: str) -> Conflict:
    """Return the error for a deletion of every image."""
    return Conflict(
        f"That would leave dataset `{folder}` without an image.",
        hint="delete-dataset removes the whole dataset.",
        details={"dataset_name": folder},
    )


def known_name(name: str, known: Collection[str]) -> str:
    """Return the dataset that is meant, by its own name or the one that it was uploaded under.

    Raises NotFound with the closest names.
    """
    # A dataset that AI Toolkit's pages or a person made may bear a name that ours never do.
    if name in known:
        return name
    folder = dataset_folder_name(name)
    if folder in known:
        return folder
    matches = closest(name, known)
    cure = f"Did you mean `{matches[0]}`? " if matches else ""
    raise NotFound(
        f"There is no dataset `{name}`.",
        hint=f"{cure}list-datasets shows what is there; upload-dataset adds one.",
        details={"dataset_name": name, "closest_matches": matches},
    )


def no_image(dataset: str, filename: str, known: Collection[str]) -> NotFound:
    """Return the error for an image that is not there, with the closest names."""
    matches = closest(filename, known)
    return NotFound(
        f"Dataset `{dataset}` has no image `{filename}`.",
        hint=f"Did you mean `{matches[0]}`?" if matches else "get-dataset lists its images.",
        details={"dataset_name": dataset, "filename": filename, "closest_matches": matches},
    )


def translated(error: OSError) -> Exception:
    """Return the error of a full disk in our words, any other as it is."""
    if error.errno in _FULL:
        return InsufficientStorage(
            "The disk of the datasets folder is full; nothing was stored.",
            hint="Free some room on the trainer's machine and try again.",
        )
    return error
