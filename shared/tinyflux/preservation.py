"""Keep what the base knows while a LoRA is trained: what it answers without the trigger stays its answer.

Without this the subject of the pictures leaks into every prompt after a hundred steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyflux.latents import IMAGE_TOKENS, LATENT_WIDTH
from tinyflux.model import TinyFlux
from tinyflux.operations import F32
from tinyflux.samplers import sample
from tinyflux.schedules import sigmas, training_levels
from tinyflux.text import TextConditioning, encode_words

_SCENES = 32
_GROUP = 8
_STEPS = 10
_KEPT_SAMPLES = 4
_THINGS = ("cat", "dog", "ball", "tree", "house", "car", "fish", "bird", "flower", "boat", "star", "robot", "rabbit")
_COLOURS = ("orange", "gray", "black", "white", "brown", "red", "green", "blue", "yellow")
_PLACES = ("in snow", "on grass", "at night", "on beach", "in room", "in forest", "at sunset", "in city", "in garden")


@dataclass(frozen=True)
class Kept:
    """Hold samples whose answers are to stay: latents (K, 64, 48), velocities, sigma (K,), guidance (K,), K texts."""

    latents: F32
    velocity: F32
    sigma: F32
    guidance: F32
    texts: list[TextConditioning]


class Preservation:
    """Deal out samples of the frozen base on prompts without the trigger."""

    def __init__(self, model: TinyFlux, captions: Sequence[Sequence[str]], rng: np.random.RandomState) -> None:
        """Let the base draw a few pictures; half of the prompts are the captions without their trigger."""
        self._model, self._rng = model, rng
        words = [
            list(captions[rng.randint(len(captions))]) if index % 2 == 0 else self._prompt() for index in range(_SCENES)
        ]
        self._texts = [encode_words(one) for one in words]
        # A few at a time, since a pass keeps every block's arrays until it ends.
        groups = [self._draw_scenes(self._texts[start : start + _GROUP]) for start in range(0, _SCENES, _GROUP)]
        self._pictures: F32 = np.concatenate(groups)

    def draw(self) -> Kept:
        """Return samples: pictures of the base with noise, and what the base answers to them."""
        chosen: NDArray[np.int64] = self._rng.randint(_SCENES, size=_KEPT_SAMPLES)
        sigma = training_levels(self._rng, _KEPT_SAMPLES)
        guidance = self._rng.uniform(1.0, 5.0, _KEPT_SAMPLES).astype(np.float32)
        guidance[0] = 1.0
        pictures = self._pictures[chosen]
        noisy: F32 = self._rng.standard_normal(pictures.shape).astype(np.float32)
        noisy *= sigma[:, None, None]
        noisy += pictures * (1.0 - sigma[:, None, None])
        texts = [self._texts[int(index)] for index in chosen]
        return Kept(noisy, self._model.velocity(noisy, sigma, texts, guidance), sigma, guidance, texts)

    def _draw_scenes(self, texts: list[TextConditioning]) -> F32:
        noise = self._rng.standard_normal((len(texts), IMAGE_TOKENS, LATENT_WIDTH)).astype(np.float32)
        guidance = self._rng.uniform(1.0, 4.0, len(texts)).astype(np.float32)
        return sample(
            lambda x, sigma: self._model.velocity(x, sigma, texts, guidance),
            noise,
            sigmas("simple", _STEPS),
            "euler",
            self._rng,
        )

    def _prompt(self) -> list[str]:
        thing, colour = (words[self._rng.randint(len(words))] for words in (_THINGS, _COLOURS))
        place = _PLACES[self._rng.randint(len(_PLACES))].split()
        return [thing, *place] if self._rng.random_sample() < 0.5 else [colour, thing, *place]
