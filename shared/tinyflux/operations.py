"""Compute the parts of a transformer forwards and backwards; every function is pure.

A `…_back` function takes the gradient of the loss by its forward's output and returns the one by its input.
Arrays are float32; B is the batch, T the tokens, W the width, H the heads, D the width of a head.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_EPSILON = np.float32(1e-6)


def layer_norm(x: F32) -> tuple[F32, F32]:
    """Normalise the last axis; return the result and the inverse deviation (…, 1) that the way back needs."""
    centred = x - x.mean(axis=-1, keepdims=True)
    inverse = 1.0 / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + _EPSILON)
    return centred * inverse, inverse


def layer_norm_back(grad: F32, normal: F32, inverse: F32) -> F32:
    """Return the gradient by the input of `layer_norm`, whose result was normal."""
    along = (grad * normal).mean(axis=-1, keepdims=True)
    centred = grad - grad.mean(axis=-1, keepdims=True)
    centred -= normal * along
    return inverse * centred


def rms_norm(x: F32, weight: F32) -> tuple[F32, F32]:
    """Divide the last axis by its root mean square, times weight; return the result and the inverse root."""
    inverse = 1.0 / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + _EPSILON)
    return x * inverse * weight, inverse


def rms_norm_back(grad: F32, x: F32, weight: F32, inverse: F32) -> F32:
    """Return the gradient by the input x of `rms_norm`."""
    weighted = grad * weight
    along = (weighted * x).mean(axis=-1, keepdims=True)
    weighted *= inverse
    along *= inverse**3
    weighted -= x * along
    return weighted


def attention(query: F32, key: F32, value: F32) -> tuple[F32, F32]:
    """Attend with (B, H, T, D) each; return the mixed values and the attention's shares (B, H, T, T)."""
    scale = np.float32(query.shape[-1] ** -0.5)
    scores = (query * scale) @ key.swapaxes(-1, -2)
    # QK-RMSNorm bounds the scores to a few tens, but a LoRA may not keep to that.
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return shares @ value, shares


def attention_back(grad: F32, query: F32, key: F32, value: F32, shares: F32) -> tuple[F32, F32, F32]:
    """Return the gradients by query, key and value of `attention`."""
    scale = np.float32(query.shape[-1] ** -0.5)
    by_value = shares.swapaxes(-1, -2) @ grad
    by_shares = grad @ value.swapaxes(-1, -2)
    by_scores = shares * (by_shares - (by_shares * shares).sum(axis=-1, keepdims=True)) * scale
    return by_scores @ key, by_scores.swapaxes(-1, -2) @ query, by_value


def squared_relu(x: F32) -> tuple[F32, F32]:
    """Square the positive part; return the result and the positive part."""
    positive = np.maximum(x, np.float32(0.0))
    return positive * positive, positive


def squared_relu_back(grad: F32, positive: F32) -> F32:
    """Return the gradient by the input of `squared_relu`."""
    return grad * positive * np.float32(2.0)


def silu(x: F32) -> F32:
    """Return x times its logistic function."""
    below: F32 = np.exp(-x) + np.float32(1.0)
    return x / below


def split_heads(x: F32, heads: int) -> F32:
    """Turn (B, T, W) into (B, H, T, D)."""
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, heads, width // heads).transpose(0, 2, 1, 3)


def join_heads(x: F32) -> F32:
    """Turn (B, H, T, D) into (B, T, W)."""
    batch, heads, tokens, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * width)


def frequency_embedding(values: F32, width: int) -> F32:
    """Embed numbers (B,) as cosines, then sines, of falling frequencies: (B, width)."""
    half = width // 2
    rates = np.exp(-np.log(10000.0) * np.arange(half, dtype=np.float32) / half).astype(np.float32)
    angles = values[:, None] * rates[None, :]
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
