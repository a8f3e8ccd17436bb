"""The network in a LoRA file: its layers, their shapes, and the kind, rank and data type that they share."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from lora_files.header import SafetensorsHeader
from lora_files.keys import LoraKey, Target, key_of, split_suffix

# LyCORIS writes plain LoRA layers beside its own, and every kind can carry full differences for norms and biases:
# the first kind that occurs at all is the one that the trainer was asked for.
_KINDS: tuple[tuple[str, str], ...] = (
    ("lokr_", "LoKr"),
    ("hada_", "LoHa"),
    ("glora_", "GLoRA"),
    ("oft_", "OFT"),
    ("dora_scale", "DoRA"),
    ("down", "LoRA"),
    ("diff", "full difference"),
    ("set_weight", "full difference"),
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One layer that a file changes: its key, and the shape of each of its tensors by role."""

    key: LoraKey
    shapes: Mapping[str, Shape]

    @property
    def target(self) -> Target:
        """Return whose layer it is: the diffusion model's or a text encoder's."""
        return self.key.target

    @cached_property
    def rank(self) -> int | None:
        """Return the inner size, or None where the layer has none (full matrices)."""
        for role in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
            shape = self.shapes.get(role)
            if shape:
                return shape[0]
        return None

    @cached_property
    def weight(self) -> tuple[int, int] | None:
        """Return (outputs, inputs) of the weight that this layer is added to, a convolution's kernel among the inputs.

        None where the tensors do not tell.
        """
        if "down" in self.shapes:
            matrix = _product(self.shapes.get("up"), self.shapes["down"])
            kernel = math.prod(self.shapes.get("mid", (1, 1))[2:])
            return (matrix[0], matrix[1] * kernel) if matrix else None
        if "hada_w1_a" in self.shapes and "hada_t1" not in self.shapes:
            return _product(self.shapes["hada_w1_a"], self.shapes.get("hada_w1_b"))
        if "diff" in self.shapes:
            return _flat(self.shapes["diff"])
        outer, inner = self._factor("lokr_w1"), self._factor("lokr_w2")
        if outer is None or inner is None or "lokr_t2" in self.shapes:
            return None
        return outer[0] * inner[0], outer[1] * inner[1]

    def _factor(self, role: str) -> tuple[int, int] | None:
        whole = self.shapes.get(role)
        return _flat(whole) if whole else _product(self.shapes.get(f"{role}_a"), self.shapes.get(f"{role}_b"))


def _flat(shape: Shape) -> tuple[int, int] | None:
    return (shape[0], math.prod(shape[1:])) if shape else None


def _product(up: Shape | None, down: Shape | None) -> tuple[int, int] | None:
    return (up[0], math.prod(down[1:])) if up and down else None


@dataclass(frozen=True)
class Network:
    """All layers of a file; `unknown` names the tensors that belong to none, `dtype` is that of most bytes."""

    layers: tuple[Layer, ...]
    unknown: tuple[str, ...]
    dtype: str | None

    @cached_property
    def kind(self) -> str:
        """Return the kind in the words of its inventors, or `none` where nothing of a LoRA was found."""
        roles = {role for layer in self.layers for role in layer.shapes}
        return next((kind for start, kind in _KINDS if any(role.startswith(start) for role in roles)), "none")

    @cached_property
    def ranks(self) -> Mapping[int, int]:
        """Return how many layers have which rank, the most frequent first."""
        return dict(Counter(layer.rank for layer in self.layers if layer.rank is not None).most_common())

    @property
    def rank(self) -> int | None:
        """Return the rank of most layers, or None where none has one."""
        return next(iter(self.ranks), None)

    @cached_property
    def text_encoder(self) -> bool:
        """Tell whether any layer is a text encoder's."""
        return any(layer.target == "text_encoder" for layer in self.layers)


def network_of(header: SafetensorsHeader) -> Network:
    """Group the tensors of a file into the layers that they change."""
    keys: dict[str, LoraKey] = {}
    shapes: dict[str, dict[str, Shape]] = {}
    unknown: list[str] = []
    bytes_by_dtype: dict[str, int] = {}
    for name, (dtype, shape, start, end) in header.tensors.items():
        stem, role = split_suffix(name)
        if not role:
            unknown.append(name)
            continue
        roles = shapes.get(stem)
        if roles is None:
            # Once for all tensors of a layer: a file of gigabytes names a thousand of them.
            keys[stem], roles = key_of(stem, role), shapes.setdefault(stem, {})
        roles[role] = shape
        bytes_by_dtype[dtype] = bytes_by_dtype.get(dtype, 0) + end - start
    layers = tuple(Layer(key, shapes[stem]) for stem, key in keys.items())
    return Network(layers, tuple(unknown), max(bytes_by_dtype, key=bytes_by_dtype.__getitem__, default=None))


def alpha_of(network: Network, alphas: Iterable[float]) -> float | None:
    """Return the alpha of most layers; without any, the rank: then a loader scales by one."""
    counts = Counter(alphas)
    if counts:
        return counts.most_common(1)[0][0]
    return float(network.rank) if network.rank is not None else None
