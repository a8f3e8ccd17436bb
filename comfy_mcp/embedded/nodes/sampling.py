"""KSampler: from noise, or from a picture, to a picture."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comfy_mcp.embedded.nodes.definitions import Input, NodeDefinition, NodeResult, Output, Run
from comfy_mcp.embedded.nodes.geometry import preview_jpeg
from comfy_mcp.embedded.nodes.latents import shown_pixels
from comfy_mcp.embedded.nodes.loaders import words
from comfy_mcp.embedded.nodes.models import Conditioning, Latents, Model
from tinyflux import (
    SAMPLERS,
    SCHEDULERS,
    TextConditioning,
    add_noise,
    pack,
    sample,
    seeded_noise,
    seeded_random,
    sigmas,
    unpack,
)

Velocity = Callable[[NDArray[np.float32], float], NDArray[np.float32]]

DEFAULT_GUIDANCE = 3.5
# What tinyflux's guidance input was distilled for; it never saw a number beyond.
LEAST_GUIDANCE, MOST_GUIDANCE = 1.0, 5.0


def _only_entry(conditioning: Conditioning) -> tuple[TextConditioning, float]:
    # The list is walked, and not just its head taken, so that null and a bare text fail as they do in ComfyUI.
    entries: list[tuple[TextConditioning, dict[str, Any]]] = [(entry[0], entry[1]) for entry in conditioning]
    text, settings = entries[0]
    return text, min(max(float(settings.get("guidance", DEFAULT_GUIDANCE)), LEAST_GUIDANCE), MOST_GUIDANCE)


def _sample(
    run: Run,
    *,
    model: Model,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latents,
    denoise: float,
) -> NodeResult:
    flux = model.merged()
    wanted, guidance = _only_entry(positive)
    unwanted, unwanted_guidance = _only_entry(negative)

    def velocity(x: NDArray[np.float32], level: float) -> NDArray[np.float32]:
        towards = flux.velocity(x, level, wanted, guidance)
        if math.isclose(cfg, 1.0):
            return towards
        away = flux.velocity(x, level, unwanted, unwanted_guidance)
        return (away + cfg * (towards - away)).astype(np.float32)

    def told(done: int, total: int, expected: NDArray[np.float32]) -> None:
        size = latent_image.width_px, latent_image.height_px
        run.step(done, total, lambda: preview_jpeg(shown_pixels(expected[:1]), *size))

    levels = sigmas(scheduler, steps, denoise)
    start = latent_image.samples
    noise = seeded_noise(seed, len(start))
    if len(levels) > 0:
        start = add_noise(start, noise, float(levels[0]))
    inner = velocity if latent_image.mask is None else _within(latent_image, latent_image.mask, noise, velocity)
    finished = sample(inner, start, levels, sampler_name, seeded_random(seed + 1), told)
    return NodeResult((replace(latent_image, samples=finished),))


def _within(kept: Latents, mask: NDArray[np.float32], noise: NDArray[np.float32], velocity: Velocity) -> Velocity:
    """Hold a walk to a mask: outside, the model sees the noised picture, and the walk leads back to it."""

    def joined(inside: NDArray[np.float32], outside: NDArray[np.float32]) -> NDArray[np.float32]:
        kept_pixels = unpack(outside)
        return pack((kept_pixels + mask * (unpack(inside) - kept_pixels)).astype(np.float32))

    def held(x: NDArray[np.float32], level: float) -> NDArray[np.float32]:
        seen = joined(x, add_noise(kept.samples, noise, level))
        expected = (seen - level * velocity(seen, level)).astype(np.float32)
        return (x - joined(expected, kept.samples)) / np.float32(level)

    return held


_INPUTS = (
    Input("model", "MODEL", {"tooltip": "The model that turns noise into a picture."}),
    Input(
        "seed",
        "INT",
        {
            "default": 0,
            "min": 0,
            "max": 2**64 - 1,
            "control_after_generate": True,
            "tooltip": "The number that the noise is drawn from.",
        },
    ),
    Input("steps", "INT", {"default": 20, "min": 1, "max": 10000, "tooltip": "How many steps lead to the picture."}),
    Input(
        "cfg",
        "FLOAT",
        {
            "default": 8.0,
            "min": 0.0,
            "max": 100.0,
            "step": 0.1,
            "round": 0.01,
            "tooltip": "How far to go from the negative towards the positive; 1 leaves the negative out.",
        },
    ),
    Input("sampler_name", "COMBO", {"tooltip": "How a step is taken."}, words(*SAMPLERS)),
    Input("scheduler", "COMBO", {"tooltip": "How noise is spread over the steps."}, words(*SCHEDULERS)),
    Input("positive", "CONDITIONING", {"tooltip": "What the picture shall show."}),
    Input("negative", "CONDITIONING", {"tooltip": "What it shall not show."}),
    Input("latent_image", "LATENT", {"tooltip": "The latents to begin from."}),
    Input(
        "denoise",
        "FLOAT",
        {
            "default": 1.0,
            "min": 0.0,
            "max": 1.0,
            "step": 0.01,
            "tooltip": "How much of the beginning to replace; below 1 its outlines stay.",
        },
    ),
)

SAMPLING_NODES = (
    NodeDefinition(
        "KSampler",
        "KSampler",
        "model/sampling",
        "Render: take noise out of latents step by step, as the conditioning says.",
        _INPUTS,
        (Output("LATENT", "LATENT", "The finished latents."),),
        _sample,
    ),
)
