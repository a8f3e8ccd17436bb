"""Where an uploaded file goes, and which name it gets."""

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that came in, and where its sender wants it."""

    content: BinaryIO
    filename: str
    folder_type: str
    subfolder: str
    overwrite: bool
    original_ref: str


def place(content: BinaryIO, directory: Path, filename: str, *, overwrite: bool) -> str:
    """Store a file whole and return the name that it got.

    The same bytes under the same name are stored once; other bytes become `a (1).png`, unless `overwrite` is set.
    """
    name, number = filename, 0
    while not overwrite and (directory / name).exists():
        if _same(content, directory / name):
            return name
        number += 1
        name = f"{Path(filename).stem} ({number}){Path(filename).suffix}"
    part = directory / f".{name}.{secrets.token_hex(4)}.part"
    content.seek(0)
    with part.open("wb") as file:
        shutil.copyfileobj(content, file, _CHUNK_BYTES)
        file.flush()
        os.fsync(file.fileno())
    part.replace(directory / name)
    return name


def _same(content: BinaryIO, path: Path) -> bool:
    content.seek(0)
    with path.open("rb") as known:
        while True:
            ours, theirs = content.read(_CHUNK_BYTES), known.read(_CHUNK_BYTES)
            if ours != theirs:
                return False
            if not ours:
                return True
