"""Hold the linear layers of a model, with the low-rank adapters that are being trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinyflux.operations import F32


@dataclass
class Adapter:
    """Hold one low-rank pair that is trained: down (R, in), up (out, R), and the gradients of the last pass."""

    down: F32
    up: F32
    scale: float
    down_grad: F32
    up_grad: F32

    @classmethod
    def of(cls, down: F32, up: F32, scale: float) -> Adapter:
        """Wrap a pair with gradients of zero."""
        return cls(down, up, scale, np.zeros_like(down), np.zeros_like(up))

    def delta(self) -> F32:
        """Return what the pair adds to the layer's weight, (out, in)."""
        return np.float32(self.scale) * (self.up @ self.down)


class Linears:
    """Apply named linear layers; weights (out, in) and biases (out,) are never changed."""

    def __init__(self, tensors: Mapping[str, F32], adapters: Mapping[str, Adapter] | None = None) -> None:
        self._tensors = tensors
        self._adapters = dict(adapters or {})
        self._merged: dict[str, F32] = {}
        self.merge()

    def merge(self) -> None:
        """Take up the adapters' present values; call it after they changed."""
        self._merged = {
            name: self._tensors[f"{name}.weight"] + adapter.delta() for name, adapter in self._adapters.items()
        }

    def tensor(self, name: str) -> F32:
        """Return a tensor that is not a linear layer's."""
        return self._tensors[name]

    def __call__(self, name: str, x: F32) -> F32:
        """Return x (…, in) through the layer: (…, out)."""
        weight = self._weight(name)
        flat = x.reshape(-1, x.shape[-1]) @ weight.T
        flat += self._tensors[f"{name}.bias"]
        return flat.reshape(*x.shape[:-1], weight.shape[0])

    def back(self, name: str, grad: F32, x: F32) -> F32:
        """Return the gradient by x and add the adapter's own; x is what the layer was given."""
        weight = self._weight(name)
        flat = grad.reshape(-1, weight.shape[0])
        self.learn(name, flat, x)
        return (flat @ weight).reshape(x.shape)

    def learn(self, name: str, grad: F32, x: F32) -> None:
        """Add the gradients of the layer's adapter alone, where nothing before the layer is trained."""
        adapter = self._adapters.get(name)
        if adapter is None:
            return
        flat, given = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        scale = np.float32(adapter.scale)
        adapter.up_grad += scale * (flat.T @ (given @ adapter.down.T))
        adapter.down_grad += scale * ((flat @ adapter.up).T @ given)

    def _weight(self, name: str) -> F32:
        merged = self._merged.get(name)
        return self._tensors[f"{name}.weight"] if merged is None else merged
