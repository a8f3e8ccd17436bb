"""Whether a LoRA's layers are found in a checkpoint: what ComfyUI's log would say, said before."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from lora_files.architectures import UNKNOWN, detect_architecture
from lora_files.header import SafetensorsHeader
from lora_files.keys import LoraKey
from lora_files.networks import Layer, network_of
from lora_files.spellings import SECOND_SPELLINGS, own_names, second_names

Verdict = Literal["fits", "partly", "does_not_fit", "unknown"]
Weight = tuple[int, int]

_MODEL_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.")
_TEXT_ENCODERS = ("text_encoders.", "conditioner.embedders.", "cond_stage_model.", "text_encoder.")
_OTHERS = ("first_stage_model.", "vae.", *_TEXT_ENCODERS)
_PACKED = frozenset({"U8", "I32"})
"""Data types into which quantizers (NF4, NVFP4, GPTQ) pack several numbers: the shape is not that of the weight."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Name a layer whose shape the checkpoint does not have: ComfyUI logs `ERROR lora … shape` and skips it."""

    layer: str
    lora: Weight
    checkpoint: Weight


@dataclass(frozen=True, slots=True)
class Fit:
    """Say how many of the diffusion model's layers find their place, and which do not.

    `text_encoder_layers` counts those that are not judged; a file without a layer of either kind is no LoRA.
    """

    verdict: Verdict
    checkpoint_architecture: str
    layers: int
    matched: int
    not_found: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]
    text_encoder_layers: int
    checkpoint_has_text_encoder: bool

    @property
    def is_lora(self) -> bool:
        """Tell whether the file changes any layer at all."""
        return bool(self.layers or self.text_encoder_layers)

    @property
    def has_no_effect(self) -> bool:
        """Tell whether the picture is the same without it, whichever CLIP model a workflow loads."""
        return self.verdict == "does_not_fit" and not self.text_encoder_layers


@dataclass(frozen=True, slots=True)
class Targets:
    """The names that a checkpoint answers to, each with (outputs, inputs) of the weight behind it, None if packed."""

    architecture: str
    weights: Mapping[str, Weight | None]
    text_encoder: bool


@lru_cache(maxsize=8)
def targets_of(checkpoint: SafetensorsHeader) -> Targets:
    """List every name under which ComfyUI looks for a LoRA layer once this checkpoint is loaded."""
    own = _model_weights(checkpoint)
    architecture = detect_architecture(_as_layers(own), checkpoint.metadata).architecture
    spelling = SECOND_SPELLINGS.get(architecture)
    weights: dict[str, Weight | None] = {}
    for layer, stored in own.items():
        weight = None if stored.packed else stored.shape
        if spelling and spelling.not_own and spelling.not_own.search(layer.replace(".", "_")):
            # A checkpoint in the second spelling: ComfyUI renames its layers when it loads them.
            weights.update((name, weight) for name in second_names(layer, spelling.prefixes))
            continue
        weights.update((name, weight) for name in own_names(layer))
        if spelling:
            for name, share in _shares(spelling.spell(layer), weight):
                weights.update((full, share) for full in second_names(name, spelling.prefixes))
    return Targets(architecture, weights, any(name.startswith(_TEXT_ENCODERS) for name in checkpoint.tensors))


def check_fit(lora: SafetensorsHeader, checkpoint: SafetensorsHeader) -> Fit:
    """Compare a LoRA's layers with a checkpoint's, by name and by shape.

    Text-encoder layers are not judged: the CLIP model that a workflow loads decides over them.
    """
    targets = targets_of(checkpoint)
    network = network_of(lora)
    layers = [layer for layer in network.layers if layer.target == "model"]
    not_found: list[str] = []
    mismatched: list[Mismatch] = []
    for layer in layers:
        if layer.key.name not in targets.weights:
            not_found.append(layer.key.name)
            continue
        place = targets.weights[layer.key.name]
        if place is not None and layer.weight is not None and math.prod(layer.weight) != math.prod(place):
            # ComfyUI reshapes the product to the weight, so that equal sizes pass.
            mismatched.append(Mismatch(layer.key.name, layer.weight, place))
    matched = len(layers) - len(not_found) - len(mismatched)
    return Fit(
        verdict=_verdict(targets, len(layers), matched) if network.layers else "does_not_fit",
        checkpoint_architecture=targets.architecture,
        layers=len(layers),
        matched=matched,
        not_found=tuple(not_found),
        mismatched=tuple(mismatched),
        text_encoder_layers=len(network.layers) - len(layers),
        checkpoint_has_text_encoder=targets.text_encoder,
    )


def _verdict(targets: Targets, layers: int, matched: int) -> Verdict:
    if not layers or (targets.architecture == UNKNOWN and not matched):
        return "unknown"
    if matched == layers:
        return "fits"
    return "partly" if matched else "does_not_fit"


class _Stored(NamedTuple):
    shape: Weight
    packed: bool


def _model_weights(checkpoint: SafetensorsHeader) -> dict[str, _Stored]:
    names = checkpoint.tensors
    prefix = next((p for p in _MODEL_PREFIXES if any(name.startswith(p) for name in names)), "")
    weights: dict[str, _Stored] = {}
    for name, info in names.items():
        if name.endswith(".weight") and name.startswith(prefix) and not (prefix == "" and name.startswith(_OTHERS)):
            shape = info.shape or (1,)
            layer = name[len(prefix) : -len(".weight")]
            weights[layer] = _Stored((shape[0], math.prod(shape[1:])), info.dtype in _PACKED)
    return weights


def _as_layers(weights: Mapping[str, _Stored]) -> Sequence[Layer]:
    # A checkpoint's own layers have the names and sizes that a LoRA for it has: the same table knows both.
    return [
        Layer(LoraKey("", name, "diff", "original", "model"), {"diff": stored.shape})
        for name, stored in weights.items()
    ]


def _shares(names: Sequence[str], weight: Weight | None) -> Iterable[tuple[str, Weight | None]]:
    if weight is None:
        yield from ((name, None) for name in names)
        return
    outputs, inputs = weight
    for position, name in enumerate(names):
        last = position == len(names) - 1
        share = outputs - inputs * position if last else inputs
        yield name, (share, inputs)
