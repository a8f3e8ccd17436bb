"""Walk from noise to a picture by the published samplers, in the form that they have for flow models.

The model's velocity v at a noise level s gives the picture that it expects, x - s v, in which the samplers are stated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinyflux.operations import F32

Velocity = Callable[[F32, float], F32]
OnStep = Callable[[int, int, F32], None]


@dataclass(frozen=True)
class _Walk:
    """Hold what every sampler needs: the model, the levels, a source of noise, and whom to tell."""

    velocity: Velocity
    levels: list[float]
    rng: np.random.RandomState
    on_step: OnStep | None

    @property
    def steps(self) -> int:
        return len(self.levels) - 1

    def told(self, step: int, picture: F32) -> None:
        if self.on_step is not None:
            self.on_step(step + 1, self.steps, picture)

    def slope(self, step: int, x: F32) -> F32:
        """Return dx/ds at the start of a step, and tell of the picture it expects."""
        level = self.levels[step]
        velocity = self.velocity(x, level)
        self.told(step, _expected(x, level, velocity))
        return velocity


def _along(x: F32, slope: F32, width: float) -> F32:
    return np.float32(width) * slope + x


def _expected(x: F32, level: float, slope: F32) -> F32:
    return _along(x, slope, -level)


def _between(x: F32, picture: F32, level: float, following: float) -> F32:
    """Go from a level to the next one in a straight line towards a picture."""
    kept: F32 = np.float32(following / level) * x
    return np.float32(1.0 - following / level) * picture + kept


def _euler(walk: _Walk, x: F32) -> F32:
    for step in range(walk.steps):
        x = _along(x, walk.slope(step, x), walk.levels[step + 1] - walk.levels[step])
    return x


def _euler_ancestral(walk: _Walk, x: F32) -> F32:
    """Step below the next level and add fresh noise back, so that the variance along the flow is kept."""
    for step in range(walk.steps):
        level, following = walk.levels[step], walk.levels[step + 1]
        picture = _expected(x, level, walk.slope(step, x))
        if following == 0.0:
            return picture
        below = following * following / level
        x = _between(x, picture, level, below)
        shrink = (1.0 - following) / (1.0 - below)
        fresh = max(0.0, following**2 - (below * shrink) ** 2) ** 0.5
        noise = walk.rng.standard_normal(x.shape).astype(np.float32)
        x = _along(np.float32(shrink) * x, noise, fresh)
    return x


def _heun(walk: _Walk, x: F32) -> F32:
    for step in range(walk.steps):
        following = walk.levels[step + 1]
        width = following - walk.levels[step]
        first = walk.slope(step, x)
        there = _along(x, first, width)
        if following == 0.0:
            return there
        x = _along(x, first + walk.velocity(there, following), width / 2.0)
    return x


def _heunpp2(walk: _Walk, x: F32) -> F32:
    """Weigh slopes of up to three coming levels, more for noisier ones (Heun++, arXiv 2306.14177)."""
    highest = walk.levels[0]
    for step in range(walk.steps):
        level, following = walk.levels[step], walk.levels[step + 1]
        width = following - level
        first = walk.slope(step, x)
        there = _along(x, first, width)
        if following == 0.0:
            return there
        second = walk.velocity(there, following)
        last = step + 2 > walk.steps or walk.levels[step + 2] == 0.0
        if last:
            share = following / (2.0 * highest)
            slope = _along(np.float32(1.0 - share) * first, second, share)
        else:
            beyond = walk.levels[step + 2]
            third = walk.velocity(_along(there, second, beyond - following), beyond)
            near, far = following / (3.0 * highest), beyond / (3.0 * highest)
            slope = _along(_along(np.float32(1.0 - near - far) * first, second, near), third, far)
        x = _along(x, slope, width)
    return x


def _dpm_2(walk: _Walk, x: F32) -> F32:
    """Take the slope halfway, in the logarithm of the level."""
    for step in range(walk.steps):
        level, following = walk.levels[step], walk.levels[step + 1]
        first = walk.slope(step, x)
        if following == 0.0:
            return _along(x, first, following - level)
        middle = (level * following) ** 0.5
        halfway = walk.velocity(_along(x, first, middle - level), middle)
        x = _along(x, halfway, following - level)
    return x


def _dpmpp_2m(walk: _Walk, x: F32) -> F32:
    """Extrapolate the expected picture from the two latest (DPM-Solver++ 2M, arXiv 2211.01095)."""
    before: F32 | None = None
    for step in range(walk.steps):
        level, following = walk.levels[step], walk.levels[step + 1]
        picture = _expected(x, level, walk.slope(step, x))
        if following == 0.0:
            return picture
        aim = picture
        if before is not None:
            share = 0.5 * math.log(level / following) / math.log(walk.levels[step - 1] / level)
            aim = _along(np.float32(1.0 + share) * picture, before, -share)
        x = _between(x, aim, level, following)
        before = picture
    return x


def _lcm(walk: _Walk, x: F32) -> F32:
    """Jump to the expected picture and back to the next level with fresh noise."""
    for step in range(walk.steps):
        following = walk.levels[step + 1]
        x = _expected(x, walk.levels[step], walk.slope(step, x))
        if following > 0.0:
            noise = walk.rng.standard_normal(x.shape).astype(np.float32)
            x = add_noise(x, noise, following)
    return x


_SAMPLERS: dict[str, Callable[[_Walk, F32], F32]] = {
    "euler": _euler,
    "euler_ancestral": _euler_ancestral,
    "heun": _heun,
    "heunpp2": _heunpp2,
    "dpm_2": _dpm_2,
    "dpmpp_2m": _dpmpp_2m,
    "lcm": _lcm,
    "ddim": _euler,
}
SAMPLERS: tuple[str, ...] = tuple(_SAMPLERS)


def sample(
    denoise_velocity: Velocity,
    start: F32,
    sigmas: F32,
    sampler: str,
    rng: np.random.RandomState,
    on_step: OnStep | None = None,
) -> F32:
    """Walk start (B, 64, 48) down the levels of sigmas and return the picture's latents.

    on_step is told the step from 1, how many there are, and the picture expected so far; it stops the walk by raising.
    Raise ValueError for an unknown sampler.
    """
    if sampler not in _SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}; one of {', '.join(SAMPLERS)}")
    if len(sigmas) < 2:
        return start
    return _SAMPLERS[sampler](_Walk(denoise_velocity, [float(level) for level in sigmas], rng, on_step), start)


def add_noise(latents: F32, noise: F32, sigma: float) -> F32:
    """Return what lies between a picture and noise at a level: all noise at 1."""
    return _along(np.float32(1.0 - sigma) * latents, noise, sigma)
