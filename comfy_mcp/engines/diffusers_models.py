"""Find the diffusers models that lie on this disk, best family first. Nothing here imports torch; all of it blocks."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfy_mcp.workflows.graphs import is_object

# Best first: what a fallback takes where no model is named.
_FAMILIES = {"FluxPipeline": "flux", "StableDiffusionXLPipeline": "sdxl", "StableDiffusionPipeline": "sd15"}
_BEST_FIRST = tuple(_FAMILIES.values())
# Activations and the decoded picture come on top of the weights.
_ROOM = 1.25
# A CPU computes in float32, and most files hold half of that.
_ROOM_AS_FLOATS = 2.25
_WEIGHTS = ".safetensors"


@dataclass(frozen=True, slots=True)
class DiffusersModel:
    """A folder with a `model_index.json`; `size_bytes` is that of its safetensors files."""

    name: str
    path: Path
    family: str
    size_bytes: int

    def needed_bytes(self, *, on_gpu: bool) -> int:
        """Return the memory that rendering takes, by rule of thumb."""
        return int(self.size_bytes * (_ROOM if on_gpu else _ROOM_AS_FLOATS))


def models_in(folders: Iterable[Path]) -> tuple[DiffusersModel, ...]:
    """Return the models in folders, best family first, then by name; of two with one name, the earlier folder's.

    Folders without safetensors weights are left out: pickles are never opened.
    """
    found: dict[str, DiffusersModel] = {}
    for folder in folders:
        for index in sorted(folder.glob("*/model_index.json")):
            model = _read(index)
            if model is not None:
                found.setdefault(model.name, model)
    return tuple(sorted(found.values(), key=lambda model: (_BEST_FIRST.index(model.family), model.name)))


def best_that_fits(models: Sequence[DiffusersModel], free_bytes: int, *, on_gpu: bool) -> DiffusersModel | None:
    """Return the first model whose needs fit into free memory, or None."""
    return next((model for model in models if model.needed_bytes(on_gpu=on_gpu) <= free_bytes), None)


def _read(index: Path) -> DiffusersModel | None:
    try:
        said = json.loads(index.read_bytes())
        size_bytes = sum(path.stat().st_size for path in index.parent.glob(f"*/*{_WEIGHTS}"))
    except (OSError, ValueError):
        return None
    family = _FAMILIES.get(str(said.get("_class_name"))) if is_object(said) else None
    if family is None or not size_bytes:
        return None
    return DiffusersModel(index.parent.name, index.parent, family, size_bytes)
