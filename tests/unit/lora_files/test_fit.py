"""Predictions of `lora key not loaded`: LoRA headers against checkpoint headers."""

from collections.abc import Mapping

import pytest

from lora_files.fit import check_fit
from lora_files.header import SafetensorsHeader, TensorInfo
from tests.unit.lora_files.files import FLUX_AI_TOOLKIT, KOHYA, PEFT, Layers

Weights = Mapping[str, tuple[int, ...]]


def header(shapes: Weights) -> SafetensorsHeader:
    return SafetensorsHeader({name: TensorInfo("F16", shape, 0, 0) for name, shape in shapes.items()})


def lora(layers: Layers, suffixes: tuple[str, str] = PEFT) -> SafetensorsHeader:
    halves = {name + suffixes[0]: (4, inputs) for name, (_, inputs) in layers.items()}
    return header(halves | {name + suffixes[1]: (outputs, 4) for name, (outputs, _) in layers.items()})


FLUX_BLOCKS: Weights = {
    **{
        f"double_blocks.{n}.{stream}_{layer}.weight": shape
        for n in range(19)
        for stream in ("img", "txt")
        for layer, shape in {
            "attn.qkv": (9216, 3072),
            "attn.proj": (3072, 3072),
            "mlp.0": (12288, 3072),
            "mlp.2": (3072, 12288),
            "mod.lin": (18432, 3072),
        }.items()
    },
    **{f"single_blocks.{n}.linear1.weight": (21504, 3072) for n in range(38)},
    **{f"single_blocks.{n}.linear2.weight": (3072, 15360) for n in range(38)},
    "img_in.weight": (3072, 64),
}
FLUX = header(
    {f"model.diffusion_model.{name}": shape for name, shape in FLUX_BLOCKS.items()}
    | {"text_encoders.clip_l.transformer.text_model.embeddings.token_embedding.weight": (49408, 768)}
)
SDXL = header(
    {
        f"model.diffusion_model.{name}.weight": shape
        for name, shape in {
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k": (640, 2048),
            "input_blocks.4.1.transformer_blocks.0.attn2.to_out.0": (640, 640),
            "input_blocks.4.0.in_layers.2": (640, 320, 3, 3),
            "input_blocks.3.0.op": (320, 320, 3, 3),
            "middle_block.1.transformer_blocks.9.attn1.to_q": (1280, 1280),
            "output_blocks.2.2.conv": (1280, 1280, 3, 3),
            "output_blocks.5.1.transformer_blocks.1.ff.net.2": (640, 2560),
        }.items()
    }
)
SD3 = header(
    {
        "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (4608, 1536),
        "model.diffusion_model.joint_blocks.0.context_block.mlp.fc1.weight": (6144, 1536),
        "model.diffusion_model.t_embedder.mlp.0.weight": (1536, 256),
        "model.diffusion_model.y_embedder.mlp.2.weight": (1536, 1536),
        "model.diffusion_model.final_layer.linear.weight": (64, 1536),
        "model.diffusion_model.final_layer.adaLN_modulation.1.weight": (3072, 1536),
    }
)
Z_IMAGE = header({"layers.0.attention.qkv.weight": (11520, 3840), "layers.0.attention.out.weight": (3840, 3840)})
WAN = header({"blocks.0.self_attn.q.weight": (5120, 5120), "blocks.0.ffn.0.weight": (13824, 5120)})
QWEN = header({"transformer_blocks.0.img_mlp.net.2.weight": (3072, 12288)})
HUNYUAN = header(
    {
        "double_blocks.0.img_mlp.0.weight": (12288, 3072),
        "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
        "txt_in.individual_token_refiner.blocks.0.norm1.weight": (3072,),
    }
)
TINY = header(
    {"transformer_blocks.0.attn.to_q.weight": (96, 96), "single_transformer_blocks.0.proj_mlp.weight": (288, 96)}
)

