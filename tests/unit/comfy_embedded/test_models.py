"""Which layers of a LoRA file are taken, and what the log says of the others."""

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from comfy_mcp.embedded.nodes.models import LoadedModels, require_tinyflux
from tests.contract.comfyui.conftest import write_lora
from tinyflux import TARGET_SHAPES, weights_path

LAYER = "transformer_blocks.0.attn.to_q"
OTHER = "single_transformer_blocks.1.proj_mlp"


def _pair(module: str, rank: int = 4, wide: int | None = None) -> dict[str, NDArray[np.float16]]:
    out_width, in_width = TARGET_SHAPES[module]
    return {
        f"transformer.{module}.lora_A.weight": np.ones((rank, wide or in_width), np.float16),
        f"transformer.{module}.lora_B.weight": np.ones((wide or out_width, rank), np.float16),
    }


def _write(path: Path, tensors: dict[str, NDArray[np.float16]]) -> Path:
    path.write_bytes(save(tensors))
    return path


def test_fitting_layers_are_taken_with_their_alpha(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = _pair(LAYER) | {f"transformer.{LAYER}.alpha": np.array(2.0, np.float16)}
    lora = LoadedModels().lora(_write(tmp_path / "a.safetensors", tensors))
    assert lora is not None
    assert (lora.modules, lora.rank, lora.alpha) == ((LAYER,), 4, 2.0)
    assert caplog.messages == []


def test_layers_that_do_not_fit_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    unknown = {"lora_unet_mid_block.lora_down.weight": np.ones((4, 8), np.float16)}
    half = {f"transformer.{OTHER}.lora_A.weight": np.ones((4, 96), np.float16)}
    wrong = _pair("transformer_blocks.1.attn.to_k", wide=3072)
    path = _write(tmp_path / "mixed.safetensors", _pair(LAYER) | unknown | half | wrong)
    with caplog.at_level(logging.WARNING):
        lora = LoadedModels().lora(path)
    assert lora is not None
    assert lora.modules == (LAYER,)
    assert "lora key not loaded: lora_unet_mid_block.lora_down.weight" in caplog.messages
    assert f"lora key not loaded: transformer.{OTHER}.lora_A.weight" in caplog.messages
    assert any(message.startswith("ERROR lora transformer_blocks.1.attn.to_k shape") for message in caplog.messages)


def test_a_file_without_a_fitting_layer_is_no_lora(tmp_path: Path) -> None:
    path = _write(tmp_path / "sd.safetensors", {"lora_unet_mid_block.lora_down.weight": np.ones((4, 8), np.float16)})
    assert LoadedModels().lora(path) is None


def test_a_file_is_read_once_until_it_changes_or_is_forgotten(tmp_path: Path) -> None:
    models, path = LoadedModels(), tmp_path / "a.safetensors"
    write_lora(path, 1)
    first = models.lora(path)
    assert models.lora(path) is first
    models.forget()
    assert models.lora(path) is not first
    _write(path, _pair(LAYER))
    changed = models.lora(path)
    assert changed is not None
    assert changed.modules == (LAYER,)


def test_the_packaged_weights_are_recognised(tmp_path: Path) -> None:
    require_tinyflux(weights_path())
    with pytest.raises(RuntimeError, match=r"Could not load a.safetensors: the embedded engine renders only"):
        require_tinyflux(_write(tmp_path / "a.safetensors", _pair(LAYER)))
