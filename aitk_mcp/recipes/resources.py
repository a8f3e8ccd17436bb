"""What a training takes of a GPU and of a disk: rules of thumb, each with the words to say so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from aitk_mcp.recipes.architectures import ARCHITECTURES, read_table

_BILLIONS: dict[str, float] = read_table("model_sizes.json")["billions"]
_GIB = 1024**3
# CUDA itself, the VAE, and the encoded captions.
_FIXED_BYTES = 3 * _GIB
# What gradient checkpointing leaves of the activations, for a model of 1 billion parameters at 512 x 512.
_ACTIVATION_BYTES = _GIB // 4
_WITHOUT_CHECKPOINTING = 5
# A LoRA over every attention and feed-forward layer, in 16 bits; 12 billion parameters at rank 16 come to 170 MB.
_LORA_BYTES_PER_RANK_AND_BILLION = 900_000
_LATENT_BYTES_PER_PIXEL = 0.5
_SAMPLE_BYTES_PER_PIXEL = 0.2


@dataclass(frozen=True)
class Amount:
    """A number of bytes, None where nothing is known, and what it is based on."""

    bytes: int | None
    based_on: str


def complete(process: Mapping[str, Any]) -> dict[str, Any]:
    """Return a process, which may have been written by hand, with every section that is read here."""
    sections: dict[str, Any] = {
        name: process.get(name) or {} for name in ("train", "model", "network", "save", "sample")
    }
    return {**process, **sections, "datasets": process.get("datasets") or [{}]}


def vram_of(process: Mapping[str, Any]) -> Amount:
    """Return the GPU memory that a process needs, to about a fourth."""
    train, model = process["train"], process["model"]
    billions = _billions(str(model.get("arch")))
    if billions is None:
        return Amount(None, f"nothing: the size of `{model.get('arch')}` is not known here")
    weights = billions * 1e9 * (1 if model.get("quantize") else 2)
    pixels = max(_resolutions(process)) ** 2 * max(1, int(process["datasets"][0].get("num_frames") or 1))
    checkpointing = 1 if train.get("gradient_checkpointing") else _WITHOUT_CHECKPOINTING
    activations = _ACTIVATION_BYTES * billions**0.5 * pixels / 512**2 * int(train.get("batch_size", 1)) * checkpointing
    kind = "8-bit" if model.get("quantize") else "16-bit"
    return Amount(
        int(weights + _FIXED_BYTES + activations),
        f"a rule of thumb, to about a fourth: {billions:g} billion {kind} parameters, and the activations of"
        f" {max(_resolutions(process))} px at batch {train.get('batch_size', 1)}; FLUX.1 and Flex.1 were seen to take"
        " 16 to 20 GB at 512 px",
    )


def lora_of(process: Mapping[str, Any]) -> Amount:
    """Return the size of one saved LoRA."""
    billions, rank = _billions(str(process["model"].get("arch"))), int(process["network"].get("linear") or 0)
    if billions is None:
        return Amount(None, f"nothing: the size of `{process['model'].get('arch')}` is not known here")
    number_bytes = 2 if str(process["save"].get("dtype")) in ("fp32", "float32", "float") else 1
    size = int(_LORA_BYTES_PER_RANK_AND_BILLION * billions * rank * number_bytes)
    return Amount(size, f"a rule of thumb for rank {rank} of a model of {billions:g} billion parameters")


def disk_of(process: Mapping[str, Any], lora_bytes: int, images: int) -> int:
    """Return what a training leaves and needs on disk: checkpoints, the optimizer's state, samples, cached latents."""
    train, save, sample = process["train"], process["save"], process["sample"]
    steps = int(train.get("steps", 1000))
    every, kept = int(save.get("save_every") or steps), int(save.get("max_step_saves_to_keep") or 1)
    checkpoints = min(kept, (steps - 1) // max(1, every)) + 1
    # Two states for each number: one byte each where the optimizer packs them.
    optimizer = lora_bytes * (1 if str(train.get("optimizer", "")).endswith("8bit") else 4)
    rounds = 0 if train.get("disable_sampling") else steps // max(1, int(sample.get("sample_every") or steps)) + 1
    pixels = int(sample.get("width") or 1024) * int(sample.get("height") or 1024)
    samples = rounds * len(sample.get("samples") or []) * pixels * _SAMPLE_BYTES_PER_PIXEL
    cached = bool(process["datasets"][0].get("cache_latents_to_disk"))
    latents = images * sum(side**2 for side in _resolutions(process)) * _LATENT_BYTES_PER_PIXEL if cached else 0
    return int(lora_bytes * checkpoints + optimizer + samples + latents)


def work_of(process: Mapping[str, Any]) -> float:
    """Return how much a step of a process has to do, by which the times of two can be compared: pixels of a batch."""
    resolutions = _resolutions(process)
    mean_pixels = sum(side**2 for side in resolutions) / len(resolutions)
    frames = max(1, int(process["datasets"][0].get("num_frames") or 1))
    return mean_pixels * frames * int(process["train"].get("batch_size") or 1)


def _resolutions(process: Mapping[str, Any]) -> list[int]:
    found = process["datasets"][0].get("resolution") or 512
    return cast(list[int], found) if isinstance(found, list) else [int(found)]


def _billions(arch: str) -> float | None:
    row = ARCHITECTURES.get(arch)
    return _BILLIONS.get(arch) or (_BILLIONS.get(row.backend_arch) if row else None)
