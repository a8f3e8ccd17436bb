"""Names of datasets and jobs, as AI Toolkit takes them."""

import re

from mcp_toolserver.errors import InvalidArguments

_NOT_IN_DATASET_NAMES = re.compile(r"[^a-z0-9]+")
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")
_NOT_IN_JOB_NAMES = re.compile(r"[^A-Za-z0-9_.\-]+")


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
        f"`name` is {name!r}: a job is named with letters, digits, `_`, `-` and `.`, a letter or digit first.",
        hint=f"Use `{suggestion}`." if suggestion else "Use a name such as `pixel_cat_v1`.",
        details={"field": "name", "value": name, "closest_matches": [suggestion] if suggestion else []},
    )