FITTING: list[tuple[str, SafetensorsHeader, Layers]] = [
    ("flux", FLUX, FLUX_AI_TOOLKIT),
    ("flux", FLUX, {"lora_unet_double_blocks_0_img_attn_qkv": (9216, 3072)}),
    ("flux", FLUX, {"lora_transformer_transformer_blocks_3_ff_context_net_2": (3072, 12288)}),
    ("flux", FLUX, {"single_transformer_blocks.9.attn.to_v": (3072, 3072)}),
    ("sdxl", SDXL, {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (640, 2048)}),
    ("sdxl", SDXL, {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k": (640, 2048)}),
    ("sdxl", SDXL, {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_out": (640, 640)}),
    ("sdxl", SDXL, {"lora_unet_down_blocks_1_resnets_0_conv1": (640, 320 * 9)}),
    ("sdxl", SDXL, {"lora_unet_down_blocks_0_downsamplers_0_conv": (320, 320 * 9)}),
    ("sdxl", SDXL, {"lora_unet_mid_block_attentions_0_transformer_blocks_9_attn1_to_q": (1280, 1280)}),
    ("sdxl", SDXL, {"lora_unet_up_blocks_0_upsamplers_0_conv": (1280, 1280 * 9)}),
    ("sdxl", SDXL, {"lora_unet_up_blocks_1_attentions_2_transformer_blocks_1_ff_net_2": (640, 2560)}),
    ("sd3", SD3, {"transformer.transformer_blocks.0.attn.to_k": (1536, 1536)}),
    ("sd3", SD3, {"base_model.model.transformer_blocks.0.ff_context.net.0.proj": (6144, 1536)}),
    ("sd3", SD3, {"transformer.time_text_embed.timestep_embedder.linear_1": (1536, 256)}),
    ("sd3", SD3, {"transformer.time_text_embed.text_embedder.linear_2": (1536, 1536)}),
    ("sd3", SD3, {"base_model.model.proj_out": (64, 1536), "base_model.model.norm_out.linear": (3072, 1536)}),
    ("z-image", Z_IMAGE, {"diffusion_model.layers.0.attention.to_v": (3840, 3840)}),
    ("z-image", Z_IMAGE, {"transformer.layers.0.attention.to_out.0": (3840, 3840)}),
    ("wan", WAN, {"diffusion_model.blocks.0.self_attn.q": (5120, 5120)}),
    ("wan", WAN, {"lora_unet__blocks_0_ffn_0": (13824, 5120)}),
    ("qwen-image", QWEN, {"transformer.transformer_blocks.0.img_mlp.net.2": (3072, 12288)}),
    ("hunyuan-video", HUNYUAN, {"transformer.double_blocks.0.img_mlp.fc1": (12288, 3072)}),
    ("hunyuan-video", HUNYUAN, {"diffusion_model.double_blocks.0.img_attn_qkv": (9216, 3072)}),
    ("flux", TINY, {"transformer.transformer_blocks.0.attn.to_q": (96, 96)}),
    ("flux", TINY, {"transformer.single_transformer_blocks.0.proj_mlp": (288, 96)}),
]


@pytest.mark.parametrize(("architecture", "checkpoint", "layers"), FITTING)
def test_finds_every_layer(architecture: str, checkpoint: SafetensorsHeader, layers: Layers) -> None:
    suffixes = KOHYA if next(iter(layers)).startswith("lora_") else PEFT
    fit = check_fit(lora(layers, suffixes), checkpoint)
    assert (fit.checkpoint_architecture, fit.verdict) == (architecture, "fits")
    assert (fit.layers, fit.matched) == (len(layers), len(layers))


@pytest.mark.parametrize(
    ("checkpoint", "layers"),
    [
        (SDXL, FLUX_AI_TOOLKIT),
        (FLUX, {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (640, 2048)}),
        (FLUX, {"base_model.model.transformer_blocks.0.attn.to_q": (3072, 3072)}),
        (SDXL, {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (640, 2048)}),
        (WAN, {"transformer.blocks.0.attn1.to_q": (5120, 5120)}),
        (TINY, {"transformer.transformer_blocks.7.attn.to_q": (96, 96)}),
    ],
)
def test_finds_no_layer(checkpoint: SafetensorsHeader, layers: Layers) -> None:
    fit = check_fit(lora(layers), checkpoint)
    assert (fit.verdict, fit.matched, fit.not_found) == ("does_not_fit", 0, tuple(layers))


def test_names_layers_of_another_width() -> None:
    fit = check_fit(lora({"transformer.transformer_blocks.0.attn.to_q": (3072, 3072)}), TINY)
    assert fit.verdict == "does_not_fit"
    assert [(m.layer, m.lora, m.checkpoint) for m in fit.mismatched] == [
        ("transformer.transformer_blocks.0.attn.to_q", (3072, 3072), (96, 96))
    ]


def test_counts_what_fits_in_part() -> None:
    fit = check_fit(lora({**FLUX_AI_TOOLKIT, "transformer.transformer_blocks.40.attn.to_q": (3072, 3072)}), FLUX)
    assert (fit.verdict, fit.layers, fit.matched) == ("partly", 7, 6)
    assert fit.not_found == ("transformer.transformer_blocks.40.attn.to_q",)


def test_leaves_text_encoder_layers_to_the_clip_model() -> None:
    layers = {"lora_te1_text_model_encoder_layers_0_mlp_fc1": (3072, 768)}
    assert check_fit(lora(layers, KOHYA), FLUX).verdict == "unknown"
    assert check_fit(lora(layers, KOHYA), FLUX).checkpoint_has_text_encoder
    assert not check_fit(lora(layers, KOHYA), SDXL).checkpoint_has_text_encoder


def test_does_not_judge_a_checkpoint_that_it_does_not_know() -> None:
    assert check_fit(lora(FLUX_AI_TOOLKIT), header({"strange.0.q.weight": (8, 8)})).verdict == "unknown"


def test_packed_weights_have_no_shape_to_compare() -> None:
    halved = {
        name: info._replace(dtype="U8", shape=(*info.shape[:-1], info.shape[-1] // 2))
        for name, info in FLUX.tensors.items()
    }
    fit = check_fit(lora(FLUX_AI_TOOLKIT), SafetensorsHeader(halved))
    assert (fit.verdict, fit.mismatched) == ("fits", ())


def test_a_file_without_lora_layers_has_no_effect_anywhere() -> None:
    fit = check_fit(header({"foo.bar": (4, 4)}), FLUX)
    assert (fit.verdict, fit.is_lora, fit.has_no_effect) == ("does_not_fit", False, True)


def test_text_encoder_layers_may_have_an_effect_where_the_others_have_none() -> None:
    mixed = lora({"transformer.transformer_blocks.40.attn.to_q": (3072, 3072)}).tensors
    encoder = lora({"lora_te1_text_model_encoder_layers_0_mlp_fc1": (3072, 768)}, KOHYA).tensors
    fit = check_fit(SafetensorsHeader({**mixed, **encoder}), FLUX)
    assert (fit.verdict, fit.text_encoder_layers, fit.has_no_effect) == ("does_not_fit", 1, False)
