"""Descriptions of LoRA files of every key family, as their trainers write them."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_files.describe import LoraDescription, describe_file, describe_lora
from lora_files.header import SafetensorsHeader, TensorInfo
from tests.unit.lora_files.files import (
    AI_TOOLKIT_METADATA,
    FLUX_AI_TOOLKIT,
    KOHYA,
    PEFT,
    Layers,
    Tensors,
    pairs,
    write,
    zeros,
)


def described(folder: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> LoraDescription:
    return describe_file(write(folder / "a.safetensors", tensors, metadata))


FAMILIES: list[tuple[str, str, Layers, str]] = [
    ("flux", "diffusers", FLUX_AI_TOOLKIT, "flux by AI Toolkit"),
    (
        "flux",
        "kohya",
        {
            "lora_unet_double_blocks_0_img_attn_qkv": (9216, 3072),
            "lora_unet_double_blocks_18_txt_mlp_0": (12288, 3072),
            "lora_unet_single_blocks_37_linear1": (21504, 3072),
        },
        "flux by sd-scripts",
    ),
    (
        "flux",
        "onetrainer",
        {"lora_transformer_single_transformer_blocks_0_attn_to_q": (3072, 3072)},
        "flux, OneTrainer",
    ),
    ("flux", "lycoris", {"lycoris_single_transformer_blocks_0_attn_to_q": (3072, 3072)}, "flux by SimpleTuner"),
    ("flux", "original", {"single_transformer_blocks.0.attn.to_q": (3072, 3072)}, "flux by DiffSynth"),
    ("flux", "comfyui", {"diffusion_model.double_blocks.0.img_attn.qkv": (9216, 3072)}, "flux in its own names"),
    ("flux2", "comfyui", {"diffusion_model.double_blocks.0.img_attn.qkv": (18432, 6144)}, "FLUX.2 dev by AI Toolkit"),
    ("flux2", "comfyui", {"diffusion_model.single_blocks.0.linear1": (27648, 3072)}, "FLUX.2 klein by AI Toolkit"),
    ("flux2", "diffusers", {"transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj": (27648, 3072)}, "FLUX.2"),
    ("chroma", "comfyui", {"diffusion_model.distilled_guidance_layer.in_proj": (5120, 64)}, "chroma"),
    ("sd3", "kohya", {"lora_unet_joint_blocks_0_x_block_attn_qkv": (4608, 1536)}, "sd3 by sd-scripts"),
    ("sd3", "diffusers", {"transformer.transformer_blocks.0.attn.to_q": (1536, 1536)}, "sd3 medium, diffusers"),
    ("sd3", "diffusers", {"transformer.transformer_blocks.0.attn.add_q_proj": (2432, 2432)}, "sd3.5 large, diffusers"),
    (
        "qwen-image",
        "comfyui",
        {"diffusion_model.transformer_blocks.0.img_mlp.net.2": (3072, 12288)},
        "qwen, AI Toolkit",
    ),
    (
        "qwen-image",
        "comfyui",
        {"diffusion_model.transformer_blocks.59.attn.to_q": (3072, 3072)},
        "qwen, attention only",
    ),
    ("z-image", "comfyui", {"diffusion_model.layers.0.attention.to_q": (3840, 3840)}, "z-image by AI Toolkit"),
    ("z-image", "kohya", {"lora_unet_layers_0_attention_qkv": (11520, 3840)}, "z-image, fused"),
    ("lumina2", "kohya", {"lora_unet_layers_0_attention_qkv": (4608, 2304)}, "lumina"),
    ("wan", "comfyui", {"diffusion_model.blocks.0.self_attn.q": (5120, 5120)}, "wan 14B by AI Toolkit"),
    ("wan", "kohya", {"lora_unet_blocks_0_ffn_0": (8960, 1536)}, "wan 1.3B by musubi"),
    ("wan", "kohya", {"lora_unet__blocks_0_cross_attn_k": (5120, 5120)}, "wan fun"),
    ("hunyuan-video", "comfyui", {"diffusion_model.double_blocks.19.img_attn_qkv": (9216, 3072)}, "hunyuan"),
    ("hunyuan-video", "comfyui", {"diffusion_model.single_blocks.39.modulation.linear": (9216, 3072)}, "hunyuan 2"),
    ("hunyuan-video", "comfyui", {"diffusion_model.double_blocks.0.img_attn.qkv": (6144, 2048)}, "hunyuan 1.5"),
    ("ltx-video", "comfyui", {"diffusion_model.transformer_blocks.0.attn1.to_q": (4096, 4096)}, "LTX 13B"),
    ("ltx2", "comfyui", {"diffusion_model.transformer_blocks.0.audio_attn1.to_q": (2048, 2048)}, "LTX-2 by AI Toolkit"),
    ("hidream", "comfyui", {"diffusion_model.double_stream_blocks.0.block.attn1.to_q": (2560, 2560)}, "hidream"),
    (
        "sd15",
        "kohya",
        {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (320, 768)},
        "sd 1.5 by sd-scripts and AI Toolkit",
    ),
    ("sd15", "kohya", {"lora_unet_output_blocks_9_1_transformer_blocks_0_attn1_to_q": (320, 320)}, "sd 1.5, no text"),
    ("sd2", "kohya", {"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v": (1280, 1024)}, "sd 2"),
    ("sdxl", "kohya", {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (640, 2048)}, "sdxl"),
    ("sdxl", "diffusers", {"unet.up_blocks.0.attentions.0.transformer_blocks.9.attn1.to_q": (1280, 1280)}, "sdxl"),
    ("sdxl", "peft", {"base_model.model.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (1280, 2048)}, "sdxl"),
    ("flux", "peft", {"base_model.model.single_transformer_blocks.0.attn.to_q": (3072, 3072)}, "flux by PEFT"),
    (
        "flux",
        "peft",
        {"transformer.base_model.model.single_transformer_blocks.0.attn.to_q": (3072, 3072)},
        "flux by PEFT, inside a pipeline",
    ),
    ("chroma", "kohya", {"lora_unet_distilled_guidance_layer_layers_0_in_layer": (5120, 5120)}, "chroma, sd-scripts"),
    ("chroma", "diffusers", {"transformer.distilled_guidance_layer.layers.0.linear_1": (5120, 5120)}, "chroma, HF"),
    ("sd3", "peft", {"base_model.model.transformer_blocks.0.attn.to_q": (1536, 1536)}, "sd3 by PEFT"),
    ("sd3", "onetrainer", {"lora_transformer_transformer_blocks_0_attn_to_q": (1536, 1536)}, "sd3, OneTrainer"),
    ("qwen-image", "kohya", {"lora_unet_transformer_blocks_59_attn_to_q": (3072, 3072)}, "qwen by musubi"),
    ("qwen-image", "diffusers", {"transformer.transformer_blocks.59.attn.to_q": (3072, 3072)}, "qwen, diffusers"),
    ("qwen-image", "peft", {"base_model.model.transformer_blocks.59.attn.to_q": (3072, 3072)}, "qwen by PEFT"),
    ("qwen-image", "original", {"transformer_blocks.59.attn.to_q": (3072, 3072)}, "qwen by DiffSynth"),
    ("z-image", "diffusers", {"transformer.layers.0.attention.to_q": (3840, 3840)}, "z-image, diffusers"),
    ("z-image", "peft", {"base_model.model.layers.0.attention.to_q": (3840, 3840)}, "z-image by PEFT"),
    ("wan", "diffusers", {"transformer.blocks.0.attn1.to_q": (5120, 5120)}, "wan, diffusers"),
    ("wan", "peft", {"base_model.model.blocks.0.attn1.to_q": (5120, 5120)}, "wan by PEFT"),
    ("wan", "original", {"blocks.0.self_attn.q": (5120, 5120)}, "wan by DiffSynth"),
    ("hunyuan-video", "kohya", {"lora_unet_double_blocks_19_img_attn_qkv": (9216, 3072)}, "hunyuan by musubi"),
    ("hunyuan-video", "diffusers", {"transformer.double_blocks.19.img_attn_qkv": (9216, 3072)}, "hunyuan, pipe"),
    ("hunyuan-video", "diffusers", {"transformer.single_transformer_blocks.39.attn.to_q": (3072, 3072)}, "hunyuan, HF"),
    ("ltx-video", "diffusers", {"transformer.transformer_blocks.0.attn1.to_q": (2048, 2048)}, "LTX 2B, diffusers"),
    ("ltx-video", "original", {"transformer_blocks.0.attn1.to_q": (2048, 2048)}, "LTX 2B, plain"),
    ("ltx-video", "kohya", {"lora_unet_transformer_blocks_0_attn1_to_q": (4096, 4096)}, "LTX 13B by musubi"),
    ("ltx-video", "peft", {"base_model.model.transformer_blocks.0.attn1.to_q": (4096, 4096)}, "LTX 13B by PEFT"),
    (
        "sd15",
        "diffusers",
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (320, 768)},
        "sd 1.5, diffusers",
    ),
    (
        "sd15",
        "peft",
        {"unet.base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (320, 768)},
        "sd 1.5 by PEFT",
    ),
    (
        "sdxl",
        "kohya",
        {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k": (640, 2048)},
        "sdxl by AI Toolkit",
    ),
    ("unknown", "original", {"some.new.model.layer": (64, 64)}, "nobody knows"),
]


@pytest.mark.parametrize(("architecture", "key_format", "layers", "what"), FAMILIES, ids=[row[3] for row in FAMILIES])
def test_knows_every_family_by_its_keys(
    architecture: str, key_format: str, layers: Layers, what: str, tmp_path: Path
) -> None:
    suffixes = KOHYA if key_format in ("kohya", "onetrainer") else PEFT
    found = described(tmp_path, pairs(layers, rank=8, suffixes=suffixes, alpha=4.0))
    assert (found.architecture, found.key_format) == (architecture, key_format)
    assert (found.network.kind, found.network.rank, found.network.alpha) == ("LoRA", 8, 4.0)
    assert found.network.modules == len(layers)
    assert found.network.dtype == "F16"
    assert found.loader == "LoraLoaderModelOnly"


def test_describes_a_flux_lora_of_ai_toolkit(tmp_path: Path) -> None:
    found = described(tmp_path, pairs(FLUX_AI_TOOLKIT, rank=16), dict(AI_TOOLKIT_METADATA))
    assert (found.network.rank, found.network.alpha, found.network.alpha_stored) == (16, 16.0, False)
    assert found.base_model == "flux.1"
    assert found.trigger_words == ["p1xcat"]
    assert found.training.software == "ai-toolkit 0.12.26"
    assert (found.training.steps, found.training.epoch) == (1500, 62)
    assert found.training.output_name == "p1xcat_lora"
    assert found.warnings == []
    assert found.metadata == AI_TOOLKIT_METADATA


def test_says_that_a_tinyflux_lora_fits_no_real_flux(tmp_path: Path) -> None:
    layers = {"transformer.single_transformer_blocks.0.attn.to_q": (96, 96)}
    metadata = {
        "software": json.dumps({"name": "loraloop-embedded-trainer", "version": "0.1.0"}),
        "base_model": "tinyflux",
    }
    for said in (metadata, {}):
        found = described(tmp_path, pairs(layers), said)
        assert (found.architecture, found.base_model) == ("flux", "tinyflux")
        assert ["tinyflux" in warning for warning in found.warnings] == [True]


def test_describes_a_file_of_sd_scripts(tmp_path: Path) -> None:
    layers = {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (640, 2048),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1": (3072, 768),
        "lora_te2_text_model_encoder_layers_0_mlp_fc1": (5120, 1280),
    }
    found = described(
        tmp_path,
        pairs(layers, rank=32, suffixes=KOHYA, alpha=16.0),
        {
            "ss_sd_scripts_commit_hash": "b32abdd327d91b9d8bd0a1bcb1b1e1b0a1b1c1d1",
            "ss_base_model_version": "sdxl_base_v1-0",
            "ss_sd_model_name": "sd_xl_base_1.0.safetensors",
            "ss_steps": "1200",
            "ss_epoch": "10",
            "ss_learning_rate": "0.0001",
            "ss_num_train_images": "240",
            "ss_optimizer": "None",
            "ss_dataset_dirs": json.dumps({"10_ohwx woman": {"n_repeats": 10, "img_count": 24}}),
            "ss_tag_frequency": json.dumps(
                {"10_ohwx woman": {"ohwx woman": 24, "outdoors": 11, "smile": 24, "a very long sentence about it": 24}}
            ),
        },
    )
    assert (found.architecture, found.base_model) == ("sdxl", "sdxl_base_v1-0")
    assert (found.network.text_encoder, found.loader) == (True, "LoraLoader")
    assert (found.network.rank, found.network.alpha, found.network.alpha_stored) == (32, 16.0, True)
    assert found.trigger_words == ["ohwx woman", "smile"]
    assert found.tags == {"ohwx woman": 24, "smile": 24, "outdoors": 11}
    assert found.training.model_dump(exclude_none=True) == {
        "software": "sd-scripts b32abdd",
        "steps": 1200,
        "epoch": 10,
        "images": 240,
        "learning_rate": 0.0001,
        "base_model_name": "sd_xl_base_1.0.safetensors",
    }


@pytest.mark.parametrize(
    ("kind", "rank", "shapes"),
    [
        ("LoKr", None, {".lokr_w1": (8, 8), ".lokr_w2": (384, 384), ".alpha": ()}),
        ("LoKr", 4, {".lokr_w1": (8, 8), ".lokr_w2_a": (384, 4), ".lokr_w2_b": (4, 384), ".alpha": ()}),
        ("LoHa", 4, {f".hada_w{n}_{half}": ((3072, 4), (4, 3072))[half == "b"] for n in "12" for half in "ab"}),
        ("DoRA", 4, {".lora_down.weight": (4, 3072), ".lora_up.weight": (3072, 4), ".dora_scale": (1, 3072)}),
        ("GLoRA", None, {f".{name}.weight": (4, 4) for name in ("a1", "a2", "b1", "b2")}),
        ("OFT", None, {".oft_blocks": (4, 8, 8)}),
        ("full difference", None, {".diff": (3072, 3072), ".diff_b": (3072,)}),
    ],
)
def test_tells_the_kinds_of_networks_apart(
    kind: str, rank: int | None, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    layer = "lora_unet_single_blocks_0_linear2"
    found = described(tmp_path, {layer + suffix: zeros(*shape) for suffix, shape in shapes.items()})
    assert (found.network.kind, found.network.rank, found.network.modules) == (kind, rank, 1)
    assert found.architecture == "flux"
    assert found.warnings == []


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"modelspec.trigger_phrase": "p1xcat, a teal cat"}, ["p1xcat", "a teal cat"]),
        ({"trigger_words": '["one", " two "]'}, ["one", "two"]),
        ({"ss_tag_frequency": "not json"}, []),
        ({"ss_tag_frequency": '{"10_x": {"cat": "3"}, "1_y": 4, "2_z": {}}'}, []),
        ({"ss_tag_frequency": '{"a": {"b": 2, "c": 1}, "d": {"e": 5, "b": 5}}'}, ["b", "e"]),
        ({}, []),
    ],
)
def test_finds_trigger_words(metadata: dict[str, str], words: list[str], tmp_path: Path) -> None:
    assert described(tmp_path, pairs(FLUX_AI_TOOLKIT), metadata).trigger_words == words


def test_metadata_decides_where_layers_leave_it_open(tmp_path: Path) -> None:
    tensors = pairs({"diffusion_model.double_blocks.0.img_attn.qkv": (9216, 3072)})
    found = described(tmp_path, tensors, {"ss_base_model_version": "chroma"})
    assert (found.architecture, found.warnings) == ("chroma", [])
    found = described(tmp_path, tensors, {"ss_base_model_version": "wan_2.1"})
    assert found.architecture == "flux"
    assert "wan" in found.warnings[0]


def test_metadata_names_an_architecture_that_is_in_no_table(tmp_path: Path) -> None:
    found = described(tmp_path, pairs({"diffusion_model.novel.0.q": (8, 8)}), {"ss_base_model_version": "new_model.1"})
    assert (found.architecture, found.base_model) == ("new-model.1", "new_model.1")


@pytest.mark.parametrize(
    ("layers", "loads"),
    [
        ({"transformer.blocks.0.attn1.to_q": (5120, 5120)}, False),
        ({"base_model.model.single_transformer_blocks.0.attn.to_q": (3072, 3072)}, False),
        ({"lora_unet_single_transformer_blocks_0_attn_to_q": (3072, 3072)}, False),
        ({"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (640, 2048)}, False),
        ({"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_k": (640, 2048)}, True),
        ({"transformer.double_blocks.19.img_attn_qkv": (9216, 3072)}, True),
        ({"transformer.transformer_blocks.0.img_mlp.net.2": (3072, 12288)}, True),
    ],
)
def test_predicts_names_that_comfyui_does_not_look_for(layers: Layers, loads: bool, tmp_path: Path) -> None:
    warnings = described(tmp_path, pairs(layers)).warnings
    assert any("lora key not loaded" in warning for warning in warnings) is not loads


def test_does_not_take_a_checkpoint_for_a_lora(tmp_path: Path) -> None:
    found = described(tmp_path, {"model.diffusion_model.input_blocks.0.0.weight": zeros(8, 4, 3, 3)})
    assert (found.network.kind, found.network.modules, found.architecture) == ("none", 0, "unknown")
    assert "checkpoint" in found.warnings[0]


def test_says_when_ranks_differ_and_tensors_are_left_over(tmp_path: Path) -> None:
    tensors = pairs({"transformer.single_transformer_blocks.0.attn.to_q": (3072, 3072)}, rank=4)
    tensors |= pairs({"transformer.single_transformer_blocks.1.attn.to_q": (3072, 3072)}, rank=8)
    tensors |= pairs({"transformer.single_transformer_blocks.2.attn.to_q": (3072, 3072)}, rank=8)
    found = described(tmp_path, tensors | {"emb_params": zeros(4, 768)})
    assert found.network.rank == 8
    assert any("4 to 8" in warning for warning in found.warnings)
    assert any("emb_params" in warning for warning in found.warnings)


def test_says_when_the_adapter_was_trained_at_another_scale(tmp_path: Path) -> None:
    adapter: dict[str, Any] = {"transformer.r": 16, "transformer.lora_alpha": 8}
    found = described(tmp_path, pairs(FLUX_AI_TOOLKIT, rank=16), {"lora_adapter_metadata": json.dumps(adapter)})
    assert any("strength 0.5" in warning for warning in found.warnings)


words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
parts = st.sampled_from(
    ["", ".lora_A.weight", ".lora_up.weight", ".alpha", ".lokr_w1", ".hada_w1_a", ".diff", "_lora.up.weight"]
)
layer_names = st.sampled_from(
    ["", "transformer.", "lora_unet_", "lora_te1_", "double_blocks.0.img_attn.qkv", "blocks.1.ffn.0"]
)


def header_of(tensors: list[tuple[str, str, str, list[int]]], metadata: dict[str, str]) -> SafetensorsHeader:
    return SafetensorsHeader(
        {before + name + after: TensorInfo("F16", tuple(shape), 0, 0) for before, name, after, shape in tensors},
        metadata,
    )


headers = st.builds(
    header_of,
    st.lists(st.tuples(layer_names, words, parts, st.lists(st.integers(0, 2**62), max_size=4)), max_size=6),
    st.dictionaries(
        st.sampled_from(
            ["ss_tag_frequency", "ss_dataset_dirs", "training_info", "software", "ss_steps", "ss_learning_rate",
             "modelspec.trigger_phrase", "modelspec.architecture", "lora_adapter_metadata", "base_model"]
        ),
        words | st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | words,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
            max_leaves=8,
        ).map(json.dumps),
        max_size=5,
    ),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(header=headers, alphas=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3))
def test_describes_any_header_in_json_that_every_program_reads(header: SafetensorsHeader, alphas: list[float]) -> None:
    description = describe_lora(header, alphas)
    assert LoraDescription.model_validate_json(description.model_dump_json()) == description
    orjson.dumps(description.model_dump(mode="json"))
