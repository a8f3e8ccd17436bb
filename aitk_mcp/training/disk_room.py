"""Whether the disk has room for what a training saves."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aitk_mcp.recipes.resources import complete, disk_of, lora_of
from mcp_toolserver.errors import InsufficientStorage

# Of the embedded engine, whose LoRAs are small, and of models whose size is not known.
_LEAST_BYTES = 32 * 1024**2
_MIB = 1024**2


def free_bytes_below(folder: Path) -> int:
    """Return how much may be written to a folder, which need not be there yet; blocks."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def check_room(process: Mapping[str, Any], folder: Path, free_bytes: int, *, is_miniature: bool) -> str | None:
    """Return a warning where a training may fill the disk of its output folder, None where there is room enough.

    Raises InsufficientStorage where not even one LoRA has room: the training could only be lost.
    """
    whole = complete(process)
    lora_bytes = None if is_miniature else lora_of(whole).bytes
    least_bytes = max(_LEAST_BYTES, lora_bytes or 0)
    if free_bytes < least_bytes:
        raise InsufficientStorage(
            f"The disk of {folder} has {free_bytes // _MIB} MiB free, and one saved LoRA of this training takes about"
            f" {least_bytes // _MIB} MiB; nothing was started.",
            hint="Delete old models (delete-model, delete-training-job) or datasets, then call again.",
            details={"folder": str(folder), "free_bytes": free_bytes, "needed_bytes": least_bytes},
        )
    wanted_bytes = disk_of(whole, lora_bytes, 0) if lora_bytes else 0
    if free_bytes >= wanted_bytes:
        return None
    return (
        f"The disk of {folder} has {free_bytes // _MIB} MiB free, and this training leaves about"
        f" {wanted_bytes // _MIB} MiB with its checkpoints: keep fewer of them (max_step_saves_to_keep), or make room."
    )
