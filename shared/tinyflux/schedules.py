"""Choose the noise levels of a run, as ComfyUI does for flow models.

Sigma runs from 1 (noise) to 0 (picture). FLUX bends time towards noise by a shift; tinyflux takes the one that ComfyUI
gives every FLUX checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinyflux.operations import F32

SHIFT = 1.15
_LEVELS = 10000
# The share of training samples that are nearly all noise, and where that begins. There the colours are decided; further
# down the noisy picture itself gives them away, and the words learn nothing.
NOISY_SHARE, NOISY_FROM = 0.5, 0.8


def _shifted(time: F32) -> F32:
    stretch = math.exp(SHIFT)
    below: F32 = time * (stretch - 1.0)
    below += 1.0
    return time * stretch / below


# Every level that a run can start from, rising; ComfyUI's schedulers pick from such a table.
_TABLE = _shifted(np.linspace(1 / _LEVELS, 1.0, _LEVELS, dtype=np.float32))
_LOWEST, _HIGHEST = float(_TABLE[0]), float(_TABLE[-1])


def _simple(steps: int) -> F32:
    stride = _LEVELS / steps
    return _TABLE[np.array([-(1 + int(index * stride)) for index in range(steps)])]


def _normal(steps: int) -> F32:
    return _shifted(np.linspace(_HIGHEST, _LOWEST, steps, dtype=np.float32))


def _sgm_uniform(steps: int) -> F32:
    return _shifted(np.linspace(_HIGHEST, _LOWEST, steps + 1, dtype=np.float32)[:-1])


def _ddim_uniform(steps: int) -> F32:
    stride = max(_LEVELS // steps, 1)
    return _TABLE[1::stride][::-1]


def _karras(steps: int) -> F32:
    power = 7.0
    ramp = np.linspace(0.0, 1.0, steps)
    low, high = _LOWEST ** (1 / power), _HIGHEST ** (1 / power)
    return ((high + ramp * (low - high)) ** power).astype(np.float32)


def _exponential(steps: int) -> F32:
    return np.geomspace(_HIGHEST, _LOWEST, steps).astype(np.float32)


def _kl_optimal(steps: int) -> F32:
    share = np.arange(steps) / max(1, steps - 1)
    return np.tan(share * np.arctan(_LOWEST) + (1.0 - share) * np.arctan(_HIGHEST)).astype(np.float32)


def _beta(steps: int) -> F32:
    # Levels at the quantiles of Beta(0.6, 0.6), which crowds both ends (arXiv 2407.12173). Substituting
    # x = sin(a)^2 takes the poles out of the density, so that a plain sum gives its distribution.
    angle = np.linspace(0.0, np.pi / 2, 8193)
    density = (np.sin(angle[1:-1]) * np.cos(angle[1:-1])) ** 0.2
    gathered = np.concatenate([[0.0], np.cumsum(density)])
    middles = np.concatenate([[0.0], (angle[1:-1] + angle[2:]) / 2])
    wanted = 1.0 - np.linspace(0.0, 1.0, steps, endpoint=False)
    quantiles = np.sin(np.interp(wanted, gathered / gathered[-1], middles)) ** 2
    levels = np.rint(quantiles * (_LEVELS - 1)).astype(np.int64)
    return _TABLE[np.unique(levels)[::-1]]


_SCHEDULERS: dict[str, Callable[[int], F32]] = {
    "simple": _simple,
    "sgm_uniform": _sgm_uniform,
    "karras": _karras,
    "exponential": _exponential,
    "ddim_uniform": _ddim_uniform,
    "beta": _beta,
    "normal": _normal,
    "kl_optimal": _kl_optimal,
}
SCHEDULERS: tuple[str, ...] = tuple(_SCHEDULERS)


def sigmas(scheduler: str, steps: int, denoise: float = 1.0) -> F32:
    """Return falling noise levels that end with 0.

    Below a denoise of 1 a longer schedule is drawn up and its last steps are run, as in ComfyUI; at 0 there are none.
    Raise ValueError for an unknown scheduler or less than one step.
    """
    if scheduler not in _SCHEDULERS:
        raise ValueError(f"unknown scheduler {scheduler!r}; one of {', '.join(SCHEDULERS)}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    if denoise <= 0.0:
        return np.zeros(0, dtype=np.float32)
    total = steps if denoise >= 1.0 else int(steps / denoise)
    levels = np.append(_SCHEDULERS[scheduler](total), np.float32(0.0)).astype(np.float32)
    return levels[-(steps + 1) :] if denoise < 1.0 else levels


def training_levels(rng: np.random.RandomState, count: int) -> F32:
    """Draw the noise levels of training samples (count,)."""
    levels: F32 = (1.0 / (1.0 + np.exp(-rng.normal(0.7, 1.2, count)))).astype(np.float32)
    noisy: F32 = rng.uniform(NOISY_FROM, 1.0, count).astype(np.float32)
    return np.where(rng.random_sample(count) < NOISY_SHARE, noisy, levels)
