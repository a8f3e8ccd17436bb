"""Read, and delete, what a training leaves in its output folder.

<training_folder>/<name>/
  <name>_000000250.safetensors        a checkpoint; Wan 2.2 adds _high_noise and _low_noise
  <name>.safetensors                  the final one
  samples/<ms>__<step>_<prompt>.jpg
  loss_log.db  config.yaml  optimizer.pt
"""

import json
import math
import re
import shutil
from pathlib import Path
from uuid import uuid4

from aitk_mcp.trainers.port import Checkpoint, Sample
from lora_files.header import BadSafetensors, read_header

_BESIDE_MODELS = (
    *("samples", "loss_log.db", "loss_log.db-wal", "loss_log.db-shm", "optimizer.pt", "optimizer.npz"),
    *("logs", "log.txt", "pid.txt", ".job_config.json"),
)
_SAMPLE = re.compile(r"^\d+__(?P<step>\d+)_(?P<index>\d+)\.(?:jpe?g|png|webp|mp4)$", re.IGNORECASE)


def read_checkpoints(folder: Path, name: str) -> list[Checkpoint]:
    """Return the saved LoRAs of a job, oldest step first; the final one after a numbered one of the same step."""
    pattern = re.compile(re.escape(name) + r"(?:_(?P<step>\d{9}))?(?:_(?:high|low)_noise)?\.safetensors")
    found: list[Checkpoint] = []
    for path in folder.glob("*.safetensors"):
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        try:
            step = int(match["step"]) if match["step"] else _step_in(path)
            found.append(Checkpoint(path, step, path.stat().st_size, final=match["step"] is None))
        except FileNotFoundError:
            # The trainer deletes its oldest checkpoint at this moment.
            continue
    return sorted(
        found, key=lambda entry: (math.inf if entry.step is None else entry.step, entry.final, entry.path.name)
    )


def read_samples(folder: Path) -> list[Sample]:
    """Return the pictures of a job, oldest first."""
    samples: list[tuple[str, Sample]] = []
    for path in (folder / "samples").glob("*"):
        match = _SAMPLE.match(path.name)
        if match:
            samples.append((path.name, Sample(path, int(match["step"]), int(match["index"]))))
    return [sample for _, sample in sorted(samples, key=lambda entry: (entry[1].step, entry[1].prompt_index, entry[0]))]


def delete_outputs(folder: Path, *, models: bool) -> None:
    """Delete what trainings left in a folder: all of it where `models` is set, or where they saved no LoRA.

    Otherwise the LoRAs stay, with the config that tells how they were made, and whatever no trainer writes.
    """
    if not folder.is_dir():
        return
    if models or not any(folder.glob("*.safetensors")):
        # Out of sight first: a reader finds the folder whole or not at all.
        gone = folder.with_name(f".{folder.name}.{uuid4().hex}.part")
        folder.rename(gone)
        shutil.rmtree(gone)
        return
    for name in _BESIDE_MODELS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _step_in(path: Path) -> int | None:
    try:
        info = json.loads(read_header(path).metadata.get("training_info", "{}"))
    except (BadSafetensors, json.JSONDecodeError):
        return None
    step = info.get("step")
    return step if isinstance(step, int) else None
