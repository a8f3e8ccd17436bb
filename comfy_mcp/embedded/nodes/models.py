"""The model files in memory, and the values that travel along a graph's links.

MODEL           Model: tinyflux weights with LoRAs still beside them
CLIP, VAE       TextEncoder, PixelSpace: tinyflux needs no weights for either
CONDITIONING    list of (TextConditioning, settings), as in ComfyUI
LATENT          Latents: what the model works on, and the size in pixels that was asked for
IMAGE           Pictures: bytes, and how they came to be
MASK            numbers (B, H, W) from 0, kept, to 1, changed
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from lora_files.header import BadSafetensors, read_header
from tinyflux import ARCHITECTURE, IMAGE_SIZE, TARGET_SHAPES, Lora, TextConditioning, TinyFlux
from tinyflux.adapters import PREFIX, read_tensors

log = logging.getLogger(__name__)

Conditioning = list[tuple[TextConditioning, dict[str, Any]]]

RENDERED_SIZE_PX = IMAGE_SIZE


@dataclass(frozen=True, slots=True)
class Model:
    """Weights, and the LoRAs that the sampler will merge into them, each with its strength."""

    base: TinyFlux
    loras: tuple[tuple[Lora, float], ...] = ()

    def with_lora(self, lora: Lora | None, strength: float) -> "Model":
        """Add a LoRA behind those that are there; None, a file without a fitting layer, adds nothing."""
        return self if lora is None else replace(self, loras=(*self.loras, (lora, strength)))

    def merged(self) -> TinyFlux:
        """Return the weights with every LoRA merged in."""
        return self.base.with_loras(self.loras) if self.loras else self.base


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Tinyflux hashes words instead of reading them with a text model."""


@dataclass(frozen=True, slots=True)
class PixelSpace:
    """Tinyflux packs pixels by a change of basis instead of a VAE."""


@dataclass(frozen=True, slots=True)
class Latents:
    """Packed pictures (B, 64, 48) of 32 x 32 pixels, and the size in pixels that decoding scales them to.

    `mask` (B or 1, 32, 32, 1) is 1 where sampling may change the picture, and None where it may everywhere.
    """

    samples: NDArray[np.float32]
    width_px: int
    height_px: int
    mask: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures (B, H, W, 3) as bytes; `origin` says how they were made, when that was by this engine."""

    pixels: NDArray[np.uint8]
    origin: str | None = None


@dataclass(slots=True)
class LoadedModels:
    """The model files in memory.

    Unlike ComfyUI, which keeps the old weights of an overwritten LoRA until /free, a file whose size or time of change
    is new is read again.
    """

    _flux: dict[Path, tuple[str, TinyFlux]] = field(default_factory=dict[Path, tuple[str, TinyFlux]])
    _loras: dict[Path, tuple[str, Lora | None]] = field(default_factory=dict[Path, tuple[str, Lora | None]])

    def flux(self, path: Path) -> TinyFlux:
        """Load tinyflux weights; RuntimeError says why another file cannot be rendered with."""
        stamp = file_stamp(path)
        known = self._flux.get(path)
        if known is None or known[0] != stamp:
            require_tinyflux(path)
            known = self._flux[path] = (stamp, TinyFlux.load(path))
        return known[1]

    def lora(self, path: Path) -> Lora | None:
        """Load the layers of a LoRA that fit tinyflux, None when none does; the others are named in the log.

        Raises SafetensorError for a file that is broken or something else.
        """
        stamp = file_stamp(path)
        known = self._loras.get(path)
        if known is None or known[0] != stamp:
            known = self._loras[path] = (stamp, _fitting_layers(path))
        return known[1]

    def forget(self) -> None:
        """Drop every file from memory."""
        self._flux.clear()
        self._loras.clear()


def file_stamp(path: Path) -> str:
    """Name the state of a file by its size and its time of change."""
    state = path.stat()
    return f"{state.st_size}-{state.st_mtime_ns}"


def require_tinyflux(path: Path) -> None:
    """Raise RuntimeError unless the file holds tinyflux weights; only its header is read, for it may be huge."""
    try:
        found = read_header(path).metadata.get("modelspec.architecture")
    except BadSafetensors as error:
        raise RuntimeError(f"Could not load {path.name}: it is no readable safetensors file. {error}") from error
    if found != ARCHITECTURE:
        said = f"says that it is {found!r}" if found else "does not say what it is"
        raise RuntimeError(
            f"Could not load {path.name}: the embedded engine renders only {ARCHITECTURE} weights, and this file"
            f" {said}. Use tinyflux-base.safetensors, or connect a real ComfyUI."
        )


def _fitting_layers(path: Path) -> Lora | None:
    try:
        header = read_header(path)
    except BadSafetensors as error:
        # The type by which ComfyUI's users know this failure.
        raise SafetensorError(str(error)) from error
    fitting: set[str] = set()
    recognised: set[str] = set()
    for module, (wide, narrow) in TARGET_SHAPES.items():
        down, up, alpha = (f"{PREFIX}{module}.{part}" for part in ("lora_A.weight", "lora_B.weight", "alpha"))
        if not {down, up} <= header.tensors.keys():
            continue
        recognised |= {down, up, alpha}
        shapes = header.tensors[down].shape, header.tensors[up].shape
        if shapes == ((shapes[0][0], narrow), (wide, shapes[0][0])):
            fitting |= {down, up, alpha} & header.tensors.keys()
        else:
            log.warning("ERROR lora %s shapes %s do not fit %s", module, shapes, (wide, narrow))
    for key in sorted(header.tensors.keys() - recognised):
        log.warning("lora key not loaded: %s", key)
    if not fitting:
        return None
    tensors, metadata = read_tensors(path)
    return Lora({key: tensors[key] for key in fitting}, metadata)
