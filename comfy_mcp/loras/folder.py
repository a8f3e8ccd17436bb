"""LoRA files as they lie on disk: which there are, what each holds, and the side-cars beside them. All of it blocks.

loras/
├── people/
│   ├── anna.safetensors                  `people/anna.safetensors`, as LoraLoader's `lora_name` has it
│   ├── anna.safetensors.metadata.json    what its uploader said of it (ours)
│   └── anna.civitai.info                 what other tools said of it
└── .uploads/                             work in progress, never listed
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson

from lora_files.describe import LoraDescription, LoraSaid, describe_file
from lora_files.header import BadSafetensors
from lora_files.sidecars import SIDECAR_SUFFIXES, Said, said_in
from mcp_toolserver.files import LONGEST_NAME_BYTES, leave_no_empty_folder

SAFE_EXTENSIONS = frozenset({".safetensors", ".sft"})
PICKLE_EXTENSIONS = frozenset({".pt", ".pt2", ".pth", ".bin", ".ckpt", ".pkl"})
SUPPLIED_SUFFIX = ".metadata.json"
"""After the whole file name: what a caller supplied at upload lies in `anna.safetensors.metadata.json`."""

_LONGEST_SIDECAR_BYTES = 4 * 1024 * 1024
_SIDECAR_ENDS = (".json", ".info")
_LISTED = SAFE_EXTENSIONS | PICKLE_EXTENSIONS

_Above = tuple[tuple[int, int], ...]
"""The folders above one, by device and inode."""


class LoraFile(NamedTuple):
    """A file that LoraLoader lists; `stamp` changes when it or a side-car does, `sidecars` are the paths beside it.

    `where` is its path or, for a file on another machine (`remote`), an address that is told apart from every other.
    Size and time of such a file are None where ComfyUI does not tell them. Paths are text here, and this a
    tuple: ten thousand objects of other kinds would take longer than the rest of a scan.
    """

    name: str
    where: str
    size_bytes: int | None
    modified_s: float | None
    stamp: str
    sidecars: tuple[str, ...] = ()
    remote: bool = False

    @property
    def path(self) -> Path | None:
        """Return where the file lies, or None where that is another machine's disk."""
        return None if self.remote else Path(self.where)


@dataclass(frozen=True, slots=True)
class Examined:
    """What was read from a file: its header (or metadata alone), what stood in the way, what a caller supplied."""

    said: LoraSaid | None
    problem: str | None
    supplied: Mapping[str, Any]


def scan(folders: Sequence[Path]) -> dict[str, LoraFile]:
    """Return every LoRA by its name, in the order of names; the first folder that has a name wins, as in ComfyUI.

    Dot-files and dot-folders are left out; links are followed, but not in a circle.
    """
    found: dict[str, LoraFile] = {}
    for folder in folders:
        _walk(folder, found)
    return {name: found[name] for name in sorted(found)}


def find(folders: Sequence[Path], name: str) -> LoraFile | None:
    """Return the LoRA of exactly this name, or None; a name can not lead out of the folders."""
    parts = name.split("/")
    if any(part in ("", "..") or part.startswith(".") or "\0" in part for part in parts):
        return None
    if _extension(parts[-1]) not in _LISTED:
        return None
    for folder in folders:
        parent = folder.joinpath(*parts[:-1])
        try:
            with os.scandir(parent) as entries:
                beside = {entry.name: entry for entry in entries if entry.name.startswith(Path(parts[-1]).stem)}
        except OSError:
            # Not there, a file, closed to this user, a circle of links, a longer path than the system takes.
            continue
        entry = beside.get(parts[-1])
        if entry is not None and _is_file(entry):
            return _file(name, entry, {each: beside[each] for each in beside if each.endswith(_SIDECAR_ENDS)})
    return None


def examine(file: LoraFile) -> Examined:
    """Read what a file says of itself, and what its side-cars add; pickles are never opened."""
    path = Path(file.where)
    supplied = read_supplied(path)
    problem = pickle_problem(file.name)
    if problem is not None:
        return Examined(None, problem, supplied)
    try:
        description = describe_file(path)
    except BadSafetensors as error:
        return Examined(None, str(error), supplied)
    except OSError as error:
        return Examined(None, f"It cannot be read: {error.strerror or error}.", supplied)
    said = [said_in(supplied), *(said_in(_read_json(Path(path))) for path in file.sidecars)]
    return Examined(_with_sidecars(description, said), None, supplied)


def pickle_problem(name: str) -> str | None:
    """Say why a file of this name is never opened, or None for a name that may hold a safetensors file."""
    extension = _extension(name)
    if extension not in PICKLE_EXTENSIONS:
        return None
    return (
        f"It is a {extension} file, a format that can run code when it is opened: nothing here opens it. Convert it to"
        " .safetensors."
    )


