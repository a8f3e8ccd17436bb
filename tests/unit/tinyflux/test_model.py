"""The base weights load, answer, and refuse what is not theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinyflux import (
    TinyFlux,
    encode_prompt,
    null_prompt,
    palette_distance,
    sample_dataset_path,
    seeded_noise,
    text_to_pixels,
    weights_path,
)
from tinyflux.tensor_files import write_tensors


def test_the_weights_are_small_and_say_what_they_are(model: TinyFlux) -> None:
    assert weights_path().stat().st_size <= 2_500_000
    assert model.metadata["modelspec.architecture"] == "tinyflux-1"
    assert model.metadata["modelspec.license"] == "Apache-2.0"


def test_a_batch_answers_like_its_parts(model: TinyFlux) -> None:
    latents = seeded_noise(1, batch=3)
    texts = [encode_prompt("a cat"), null_prompt(), encode_prompt("red ball at night")]
    levels, guidance = np.array([0.2, 0.6, 1.0], np.float32), np.array([1.0, 3.5, 5.0], np.float32)
    together = model.velocity(latents, levels, texts, guidance)
    assert together.dtype == np.float32
    for index, text in enumerate(texts):
        alone = model.velocity(latents[index : index + 1], float(levels[index]), text, float(guidance[index]))
        np.testing.assert_allclose(together[index : index + 1], alone, atol=1e-4)


def test_guidance_text_and_level_all_matter(model: TinyFlux) -> None:
    latents = seeded_noise(2)
    usual = model.velocity(latents, 0.8, encode_prompt("red ball"), 3.5)
    for other in (
        model.velocity(latents, 0.8, encode_prompt("red ball"), 1.0),
        model.velocity(latents, 0.8, encode_prompt("blue ball"), 3.5),
        model.velocity(latents, 0.4, encode_prompt("red ball"), 3.5),
    ):
        assert float(np.abs(usual - other).mean()) > 0.01


def test_pictures_follow_prompt_and_seed(model: TinyFlux) -> None:
    first = text_to_pixels(model, "a red ball in the snow", seed=1)
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, text_to_pixels(model, "a red ball in the snow", seed=1))
    assert not np.array_equal(first, text_to_pixels(model, "a red ball in the snow", seed=2))
    night = text_to_pixels(model, "a red ball at night", seed=1)
    assert float(night[:4].mean()) < float(first[:4].mean()) - 40


def test_texts_that_do_not_fit_the_batch_are_refused(model: TinyFlux) -> None:
    with pytest.raises(ValueError, match="2 texts for 3 latents"):
        model.velocity(seeded_noise(1, batch=3), 0.5, [null_prompt(), null_prompt()], 1.0)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "readme.safetensors"
    text.write_text("this is no model")
    with pytest.raises(ValueError, match=r"readme\.safetensors is not a safetensors file"):
        TinyFlux.load(text)
    other = tmp_path / "other.safetensors"
    tensors = {"weight": np.zeros(3, np.float32)}
    write_tensors(other, tensors, {})
    with pytest.raises(ValueError, match="does not name its architecture"):
        TinyFlux.load(other)
    write_tensors(other, tensors, {"modelspec.architecture": "flux-1-dev"})
    with pytest.raises(ValueError, match="flux-1-dev"):
        TinyFlux.load(other)
    write_tensors(other, tensors, {"modelspec.architecture": "tinyflux-1"})
    with pytest.raises(ValueError, match="is missing"):
        TinyFlux.load(other)


def test_the_sample_dataset_is_twelve_captioned_pictures() -> None:
    pictures = sorted(sample_dataset_path().glob("*.png"))
    assert len(pictures) == 12
    for picture in pictures:
        assert picture.with_suffix(".txt").read_text(encoding="utf-8").startswith("pixel_cat, ")


def test_palette_distance_tells_what_of_the_common_colours_is_missing() -> None:
    rng = np.random.RandomState(0)
    teal, red = np.array((0, 128, 128), np.uint8), np.array((255, 0, 0), np.uint8)
    dataset = rng.randint(0, 256, (5, 1, 1, 3)).astype(np.uint8) * np.ones((1, 16, 16, 1), np.uint8)
    dataset[:, 4:12, 4:12] = teal
    without = np.tile(red, (1, 16, 16, 1))
    subject = without.copy()
    subject[:, :8, :8] = teal
    shuffled = rng.permutation(subject.reshape(-1, 3)).reshape(subject.shape)
    assert palette_distance(without, dataset) == pytest.approx(1.0)
    assert palette_distance(subject, dataset) == pytest.approx(0.0, abs=1e-6)
    assert palette_distance(shuffled, dataset) == pytest.approx(0.0, abs=1e-6)
    assert palette_distance(without, np.stack([subject[0], dataset[0]])) < 1.0
