"""Samplers agree on the picture, and schedules are those of ComfyUI for flow models."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyflux import SAMPLERS, SCHEDULERS, TinyFlux, add_noise, encode_prompt, pack, sample, seeded_noise, sigmas

DETERMINISTIC = [name for name in SAMPLERS if name not in {"euler_ancestral", "lcm"}]
F32 = NDArray[np.float32]


def gaussian_velocity(x: F32, sigma: float) -> F32:
    """Return the exact velocity where pictures are normal around 0.5 with deviation 0.3."""
    mean, spread = 0.5, 0.3
    variance = (1 - sigma) ** 2 * spread**2 + sigma**2
    surprise = (x - np.float32((1 - sigma) * mean)) / np.float32(variance)
    noise, picture = np.float32(sigma) * surprise, np.float32((1 - sigma) * spread**2) * surprise
    return (noise - picture - np.float32(mean)).astype(np.float32)


def exact_picture(start: F32) -> F32:
    """Solve the flow of `gaussian_velocity` from sigma 1 to 0 in closed form."""
    return (np.float32(0.5) + np.float32(0.3) * start).astype(np.float32)


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_deterministic_samplers_reach_the_exact_picture(sampler: str) -> None:
    start = seeded_noise(3)
    rng = np.random.RandomState(0)
    coarse, fine = (
        float(
            np.abs(sample(gaussian_velocity, start, sigmas("simple", steps), sampler, rng) - exact_picture(start)).max()
        )
        for steps in (10, 160)
    )
    assert fine < 0.05
    assert fine < coarse


@pytest.mark.parametrize("sampler", ["euler_ancestral", "lcm"])
def test_random_samplers_reach_the_right_distribution(sampler: str) -> None:
    start = seeded_noise(3, batch=4)
    end = sample(gaussian_velocity, start, sigmas("simple", 200), sampler, np.random.RandomState(1))
    assert abs(float(end.mean()) - 0.5) < 0.02
    # Jumping to the expected picture each step loses variance, which is known of LCM.
    assert sampler == "lcm" or abs(float(end.std()) - 0.3) < 0.03


@pytest.mark.parametrize("sampler", ["heun", "heunpp2", "dpm_2"])
def test_higher_orders_beat_euler(sampler: str) -> None:
    start, levels = seeded_noise(5), sigmas("simple", 10)
    rng = np.random.RandomState(0)
    error, euler = (
        float(np.abs(sample(gaussian_velocity, start, levels, name, rng) - exact_picture(start)).mean())
        for name in (sampler, "euler")
    )
    assert error < euler


@pytest.mark.parametrize("sampler", ["heun", "heunpp2", "dpmpp_2m"])
def test_on_the_model_they_find_the_picture_of_a_long_euler_run(model: TinyFlux, sampler: str) -> None:
    text, start, rng = encode_prompt("red ball in the snow"), seeded_noise(1), np.random.RandomState(0)

    def velocity(x: F32, sigma: float) -> F32:
        return model.velocity(x, sigma, text, 1.0)

    reference = sample(velocity, start, sigmas("simple", 120), "euler", rng)
    found = sample(velocity, start, sigmas("simple", 40), sampler, rng)
    assert float(np.abs(found - reference).mean()) < 0.05


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_levels_fall_from_noise_to_zero(scheduler: str, steps: int) -> None:
    levels = sigmas(scheduler, steps)
    assert levels.dtype == np.float32
    assert levels[-1] == 0.0
    assert levels[0] <= 1.0
    assert (np.diff(levels) < 0).all()
    if scheduler != "ddim_uniform":
        assert len(levels) == steps + 1
        assert levels[0] > 0.95


def test_a_part_denoise_runs_the_end_of_a_longer_schedule() -> None:
    levels = sigmas("simple", 10, denoise=0.5)
    np.testing.assert_array_equal(levels, sigmas("simple", 20)[-11:])
    assert len(sigmas("simple", 10, denoise=0.0)) == 0


def test_the_beta_schedule_crowds_both_ends() -> None:
    widths = -np.diff(sigmas("beta", 20))
    assert widths[0] < widths[10]
    assert widths[-1] < widths[10]


def test_each_step_is_told_and_can_stop_the_walk() -> None:
    told: list[tuple[int, int]] = []

    def on_step(step: int, total: int, picture: F32) -> None:
        assert picture.shape == (1, 64, 48)
        told.append((step, total))
        if step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sample(gaussian_velocity, seeded_noise(1), sigmas("simple", 5), "heun", np.random.RandomState(0), on_step)
    assert told == [(1, 5), (2, 5), (3, 5)]


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="euler_ancestral"):
        sample(gaussian_velocity, seeded_noise(1), sigmas("simple", 2), "eular", np.random.RandomState(0))
    with pytest.raises(ValueError, match="sgm_uniform"):
        sigmas("simpel", 2)
    with pytest.raises(ValueError, match="at least 1"):
        sigmas("simple", 0)


def test_noise_is_mixed_by_its_level() -> None:
    picture = pack(np.ones((1, 32, 32, 3), dtype=np.float32))
    noise = seeded_noise(2**40 + 1)
    np.testing.assert_allclose(add_noise(picture, noise, 0.0), picture)
    np.testing.assert_allclose(add_noise(picture, noise, 1.0), noise)
    assert not np.array_equal(noise, seeded_noise(1))
