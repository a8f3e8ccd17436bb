"""Hold the frozen weights of tinyflux and answer with velocities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tinyflux.adapters import TARGET_SHAPES, Lora
from tinyflux.linears import Linears
from tinyflux.network import Inputs, forward
from tinyflux.operations import F32
from tinyflux.tensor_files import read_tensors
from tinyflux.text import TextConditioning

ARCHITECTURE = "tinyflux-1"
_PACKAGE = Path(__file__).resolve().parent


def weights_path() -> Path:
    """Return the base weights that ship with the package."""
    return _PACKAGE / "weights" / "tinyflux-base.safetensors"


def sample_dataset_path() -> Path:
    """Return the folder of the sample dataset: 12 pictures of one cat, each with a caption beside it."""
    return _PACKAGE / "sample_dataset"


class TinyFlux:
    """Predict velocities with weights that nothing changes; a LoRA gives a new model."""

    def __init__(self, tensors: Mapping[str, F32], metadata: Mapping[str, str] | None = None) -> None:
        """Take tensors by their names in diffusers' FLUX."""
        self.tensors: Mapping[str, F32] = dict(tensors)
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self._linears = Linears(self.tensors)

    @classmethod
    def load(cls, path: Path) -> TinyFlux:
        """Read a weights file; raise ValueError where it is not one of tinyflux."""
        tensors, metadata = read_tensors(path)
        architecture = metadata.get("modelspec.architecture")
        if architecture != ARCHITECTURE:
            found = f"it says {architecture!r}" if architecture else "it does not name its architecture"
            raise ValueError(f"{path.name} holds no tinyflux weights: {found}, not {ARCHITECTURE!r}")
        for name, shape in TARGET_SHAPES.items():
            tensor = tensors.get(f"{name}.weight")
            if tensor is None or tensor.shape != shape:
                found = "missing" if tensor is None else f"{tensor.shape}"
                raise ValueError(f"{path.name} holds no tinyflux weights: {name}.weight is {found}, not {shape}")
        return cls(tensors, metadata)

    def velocity(
        self,
        latents: F32,
        sigma: float | F32,
        text: Sequence[TextConditioning] | TextConditioning,
        guidance: float | F32 = 3.5,
    ) -> F32:
        """Return noise minus picture (B, 64, 48) for latents at sigma; one sigma, text or guidance serves all."""
        return forward(self._linears, Inputs.of(latents, sigma, text, guidance))[0]

    def with_loras(self, loras: Sequence[tuple[Lora, float]]) -> TinyFlux:
        """Return a model with LoRAs merged at their strengths; at strength 0 its pictures are the same to the bit."""
        tensors = dict(self.tensors)
        for lora, strength in loras:
            if strength == 0.0:
                continue
            for module in lora.modules:
                down, up, scale = lora.pair(module)
                name = f"{module}.weight"
                tensors[name] = np.float32(strength * scale) * (up @ down) + tensors[name]
        return TinyFlux(tensors, self.metadata)