def supplied_path(path: Path) -> Path:
    """Return where the metadata lies that a caller supplied for a file."""
    return path.with_name(path.name + SUPPLIED_SUFFIX)


def take_away(path: Path, folders: Sequence[Path]) -> None:
    """Delete a file, what was supplied with it, and the folders that are empty without it, but none of `folders`."""
    path.unlink()
    supplied = supplied_path(path)
    # What others have put there may have too long a name to have anything beside it.
    if len(os.fsencode(supplied.name)) <= LONGEST_NAME_BYTES:
        supplied.unlink(missing_ok=True)
    leave_no_empty_folder(path.parent, folders)


def read_supplied(path: Path) -> dict[str, Any]:
    """Return the metadata that a caller supplied for a file; empty where there is none."""
    return _read_json(supplied_path(path))


def _with_sidecars(description: LoraDescription, said: Sequence[Said]) -> LoraDescription:
    words = next((each.trigger_words for each in said if each.trigger_words), ())
    strength = next((each.strength for each in said if each.strength is not None), None)
    base_model = next((each.base_model for each in said if each.base_model), None)
    changes: dict[str, Any] = {}
    if words and (said[0].trigger_words or not description.trigger_words):
        changes["trigger_words"] = list(words)
    if strength is not None:
        changes["suggested_strength"] = strength
    if base_model and description.base_model is None:
        changes["base_model"] = base_model
    return description.model_copy(update=changes) if changes else description


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            value: Any = orjson.loads(file.read(_LONGEST_SIDECAR_BYTES))
    except (OSError, orjson.JSONDecodeError):
        # A side-car is a courtesy of other tools: an unreadable one takes nothing from the file itself.
        return {}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _walk(root: Path, found: dict[str, LoraFile]) -> None:
    """Add the files of a folder and those below it to `found`, where their names are not taken."""
    ahead: list[tuple[str, str, _Above]] = [(str(root), "", ())]
    while ahead:
        ahead += _walk_one(*ahead.pop(), found)


def _walk_one(folder: str, prefix: str, above: _Above, found: dict[str, LoraFile]) -> list[tuple[str, str, _Above]]:
    """Add the files of one folder to `found`; return the folders in it, each with its prefix and what is above it."""
    try:
        state = Path(folder).stat()
        with os.scandir(folder) as listing:
            entries = {entry.name: entry for entry in listing if _is_shown(entry.name)}
    except OSError:
        # A folder that vanished or is closed to this user: the others are still worth listing.
        return []
    here = (state.st_dev, state.st_ino)
    if here in above:
        return []
    inner: list[tuple[str, str, _Above]] = []
    beside = {name: entry for name, entry in entries.items() if name.endswith(_SIDECAR_ENDS)}
    for name, entry in entries.items():
        if (name.endswith(".safetensors") or _extension(name) in _LISTED) and _is_file(entry):
            if prefix + name not in found:
                file = _file(prefix + name, entry, beside)
                if file is not None:
                    found[prefix + name] = file
        elif _is_folder(entry):
            inner.append((entry.path, f"{prefix}{name}/", (*above, here)))
    return inner


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:
        # A link that leads to itself.
        return False


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_shown(name: str) -> bool:
    # A name that is no UTF-8 reaches Python as lone surrogates (U+DC80 and on), which no JSON can carry.
    return not name.startswith(".") and (name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name))


def _extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return f".{extension}".lower() if dot and stem else ""


def _file(name: str, entry: "os.DirEntry[str]", beside: "Mapping[str, os.DirEntry[str]]") -> LoraFile | None:
    """Return a file as it is now, or None where it was deleted, or became out of reach, since its folder was read."""
    try:
        state = entry.stat()
    except OSError:
        return None
    stamp = f"{state.st_size}:{state.st_mtime_ns}"
    sidecars: tuple[str, ...] = ()
    if beside:
        stem = entry.name.rpartition(".")[0]
        names = (entry.name + SUPPLIED_SUFFIX, *(stem + suffix for suffix in SIDECAR_SUFFIXES))
        changed = [(beside[each], _changed_ns(beside[each])) for each in names if each in beside]
        found = [(each, changed_ns) for each, changed_ns in changed if changed_ns is not None]
        stamp = ":".join((stamp, *(f"{each.name}={changed_ns}" for each, changed_ns in found)))
        sidecars = tuple(each.path for each, _ in found if each.name != names[0])
    return LoraFile(name, entry.path, state.st_size, state.st_mtime, stamp, sidecars)


def _changed_ns(entry: "os.DirEntry[str]") -> int | None:
    try:
        return entry.stat().st_mtime_ns
    except OSError:
        return None
