"""Puts tinyflux's weights where the loader nodes look for them."""

import filecmp
import os
import shutil
from pathlib import Path
from uuid import uuid4

from comfy_mcp.embedded.folders import Folders
from tinyflux import weights_path

CHECKPOINT = "models/checkpoints/tinyflux-base.safetensors"

# The same file once more for each part of a graph that loads model, text encoders and VAE one by one.
PARTS = (
    "models/diffusion_models/tinyflux-base.safetensors",
    "models/text_encoders/tinyflux-clip_l.safetensors",
    "models/text_encoders/tinyflux-t5xxl.safetensors",
    "models/vae/tinyflux-ae.safetensors",
)


def place_weights(folders: Folders) -> None:
    """Copy the packaged weights into the folders, replacing those of an older package."""
    # A copy, and not a link to the package: what writes into a model folder must not reach the package.
    checkpoint = folders.root / CHECKPOINT
    if not _is_same(weights_path(), checkpoint):
        part = _part_of(checkpoint)
        shutil.copyfile(weights_path(), part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(checkpoint)
    for name in PARTS:
        _link(checkpoint, folders.root / name)


def _link(source: Path, target: Path) -> None:
    if _is_same(source, target):
        return
    part = _part_of(target)
    try:
        part.hardlink_to(source)
    except OSError:
        # Some file systems have no hard links.
        shutil.copyfile(source, part)
    part.replace(target)
    # Where both were one file already, replacing does nothing.
    part.unlink(missing_ok=True)


def _part_of(target: Path) -> Path:
    # A name of its own: two servers on one folder may start at once.
    return target.with_suffix(f".{uuid4().hex}.part")


def _is_same(source: Path, target: Path) -> bool:
    return target.is_file() and (source.samefile(target) or filecmp.cmp(source, target, shallow=False))
