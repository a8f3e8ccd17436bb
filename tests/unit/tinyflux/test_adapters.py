"""LoRA files have AI Toolkit's key names, come back as they were saved, and are judged before they are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyflux import TARGET_SHAPES, Lora, TinyFlux, encode_prompt, seeded_noise, text_to_pixels
from tinyflux.tensor_files import write_tensors


def random_lora(rank: int = 4, seed: int = 0) -> Lora:
    """Make a LoRA that changes every layer."""
    rng = np.random.RandomState(seed)
    tensors: dict[str, NDArray[np.float32]] = {}
    for module, (out_width, in_width) in TARGET_SHAPES.items():
        for half, shape in (("A", (rank, in_width)), ("B", (out_width, rank))):
            tensors[f"transformer.{module}.lora_{half}.weight"] = rng.normal(0.0, 0.1, shape).astype(np.float32)
    return Lora(tensors)


def test_keys_are_those_of_flux_by_ai_toolkit() -> None:
    keys = set(random_lora().tensors)
    for expected in (
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
        "transformer.transformer_blocks.1.attn.add_k_proj.lora_B.weight",
        "transformer.transformer_blocks.0.attn.to_out.0.lora_A.weight",
        "transformer.transformer_blocks.0.attn.to_add_out.lora_A.weight",
        "transformer.transformer_blocks.0.ff.net.0.proj.lora_A.weight",
        "transformer.transformer_blocks.0.ff.net.2.lora_B.weight",
        "transformer.transformer_blocks.0.ff_context.net.0.proj.lora_A.weight",
        "transformer.transformer_blocks.0.norm1.linear.lora_A.weight",
        "transformer.transformer_blocks.0.norm1_context.linear.lora_A.weight",
        "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight",
        "transformer.single_transformer_blocks.2.proj_mlp.lora_A.weight",
        "transformer.single_transformer_blocks.2.proj_out.lora_B.weight",
        "transformer.single_transformer_blocks.1.norm.linear.lora_B.weight",
    ):
        assert expected in keys
    assert len(keys) == 2 * 46
    assert not any(key.endswith("alpha") for key in keys)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 0.0), (np.float16, 1e-3)])
def test_a_saved_lora_comes_back(tmp_path: Path, dtype: type[np.floating], tolerance: float) -> None:
    lora, path = random_lora(rank=3), tmp_path / "cat.safetensors"
    lora.save(path, {"ss_base_model_version": "flux.1"}, dtype)
    found = Lora.load(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.safetensors"]
    values = sum(tensor.size for tensor in lora.tensors.values())
    assert 0 <= path.stat().st_size - values * np.dtype(dtype).itemsize < 20_000
    assert found.metadata == {"ss_base_model_version": "flux.1"}
    assert (found.rank, found.alpha) == (3, 3.0)
    assert list(found.tensors) == list(lora.tensors)
    for key, tensor in lora.tensors.items():
        np.testing.assert_allclose(found.tensors[key], tensor, atol=tolerance)


def test_strength_zero_is_the_base_to_the_bit(model: TinyFlux) -> None:
    plain = text_to_pixels(model, "a cat", seed=4, steps=6)
    np.testing.assert_array_equal(plain, text_to_pixels(model.with_loras([(random_lora(), 0.0)]), "a cat", 4, steps=6))
    changed = text_to_pixels(model.with_loras([(random_lora(), 1.0)]), "a cat", seed=4, steps=6)
    assert not np.array_equal(plain, changed)


def test_loras_add_up_and_leave_the_base_alone(model: TinyFlux) -> None:
    latents, text = seeded_noise(1), encode_prompt("a cat")
    before = model.velocity(latents, 0.5, text, 1.0)
    one, two = random_lora(seed=1), random_lora(seed=2)
    both = model.with_loras([(one, 0.5), (two, -0.25)])
    chained = model.with_loras([(one, 0.5)]).with_loras([(two, -0.25)])
    np.testing.assert_allclose(
        both.velocity(latents, 0.5, text, 1.0), chained.velocity(latents, 0.5, text, 1.0), atol=1e-5
    )
    undone = both.with_loras([(one, -0.5), (two, 0.25)])
    np.testing.assert_allclose(undone.velocity(latents, 0.5, text, 1.0), before, atol=1e-3)
    np.testing.assert_array_equal(model.velocity(latents, 0.5, text, 1.0), before)


def test_an_alpha_in_a_file_scales_its_layer() -> None:
    module = "single_transformer_blocks.0.attn.to_q"
    tensors = {key: tensor for key, tensor in random_lora(rank=4).tensors.items() if module in key}
    lora = Lora({**tensors, f"transformer.{module}.alpha": np.array([2.0], np.float32)})
    assert lora.alpha == 2.0
    assert lora.pair(module)[2] == 0.5


def test_what_does_not_fit_is_refused_with_the_key(tmp_path: Path) -> None:
    key = "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"
    half = {key: np.zeros((4, 96), np.float32)}
    with pytest.raises(ValueError, match=r"lora_B\.weight is missing"):
        Lora(half)
    with pytest.raises(ValueError, match="no LoRA"):
        Lora({})
    with pytest.raises(ValueError, match=r"must be \(rank, 96\)"):
        Lora({key: np.zeros((4, 3072), np.float32)})
    with pytest.raises(ValueError, match="ranks of"):
        Lora({**half, key.replace("lora_A", "lora_B"): np.zeros((96, 2), np.float32)})
    path = tmp_path / "sdxl.safetensors"
    write_tensors(path, {"lora_unet_down_blocks_0.lora_down.weight": np.zeros((4, 320), np.float32)}, {})
    with pytest.raises(ValueError, match="no layer for the key 'lora_unet_down_blocks_0"):
        Lora.load(path)
    path.write_bytes(b"\0" * 4)
    with pytest.raises(ValueError, match="not a safetensors file"):
        Lora.load(path)
