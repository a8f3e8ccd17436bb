"""Config documents on disk, one file each, named as the job that they make. Everything blocks."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aitk_mcp.documents import BadDocument, TrainingDocument, read_text
from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, closest
from mcp_toolserver.files import make_folder, write_now

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class StoredConfig:
    """A config on disk, read as the trainer will read it; `modified` is a Unix time in seconds."""

    name: str
    path: Path
    training: TrainingDocument
    modified: float

    @property
    def document(self) -> dict[str, Any]:
        """Return the whole document as the trainer reads it, with its placeholders filled in."""
        return dict(self.training.raw)


@dataclass(frozen=True)
class BrokenConfig:
    """A file among the configs that is none, and why."""

    name: str
    path: Path
    problem: str
    modified: float


class ConfigFiles:
    """The configs in one folder: YAML that this server wrote, and YAML or JSON that people put there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str) -> StoredConfig:
        """Return a config; raises NotFound with the closest names, InvalidArguments where its file is broken."""
        path = self.path_of(name)
        try:
            return _read(path)
        except BadDocument as error:
            raise InvalidArguments(
                f"The config `{name}` cannot be used: {error}.",
                hint=f"Correct {path}, or make it anew with create-training-config.",
                details={"field": "name", "value": name},
            ) from error

    def all(self) -> list[StoredConfig | BrokenConfig]:
        """Return every config, the latest change first."""
        found: list[StoredConfig | BrokenConfig] = []
        for name, path in self._known().items():
            try:
                found.append(_read(path))
            except BadDocument as error:
                found.append(BrokenConfig(name, path, str(error), path.stat().st_mtime))
        return sorted(found, key=lambda config: config.modified, reverse=True)

    def path_of(self, name: str) -> Path:
        """Return the file of a config; raises NotFound with the closest names."""
        known = self._known()
        if name in known:
            return known[name]
        matches = closest(name, known)
        cure = f"Did you mean `{matches[0]}`? " if matches else ""
        raise NotFound(
            f"There is no training config `{name}`.",
            hint=f"{cure}list-configs shows every config; create-training-config makes one.",
            details={"field": "name", "value": name, "closest_matches": matches},
        )

    def refuse_taken(self, name: str, text: bytes) -> None:
        """Raise Conflict where another config bears this name; the same one is no obstacle."""
        taken = self._known().get(name)
        if taken is not None and taken.read_bytes() != text:
            raise Conflict(
                f"There is another config `{name}` already.",
                hint="Send `overwrite: true` to replace it, or choose another name.",
                details={"field": "name", "value": name},
            )

    def write(self, name: str, text: bytes) -> Path:
        """Store a config in the place of any other of its name, and return its file."""
        make_folder(self.folder)
        replaced = self._known().get(name)
        path = self.folder / f"{name}.yaml"
        write_now(path, text)
        if replaced is not None and replaced != path:
            replaced.unlink()
        return path

    def _known(self) -> dict[str, Path]:
        if not self.folder.is_dir():
            return {}
        files = (path for path in self.folder.iterdir() if path.suffix in _SUFFIXES and not path.name.startswith("."))
        return {path.stem: path for path in sorted(files)}


def _read(path: Path) -> StoredConfig:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadDocument(f"it is no UTF-8 text ({error.reason})") from error
    training = read_text(text, is_json=path.suffix == ".json", environment=os.environ)
    return StoredConfig(path.stem, path, training, path.stat().st_mtime)
