"""Run the whole transformer: noisy latents, sigma, text and guidance in, velocity out; and its way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyflux.blocks import (
    DoubleTrace,
    SingleTrace,
    double_block,
    double_block_back,
    single_block,
    single_block_back,
)
from tinyflux.linears import Linears
from tinyflux.operations import F32, frequency_embedding, layer_norm, layer_norm_back, silu
from tinyflux.text import TextConditioning

WIDTH = 96
DOUBLE_BLOCKS, SINGLE_BLOCKS = 2, 3
_FREQUENCIES = 64


@dataclass(frozen=True)
class Inputs:
    """Hold a batch: latents (B, 64, 48), sigma (B,), guidance (B,), tokens (B, 16, 64), pooled (B, 64)."""

    latents: F32
    sigma: F32
    guidance: F32
    tokens: F32
    pooled: F32

    @classmethod
    def of(
        cls,
        latents: F32,
        sigma: float | F32,
        text: Sequence[TextConditioning] | TextConditioning,
        guidance: float | F32,
    ) -> Inputs:
        """Join the parts of a batch; one sigma, guidance or text serves every latent."""
        batch = latents.shape[0]
        rows = [text] if isinstance(text, TextConditioning) else list(text)
        if len(rows) == 1:
            rows *= batch
        if len(rows) != batch:
            raise ValueError(f"{len(rows)} texts for {batch} latents; give one, or one for each")
        return cls(
            latents=np.ascontiguousarray(latents, dtype=np.float32),
            sigma=np.broadcast_to(np.asarray(sigma, dtype=np.float32), (batch,)),
            guidance=np.broadcast_to(np.asarray(guidance, dtype=np.float32), (batch,)),
            tokens=np.stack([row.tokens for row in rows]),
            pooled=np.stack([row.pooled for row in rows]),
        )


@dataclass(frozen=True)
class Trace:
    """Hold what a pass leaves behind for the way back."""

    conditioning: F32
    doubles: tuple[DoubleTrace, ...]
    singles: tuple[SingleTrace, ...]
    normal: F32
    inverse: F32
    scale: F32
    text_tokens: int


def _embed(linears: Linears, name: str, x: F32) -> F32:
    return linears(f"{name}.linear_2", silu(linears(f"{name}.linear_1", x)))


def forward(linears: Linears, inputs: Inputs) -> tuple[F32, Trace]:
    """Return the velocity (B, 64, 48) and the trace."""
    conditioning = silu(
        _embed(linears, "time_text_embed.timestep_embedder", frequency_embedding(inputs.sigma * 1000.0, _FREQUENCIES))
        + _embed(linears, "time_text_embed.text_embedder", inputs.pooled)
        + _embed(
            linears, "time_text_embed.guidance_embedder", frequency_embedding(inputs.guidance * 100.0, _FREQUENCIES)
        )
    )
    image = linears("x_embedder", inputs.latents) + linears.tensor("pos_embed")
    text = linears("context_embedder", inputs.tokens)
    doubles: list[DoubleTrace] = []
    for index in range(DOUBLE_BLOCKS):
        image, text, double = double_block(linears, f"transformer_blocks.{index}", image, text, conditioning)
        doubles.append(double)
    joined = np.concatenate([text, image], axis=1)
    singles: list[SingleTrace] = []
    for index in range(SINGLE_BLOCKS):
        joined, single = single_block(linears, f"single_transformer_blocks.{index}", joined, conditioning)
        singles.append(single)
    normal, inverse = layer_norm(joined[:, text.shape[1] :])
    scale, shift = np.split(linears("norm_out.linear", conditioning)[:, None, :], 2, axis=-1)
    modulated = normal * scale
    modulated += normal
    modulated += shift
    velocity = linears("proj_out", modulated)
    trace = Trace(conditioning, tuple(doubles), tuple(singles), normal, inverse, scale, text.shape[1])
    return velocity, trace


def backward(linears: Linears, grad: F32, trace: Trace) -> None:
    """Add the adapters' gradients for the gradient (B, 64, 48) by the velocity."""
    by_out = (grad.reshape(-1, grad.shape[-1]) @ linears.tensor("proj_out.weight")).reshape(*grad.shape[:-1], WIDTH)
    by_normal = by_out * trace.scale
    by_normal += by_out
    by_image = layer_norm_back(by_normal, trace.normal, trace.inverse)
    joined = np.zeros((grad.shape[0], trace.text_tokens + grad.shape[1], WIDTH), dtype=np.float32)
    joined[:, trace.text_tokens :] = by_image
    for index in reversed(range(SINGLE_BLOCKS)):
        name = f"single_transformer_blocks.{index}"
        joined = single_block_back(linears, name, joined, trace.conditioning, trace.singles[index])
    text, image = joined[:, : trace.text_tokens], joined[:, trace.text_tokens :]
    for index in reversed(range(DOUBLE_BLOCKS)):
        name = f"transformer_blocks.{index}"
        image, text = double_block_back(linears, name, image, text, trace.conditioning, trace.doubles[index])
