"""Run the two kinds of FLUX block forwards and backwards.

A double block keeps image and text apart and lets them attend to each other; a single block runs attention and the
feed-forward side by side over both joined. Names are those of diffusers' `FluxTransformer2DModel`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyflux.linears import Linears
from tinyflux.operations import (
    F32,
    attention,
    attention_back,
    join_heads,
    layer_norm,
    layer_norm_back,
    rms_norm,
    rms_norm_back,
    split_heads,
    squared_relu,
    squared_relu_back,
)

HEADS = 4


@dataclass(frozen=True)
class _Modulated:
    """Hold a normalised and modulated stream, and what its way back needs."""

    out: F32
    normal: F32
    inverse: F32
    scale: F32


def _modulate(x: F32, shift: F32, scale: F32) -> _Modulated:
    normal, inverse = layer_norm(x)
    out = normal * scale
    out += normal
    out += shift
    return _Modulated(out, normal, inverse, scale)


def _modulate_back(grad: F32, made: _Modulated) -> tuple[F32, F32, F32]:
    """Return the gradients by the stream (B, T, W), the shift and the scale (B, 1, W)."""
    by_scale = (grad * made.normal).sum(axis=1, keepdims=True)
    by_normal = grad * made.scale
    by_normal += grad
    by_stream = layer_norm_back(by_normal, made.normal, made.inverse)
    return by_stream, grad.sum(axis=1, keepdims=True), by_scale


@dataclass(frozen=True)
class _Heads:
    """Hold query, key and value by head; raw and inverse are from before and of the RMS norm."""

    query: F32
    key: F32
    value: F32
    raw_query: F32
    raw_key: F32
    inverse_query: F32
    inverse_key: F32


_OWN = ("to_q", "to_k", "to_v", "norm_q", "norm_k")
_ADDED = ("add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k")


def _heads(linears: Linears, name: str, parts: tuple[str, ...], x: F32) -> _Heads:
    raw_query, raw_key, value = (split_heads(linears(f"{name}.{part}", x), HEADS) for part in parts[:3])
    query, inverse_query = rms_norm(raw_query, linears.tensor(f"{name}.{parts[3]}.weight"))
    key, inverse_key = rms_norm(raw_key, linears.tensor(f"{name}.{parts[4]}.weight"))
    return _Heads(query, key, value, raw_query, raw_key, inverse_query, inverse_key)


def _heads_back(
    linears: Linears, name: str, parts: tuple[str, ...], x: F32, made: _Heads, grads: tuple[F32, F32, F32]
) -> F32:
    by_query, by_key, by_value = grads
    query_weight = linears.tensor(f"{name}.{parts[3]}.weight")
    key_weight = linears.tensor(f"{name}.{parts[4]}.weight")
    raw_query = rms_norm_back(by_query, made.raw_query, query_weight, made.inverse_query)
    raw_key = rms_norm_back(by_key, made.raw_key, key_weight, made.inverse_key)
    return (
        linears.back(f"{name}.{parts[0]}", join_heads(raw_query), x)
        + linears.back(f"{name}.{parts[1]}", join_heads(raw_key), x)
        + linears.back(f"{name}.{parts[2]}", join_heads(by_value), x)
    )


@dataclass(frozen=True)
class _Stream:
    """Hold what one stream of a double block leaves behind for the way back."""

    modulated: _Modulated
    heads: _Heads
    gate: F32
    mixed: F32
    attended: F32
    modulated_mlp: _Modulated
    gate_mlp: F32
    positive: F32
    hidden: F32
    grown: F32


@dataclass(frozen=True)
class DoubleTrace:
    """Hold what a double block leaves behind for the way back."""

    text: _Stream
    image: _Stream
    query: F32
    key: F32
    value: F32
    shares: F32


@dataclass(frozen=True)
class _Names:
    """Name the layers of one stream of a double block."""

    norm: str
    parts: tuple[str, ...]
    out: str
    feed: str


_IMAGE = _Names("norm1.linear", _OWN, "attn.to_out.0", "ff")
_TEXT = _Names("norm1_context.linear", _ADDED, "attn.to_add_out", "ff_context")


def _parts(linears: Linears, name: str, conditioning: F32, count: int) -> list[F32]:
    return np.split(linears(name, conditioning)[:, None, :], count, axis=-1)


def double_block(linears: Linears, name: str, image: F32, text: F32, conditioning: F32) -> tuple[F32, F32, DoubleTrace]:
    """Return both streams, image (B, 64, W) and text (B, 16, W), and the trace; conditioning is (B, W)."""
    entered: list[tuple[_Names, F32, list[F32], _Modulated, _Heads]] = []
    for names, stream in ((_TEXT, text), (_IMAGE, image)):
        parts = _parts(linears, f"{name}.{names.norm}", conditioning, 6)
        modulated = _modulate(stream, parts[0], parts[1])
        heads = _heads(linears, f"{name}.attn", names.parts, modulated.out)
        entered.append((names, stream, parts, modulated, heads))
    # Text goes before image, as in FLUX.
    query, key, value = (
        np.concatenate([getattr(entered[0][4], part), getattr(entered[1][4], part)], axis=2)
        for part in ("query", "key", "value")
    )
    mixed, shares = attention(query, key, value)
    joined = join_heads(mixed)
    left: list[tuple[F32, _Stream]] = []
    cut = text.shape[1]
    for (names, stream, parts, modulated, heads), share in zip(
        entered, (joined[:, :cut], joined[:, cut:]), strict=True
    ):
        attended = linears(f"{name}.{names.out}", share)
        middle: F32 = parts[2] * attended + stream
        inner = _modulate(middle, parts[3], parts[4])
        hidden, positive = squared_relu(linears(f"{name}.{names.feed}.net.0.proj", inner.out))
        grown = linears(f"{name}.{names.feed}.net.2", hidden)
        trace = _Stream(modulated, heads, parts[2], share, attended, inner, parts[5], positive, hidden, grown)
        left.append((parts[5] * grown + middle, trace))
    return left[1][0], left[0][0], DoubleTrace(left[0][1], left[1][1], query, key, value, shares)


def double_block_back(
    linears: Linears, name: str, image_grad: F32, text_grad: F32, conditioning: F32, trace: DoubleTrace
) -> tuple[F32, F32]:
    """Return the gradients by the image and the text that went in."""
    middles: list[tuple[F32, list[F32], F32]] = []
    for names, grad, made in ((_TEXT, text_grad, trace.text), (_IMAGE, image_grad, trace.image)):
        by_gate_mlp = (grad * made.grown).sum(axis=1, keepdims=True)
        by_hidden = linears.back(f"{name}.{names.feed}.net.2", grad * made.gate_mlp, made.hidden)
        by_inner = squared_relu_back(by_hidden, made.positive)
        by_inner = linears.back(f"{name}.{names.feed}.net.0.proj", by_inner, made.modulated_mlp.out)
        through, by_shift_mlp, by_scale_mlp = _modulate_back(by_inner, made.modulated_mlp)
        by_middle: F32 = grad + through
        by_gate = (by_middle * made.attended).sum(axis=1, keepdims=True)
        by_mixed = linears.back(f"{name}.{names.out}", by_middle * made.gate, made.mixed)
        middles.append((by_middle, [by_gate, by_shift_mlp, by_scale_mlp, by_gate_mlp], by_mixed))
    by_joined = split_heads(np.concatenate([middles[0][2], middles[1][2]], axis=1), HEADS)
    by_query, by_key, by_value = attention_back(by_joined, trace.query, trace.key, trace.value, trace.shares)
    cut = text_grad.shape[1]
    results: list[F32] = []
    for names, made, (by_middle, parts, _), span in (
        (_TEXT, trace.text, middles[0], slice(0, cut)),
        (_IMAGE, trace.image, middles[1], slice(cut, None)),
    ):
        grads = by_query[:, :, span], by_key[:, :, span], by_value[:, :, span]
        by_normal = _heads_back(linears, f"{name}.attn", names.parts, made.modulated.out, made.heads, grads)
        through, by_shift, by_scale = _modulate_back(by_normal, made.modulated)
        by_parts = np.concatenate([by_shift, by_scale, *parts], axis=-1)[:, 0]
        linears.learn(f"{name}.{names.norm}", by_parts, conditioning)
        results.append(by_middle + through)
    return results[1], results[0]


@dataclass(frozen=True)
class SingleTrace:
    """Hold what a single block leaves behind for the way back."""

    modulated: _Modulated
    heads: _Heads
    gate: F32
    shares: F32
    positive: F32
    both: F32
    grown: F32


def single_block(linears: Linears, name: str, x: F32, conditioning: F32) -> tuple[F32, SingleTrace]:
    """Return the joined stream (B, 80, W) and the trace."""
    shift, scale, gate = _parts(linears, f"{name}.norm.linear", conditioning, 3)
    modulated = _modulate(x, shift, scale)
    hidden, positive = squared_relu(linears(f"{name}.proj_mlp", modulated.out))
    heads = _heads(linears, f"{name}.attn", _OWN, modulated.out)
    mixed, shares = attention(heads.query, heads.key, heads.value)
    both = np.concatenate([join_heads(mixed), hidden], axis=-1)
    grown = linears(f"{name}.proj_out", both)
    return gate * grown + x, SingleTrace(modulated, heads, gate, shares, positive, both, grown)


def single_block_back(linears: Linears, name: str, grad: F32, conditioning: F32, trace: SingleTrace) -> F32:
    """Return the gradient by the joined stream that went in."""
    by_gate = (grad * trace.grown).sum(axis=1, keepdims=True)
    by_both = linears.back(f"{name}.proj_out", grad * trace.gate, trace.both)
    width = grad.shape[-1]
    heads = trace.heads
    grads = attention_back(split_heads(by_both[..., :width], HEADS), heads.query, heads.key, heads.value, trace.shares)
    by_inner = _heads_back(linears, f"{name}.attn", _OWN, trace.modulated.out, heads, grads)
    by_hidden = squared_relu_back(by_both[..., width:], trace.positive)
    by_inner += linears.back(f"{name}.proj_mlp", by_hidden, trace.modulated.out)
    through, by_shift, by_scale = _modulate_back(by_inner, trace.modulated)
    by_parts = np.concatenate([by_shift, by_scale, by_gate], axis=-1)[:, 0]
    linears.learn(f"{name}.norm.linear", by_parts, conditioning)
    return grad + through
