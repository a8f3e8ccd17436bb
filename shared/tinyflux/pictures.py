"""Make a picture from a prompt, and measure how alike the colours of two sets of pictures are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinyflux.latents import IMAGE_TOKENS, LATENT_WIDTH, to_bytes, unpack
from tinyflux.model import TinyFlux
from tinyflux.operations import F32
from tinyflux.samplers import sample
from tinyflux.schedules import sigmas
from tinyflux.text import encode_prompt

_PALETTE_LEVELS = 6


def seeded_noise(seed: int, batch: int = 1) -> F32:
    """Return the noise (B, 64, 48) of a seed; seeds are ComfyUI's, 0 to 2**64 - 1."""
    return seeded_random(seed).standard_normal((batch, IMAGE_TOKENS, LATENT_WIDTH)).astype(np.float32)


def seeded_random(seed: int) -> np.random.RandomState:
    """Return a source of numbers for a seed of up to 64 bits, the same on every machine and version."""
    return np.random.RandomState([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF])


def text_to_pixels(
    model: TinyFlux,
    prompt: str,
    seed: int,
    steps: int = 20,
    guidance: float = 3.5,
    sampler: str = "euler",
    scheduler: str = "simple",
) -> NDArray[np.uint8]:
    """Draw one picture (32, 32, 3)."""
    text = encode_prompt(prompt)
    latents = sample(
        lambda x, sigma: model.velocity(x, sigma, text, guidance),
        seeded_noise(seed),
        sigmas(scheduler, steps),
        sampler,
        seeded_random(seed + 1),
    )
    return to_bytes(unpack(latents))[0]


def palette_distance(pictures: NDArray[np.uint8], dataset: NDArray[np.uint8]) -> float:
    """Return how much of the colours that a dataset's images have in common the pictures lack, from 0 to 1.

    Both are (N, H, W, 3). Colours are counted in 6 x 6 x 6 bins, each shared out over its neighbours. The median over
    the dataset's images keeps what most of them show, the subject, and drops backgrounds that vary (without any
    common colour, the mean counts); where in a picture a colour stands plays no part.
    """
    palettes = [_palette(image) for image in dataset]
    common = np.median(palettes, axis=0)
    if not common.any():
        common = np.mean(palettes, axis=0)
    shown = np.mean([np.minimum(common, _palette(picture)).sum() for picture in pictures])
    return float(1.0 - shown / common.sum())


def _palette(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    colours = image.reshape(-1, 3).astype(np.float64) * (_PALETTE_LEVELS - 1) / 255.0
    low = np.minimum(np.floor(colours).astype(np.int64), _PALETTE_LEVELS - 2)
    share = colours - low
    counts = np.zeros(_PALETTE_LEVELS**3)
    for corner in range(8):
        step = np.array([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
        weight = np.where(step == 1, share, 1.0 - share).prod(axis=1)
        place = (low + step) @ np.array([_PALETTE_LEVELS**2, _PALETTE_LEVELS, 1])
        counts += np.bincount(place, weights=weight, minlength=_PALETTE_LEVELS**3)
    return counts / counts.sum()
