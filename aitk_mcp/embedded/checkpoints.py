"""Save, prune and find again what a training has learned, as AI Toolkit does.

The files are AI Toolkit's, but for `optimizer.npz`, which stands for its `optimizer.pt`: a numpy archive, for numpy
is what reads it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from aitk_mcp.documents import TrainingDocument
from aitk_mcp.embedded.recipe import BASE_MODEL, Recipe
from aitk_mcp.trainers.output_folder import read_checkpoints
from mcp_toolserver import __version__
from tinyflux import Lora, TrainerState

_SOFTWARE = {"name": "loraloop-embedded-trainer", "version": __version__}
# Where the hash of the web UI's first days looks: 64 KiB after the first MiB.
_LEGACY_START, _LEGACY_BYTES = 0x100000, 0x10000


@dataclass(frozen=True)
class Resumed:
    """What a run goes on from."""

    lora: Lora
    state: Mapping[str, NDArray[np.float32]]
    step: int
    epoch: int


class Checkpoints:
    """The saved files of one job."""

    def __init__(self, folder: Path, document: TrainingDocument, recipe: Recipe) -> None:
        self._folder, self._document, self._recipe = folder, document, recipe

    @property
    def _optimizer(self) -> Path:
        return self._folder / "optimizer.npz"

    def save(self, lora: Lora, state: TrainerState, *, step: int, epoch: int, final: bool = False) -> Path:
        """Save the LoRA after `step` steps, and what the optimizer remembers; delete what is too old."""
        name = self._document.name if final else f"{self._document.name}_{step:09d}"
        path = self._folder / f"{name}.safetensors"
        dtype = np.float32 if self._recipe.save.dtype == "float32" else np.float16
        lora.save(path, self._metadata(lora, dtype, step, epoch), dtype)
        print(f"Saved checkpoint to {path}")
        part = self._folder / ".optimizer.npz.part"
        with part.open("wb") as file:
            # A type checker takes the arrays for savez's other parameters.
            arrays: dict[str, NDArray[np.float32]] = dict(state)
            np.savez(file, allow_pickle=False, **arrays)
        part.replace(self._optimizer)
        print(f"Saved optimizer to {self._optimizer}")
        self._prune()
        return path

    def resume(self) -> Resumed | None:
        """Return the newest checkpoint, as AI Toolkit finds it, or None where there is none."""
        found = [entry.path for entry in read_checkpoints(self._folder, self._document.name)]
        if not found:
            return None
        path = max(found, key=lambda file: file.stat().st_mtime_ns)
        print(f"#### IMPORTANT RESUMING FROM {path} ####")
        print(f"Loading from {path}")
        lora = Lora.load(path)
        training_info = json.loads(lora.metadata.get("training_info", "{}"))
        step, epoch = int(training_info.get("step", 0)), int(training_info.get("epoch", 0))
        print(f"Found step {step} in metadata, starting from there")
        return Resumed(lora, self._state(), step, epoch)

    def _state(self) -> dict[str, NDArray[np.float32]]:
        if not self._optimizer.exists():
            return {}
        print(f"Loading optimizer state from {self._optimizer}")
        with np.load(self._optimizer, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    def _prune(self) -> None:
        numbered = [entry.path for entry in read_checkpoints(self._folder, self._document.name) if not entry.final]
        for path in numbered[: -self._recipe.save.keep]:
            print(f"Removing old save: {path}")
            path.unlink()

    def _metadata(self, lora: Lora, dtype: type[np.floating], step: int, epoch: int) -> dict[str, str]:
        """Return AI Toolkit's metadata, and beyond it which engine and base model these are."""
        trigger = self._document.trigger_word
        values: dict[str, object] = {
            **self._document.meta,
            "training_info": {"step": step, "epoch": epoch},
            "software": _SOFTWARE,
            "ss_base_model_version": self._recipe.base_model_version,
            "ss_output_name": self._document.name,
            **({"ss_tag_frequency": {f"1_{trigger}": {trigger: 1}}} if trigger else {}),
            "engine": "embedded",
            "base_model": BASE_MODEL,
        }
        metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        content = save(
            {key: np.asarray(tensor, dtype) for key, tensor in lora.tensors.items()},
            {key: value for key, value in metadata.items() if key.startswith("ss_")},
        )
        data_start = 8 + int.from_bytes(content[:8], "little")
        legacy = content[_LEGACY_START : _LEGACY_START + _LEGACY_BYTES]
        return {
            **metadata,
            "format": "pt",
            "sshs_model_hash": hashlib.sha256(content[data_start:]).hexdigest(),
            "sshs_legacy_hash": hashlib.sha256(legacy).hexdigest()[:8],
        }
