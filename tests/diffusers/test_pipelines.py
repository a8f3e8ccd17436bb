"""Rendering with diffusers: a tiny random SD 1.5, made on the spot, on the CPU."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from comfy_mcp.engines.diffusers_models import DiffusersModel, models_in
from comfy_mcp.engines.diffusers_pipelines import LoraWeights, PictureRequest, render

# What the libraries deprecate among themselves is no fault of ours.
pytestmark = pytest.mark.filterwarnings("ignore")

_WIDTH = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusersModel:
    torch: Any = import_module("torch")
    diffusers: Any = import_module("diffusers")
    transformers: Any = import_module("transformers")
    folder = tmp_path_factory.mktemp("models")
    words = [
        "<|startoftext|>",
        "<|endoftext|>",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    pipeline = diffusers.StableDiffusionPipeline(
        unet=diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(_WIDTH, _WIDTH),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=_WIDTH,
            attention_head_dim=8,
            norm_num_groups=8,
        ),
        vae=diffusers.AutoencoderKL(block_out_channels=(_WIDTH,), latent_channels=4, norm_num_groups=8),
        text_encoder=transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                hidden_size=_WIDTH,
                intermediate_size=37,
                num_attention_heads=4,
                num_hidden_layers=2,
                vocab_size=len(words),
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        ),
        tokenizer=transformers.CLIPTokenizer(
            str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
        ),
        scheduler=diffusers.EulerDiscreteScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(str(folder / "tiny"))
    [found] = models_in([folder])
    return found


def _request(seed: int = 3, loras: tuple[LoraWeights, ...] = ()) -> PictureRequest:
    return PictureRequest(prompt="a cat", width=32, height=32, steps=2, guidance=5.0, seed=seed, loras=loras)


def _on(step: int, steps: int) -> bool:
    return True


def test_a_seed_gives_the_same_picture_again(model: DiffusersModel) -> None:
    heard: list[tuple[int, int]] = []

    def hear(step: int, steps: int) -> bool:
        heard.append((step, steps))
        return True

    first = render(model, _request(), hear)
    assert model.family == "sd15"
    assert first is not None
    assert first[0].startswith(b"\x89PNG")
    assert first == render(model, _request(), _on)
    assert first != render(model, _request(seed=4), _on)
    assert heard == [(1, 2), (2, 2)]


def test_a_rendering_stops_between_steps(model: DiffusersModel) -> None:
    heard: list[int] = []

    def stop(step: int, steps: int) -> bool:
        heard.append(step)
        return False

    assert render(model, _request(), stop) is None
    assert heard == [1]


def test_a_lora_works_by_its_strength(model: DiffusersModel, tmp_path: Path) -> None:
    torch: Any = import_module("torch")
    save: Any = import_module("safetensors.torch").save_file
    key = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_v"
    save(
        {f"{key}.lora_A.weight": torch.randn(2, _WIDTH), f"{key}.lora_B.weight": torch.randn(_WIDTH, 2) * 9},
        tmp_path / "a.safetensors",
    )
    plain = render(model, _request(), _on)
    without = render(model, _request(loras=(LoraWeights(tmp_path / "a.safetensors", 0.0),)), _on)
    strong = render(model, _request(loras=(LoraWeights(tmp_path / "a.safetensors", 1.0),)), _on)
    assert plain == without
    assert plain != strong
