"""Walk from noise to a picture by the published samplers, in the form that they have for flow models.

The model's velocity v at a noise level s gives the picture it expects, x - s v; every sampler is stated in that picture.
"""

from __future__ import annotations

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
        self.told(step, x - np.float32(level) * velocity)
        return velocity


def _euler(walk: _Walk, x: F32) -> F32:
    for step in range(walk.steps):
        x = x + np.float32(walk.levels[step + 1] - walk.levels[step]) * walk.slope(step, x)
    return x


def _euler_ancestral(walk: _Walk, x: F32) -> F32:
    """Step below the next level and add fresh noise back, so that the variance along the flow is kept."""
    for step in range(walk.steps):
        level, following = walk.levels[step], walk.levels[step + 1]
        picture = x - np.float32(level) * walk.slope(step, x)
        if following == 0.0:
            return picture
        below = following * following / level
        x = np.float32(below / level) * x + np.float32(1.0 - below / level) * picture
        shrink = (1.0 - following) / (1.0 - below)
        fresh = max(0.0, following**2 - (below * shrink) ** 2) ** 0.5
        noise = walk.rng.standard_normal(x.shape).astype(np.float32)
        x = np.float32(shrink) * x + np.float32(fresh) * noise
    return x


def _heun(walk: _Walk, x: F32) -> F32:
    for step in range(walk.steps):
        following = walk.levels[step + 1]
        width = np.float32(following - walk.levels[step])
        first = walk.slope(step, x)
        if following == 0.0:
            return x + width * first
        x = x + width * np.float32(0.5) * (first + walk.velocity(x + width * first, following))
    return x


def _heunpp2(walk: _Walk, x: F32) -> F32:
    """Weigh slopes of up to three coming levels, more for noisier ones (Heun++, arXiv 2306.14177)."""
    highest = walk.levels[0]
    for step in range(walk.steps):
        level, following = walk.levels[step], walk.levels[step + 1]
        width = np.float32(following - level)
        first = walk.slope(step, x)
        if following == 0.0:
            return x + width * first
        there = x + width * first
        second = walk.velocity(there, following)
        last = step + 2 > walk.steps or walk.levels[step + 2] == 0.0
        if last:
            share = following / (2.0 * highest)
            slope = np.float32(1.0 - share) * first + np.float32(share) * second
        else:
            beyond = walk.levels[step + 2]
            third = walk.velocity(there + np.float32(beyond - following) * second, beyond)
            near, far = following / (3.0 * highest), beyond / (3.0 * highest)
            slope = np.float32(1.0 - near - far) * first + np.float32(near) * second + np.float32(far) * third
        x = x + width * slope
    return x


def _dpm_2(walk: _Walk, x: F32) -> F32:
    """Take the slope halfway, in the logarithm of the level."""
    for step in range(walk.steps):
        level, following = walk.levels[step], walk.levels[step + 1]
        first = walk.slope(step, x)
        if following == 0.0:
            return x + np.float32(following - level) * first
        middle = (level * following) ** 0.5
        halfway = walk.velocity(x + np.float32(middle - level) * first, middle)
        x = x + np.float32(following - level) * halfway
    return x


def _dpmpp_2m(walk: _Walk, x: F32) -> F32:
    """Extrapolate the expected picture from the two latest (DPM-Solver++ 2M, arXiv 2211.01095)."""
    before: F32 | None = None
    for step in range(walk.steps):
        level, following = walk.levels[step], walk.levels[step + 1]
        picture = x - np.float32(level) * walk.slope(step, x)
        if following == 0.0:
            return picture
        aim = picture
        if before is not None:
            ratio = np.log(walk.levels[step - 1] / level) / np.log(level / following)
            share = 0.5 / ratio
            aim = np.float32(1.0 + share) * picture - np.float32(share) * before
        x = np.float32(following / level) * x + np.float32(1.0 - following / level) * aim
        before = picture
    return x


def _lcm(walk: _Walk, x: F32) -> F32:
    """Jump to the expected picture and back to the next level with fresh noise."""
    for step in range(walk.steps):
        following = np.float32(walk.levels[step + 1])
        x = x - np.float32(walk.levels[step]) * walk.slope(step, x)
        if following > 0.0:
            noise = walk.rng.standard_normal(x.shape).astype(np.float32)
            x = (np.float32(1.0) - following) * x + following * noise
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
    return np.float32(1.0 - sigma) * latents + np.float32(sigma) * noise
