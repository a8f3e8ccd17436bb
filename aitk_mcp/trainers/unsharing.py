"""Give a job files of its own, so that what it overwrites is not also somebody else's. Everything here blocks.

A LoRA that was imported elsewhere on the same disk may be a hard link to the trainer's file, and AI Toolkit overwrites
its files in place.
"""

import os
import shutil
from pathlib import Path
from uuid import uuid4

from mcp_toolserver.files import sync_directory


def unshare(folder: Path) -> list[Path]:
    """Replace every LoRA of a folder that has further names by a copy of the same time; returns those.

    The time stays, since a job goes on from its newest file. Raises OSError, and leaves that file as it was.
    """
    shared = [path for path in sorted(folder.glob("*.safetensors")) if path.is_file() and path.stat().st_nlink > 1]
    for path in shared:
        part = path.with_name(f".{uuid4().hex}.part")
        try:
            shutil.copy2(path, part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    if shared:
        sync_directory(folder)
    return shared
