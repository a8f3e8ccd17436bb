"""What AI Toolkit knows of each architecture: its complete default document, read from one table."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, cast

from pydantic import TypeAdapter

Process = dict[str, Any]


def read_table(name: str) -> dict[str, Any]:
    """Return a JSON table that lies beside this module."""
    return json.loads(files("aitk_mcp.recipes").joinpath(name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Architecture:
    """Hold one row of the table: what this architecture sets, and what it leaves out, of the common document.

    `group` is image, instruction (edits pairs of images), video, audio or experimental. Keys of `set` and `unset`
    are dotted paths; `datasets` means the first dataset.
    """

    id: str
    label: str
    group: str
    backend_arch: str
    name_or_path: str
    gated: bool = False
    set: Mapping[str, Any] = field(default_factory=dict[str, Any])
    unset: tuple[str, ...] = ()


_TABLE = read_table("architectures.json")
SOURCE: str = _TABLE["source"]
ARCHITECTURES = TypeAdapter(dict[str, Architecture]).validate_python(
    {id: {"id": id, **row} for id, row in _TABLE["architectures"].items()}
)


def default_process(architecture: Architecture) -> Process:
    """Return a fresh `config.process[0]` with the defaults of an architecture, as AI Toolkit's own pages make it.

    `training_folder`, `datasets[0].folder_path` and `sample.samples` are left empty for the caller.
    """
    process: Process = deepcopy(_TABLE["process"])
    process["datasets"] = [process["datasets"]]
    put(process, "model.arch", architecture.id)
    put(process, "model.name_or_path", architecture.name_or_path)
    for path in architecture.unset:
        section, _, key = path.rpartition(".")
        section_of(process, section).pop(key, None)
    for path, value in architecture.set.items():
        put(process, path, value)
    return process


def section_of(process: Process, path: str) -> dict[str, Any]:
    """Return the object at a dotted path, made where it is missing; `datasets` is the first dataset."""
    found = process
    for part in path.split(".") if path else ():
        inner: Any = found.setdefault(part, {})
        found = cast(list[dict[str, Any]], inner)[0] if isinstance(inner, list) else cast(dict[str, Any], inner)
    return found


def put(process: Process, path: str, value: Any) -> None:
    """Set the value at a dotted path."""
    section, _, key = path.rpartition(".")
    section_of(process, section)[key] = deepcopy(value)
