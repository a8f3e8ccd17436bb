"""Packing is an orthonormal change of basis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyflux import from_bytes, pack, to_bytes, unpack


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 3))
def test_pictures_come_back_and_lengths_are_kept(seed: int, batch: int) -> None:
    pixels = np.random.RandomState(seed).uniform(-1, 1, (batch, 32, 32, 3)).astype(np.float32)
    latents = pack(pixels)
    assert latents.shape == (batch, 64, 48)
    assert latents.dtype == np.float32
    np.testing.assert_allclose(unpack(latents), pixels, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(latents), np.linalg.norm(pixels), rtol=1e-5)


def test_bytes_survive_the_way_through_latents() -> None:
    pixels = np.random.RandomState(1).randint(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    np.testing.assert_array_equal(to_bytes(unpack(pack(from_bytes(pixels)))), pixels)


def test_a_token_is_a_patch() -> None:
    pixels = np.zeros((1, 32, 32, 3), dtype=np.float32)
    pixels[0, 4:8, 8:12] = 1.0
    lit = np.flatnonzero(np.abs(pack(pixels)[0]).sum(axis=1) > 1e-6)
    assert lit.tolist() == [1 * 8 + 2]


@pytest.mark.parametrize("shape", [(32, 32, 3), (1, 16, 16, 3), (1, 32, 32, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="32, 32, 3"):
        pack(np.zeros(shape, dtype=np.float32))


def test_other_latents_are_refused() -> None:
    with pytest.raises(ValueError, match="64, 48"):
        unpack(np.zeros((1, 16, 48), dtype=np.float32))
