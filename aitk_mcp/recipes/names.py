"""Names of datasets and jobs, as AI Toolkit takes them."""

import re

from mcp_toolserver.errors import InvalidArguments

_NOT_IN_DATASET_NAMES = re.compile(r"[^a-z0-9]+")
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")
_NOT_IN_JOB_NAMES = re.compile(r"[^A-Za-z0-9_.\-]+")

# What AI Toolkit 0.12 writes into a job's folder under names of its own.
_BESIDE_CHECKPOINTS = (
    "config.yaml",
    "optimizer.pt",
    "loss_log.db",
    "learnable_snr.json",
    "log.txt",
    "pid.txt",
    "samples",
)
# Where a path holds one of these and the job's name does not, AI Toolkit passes it over when it looks for checkpoints.
_PASSED_OVER = ("_LoRA", "_refiner", "_t2i", "_cn")


def dataset_folder_name(name: str) -> str:
    """Return the folder name that AI Toolkit gives a dataset: lower case, anything but a-z and 0-9 becomes `_`.

    Raises InvalidArguments when nothing but separators is left, since AI Toolkit deletes by such names the folder
    of all datasets.
    """
    folder = _NOT_IN_DATASET_NAMES.sub("_", name.lower())
    if not folder.strip("_"):
        raise InvalidArguments(
            f"`dataset_name` is {name!r}: it holds no letter a-z and no digit.",
            hint="Name the dataset with letters and digits, such as `pixel_cat`.",
            details={"field": "dataset_name", "value": name},
        )
    if len(folder) > 100:
        raise InvalidArguments(
            f"`dataset_name` has {len(folder)} characters; at most 100 are allowed.",
            details={"field": "dataset_name", "value": name},
        )
    return folder


def check_job_name(name: str) -> str:
    """Return `name` if a config and its output files can bear it; raises InvalidArguments with one that can.

    The name becomes a folder, the stem of every checkpoint and, on resume, a glob pattern, so that separators,
    brackets and stars would lose files.
    """
    if _JOB_NAME.fullmatch(name) and not name.endswith("."):
        return name
    suggestion = _NOT_IN_JOB_NAMES.sub("_", name).strip("._-")[:100]
    raise InvalidArguments(
        f"`name` is {_shown(name)}: a job is named with letters, digits, `_`, `-` and `.`, a letter or digit first,"
        " of at most 100 characters.",
        hint=f"Use `{suggestion}`." if suggestion else "Use a name such as `pixel_cat_v1`.",
        details={"field": "name", "value": name, "closest_matches": [suggestion] if suggestion else []},
    )


def _shown(name: str) -> str:
    return repr(name) if len(name) <= 120 else f"{name[:117]!r}…"


def check_training_name(name: str) -> str:
    """Return `name` if AI Toolkit trains under it; raises InvalidArguments with one that it does."""
    check_job_name(name)
    mistaken = mistaken_for_checkpoint(name)
    if mistaken is None:
        return name
    raise InvalidArguments(
        f"`name` is {name!r}: AI Toolkit would take its own file `{mistaken}` for a checkpoint of that job, and fail.",
        hint=f"Use `{name}_lora`.",
        details={"field": "name", "value": name, "closest_matches": [f"{name}_lora"]},
    )


def mistaken_for_checkpoint(name: str) -> str | None:
    """Return which file AI Toolkit would resume a job of this name from, though it is no checkpoint; None if none.

    It goes on from the newest file that begins with the job's name: for `c`, that is `config.yaml`.
    """
    return next((file for file in _BESIDE_CHECKPOINTS if file.startswith(name.lower())), None)


def doubt_of_outputs(outputs_folder: str, name: str) -> str | None:
    """Say why AI Toolkit would not find this job's checkpoints below a folder again, None where it would."""
    part = next((part for part in _PASSED_OVER if part in outputs_folder and part not in name), None)
    if part is None:
        return None
    return (
        f"AI Toolkit overlooks checkpoints below {outputs_folder}, because `{part}` is in the path and not in the name:"
        f" a resumed training begins at step 0. Put `{part}` into the name, or keep outputs elsewhere."
    )
