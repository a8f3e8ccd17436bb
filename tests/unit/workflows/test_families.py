"""Which family a file belongs to: its header before its name, its name before its size."""

import pytest

from comfy_mcp.workflows import family_of, family_of_architecture
from lora_files.header import SafetensorsHeader, TensorInfo, read_header
from tinyflux import model

GB = 1_000_000_000


def header(tensors: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> SafetensorsHeader:
    described = {name: TensorInfo("F16", shape, 0, 0) for name, shape in tensors.items()}
    return SafetensorsHeader(tensors=described, metadata=metadata or {}, header_bytes=8, file_bytes=8)


def test_the_model_of_the_embedded_engine_is_flux() -> None:
    guess = family_of("anything.safetensors", None, read_header(model.weights_path()))
    assert (guess.family, guess.found_by) == ("flux", "header")


@pytest.mark.parametrize(
    ("tensors", "family"),
    [
        ({"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (9216, 3072)}, "flux"),
        ({"double_blocks.0.img_attn.qkv.weight": (9216, 3072)}, "flux"),
        (
            {
                "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
                "distilled_guidance_layer.in_proj.weight": (5120, 64),
            },
            "chroma",
        ),
        ({"model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048)}, "sdxl"),
        ({"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768)}, "sd15"),
        ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (4608, 1536)}, "sd3"),
        ({"blocks.0.cross_attn.k.weight": (3072, 3072), "blocks.0.self_attn.q.weight": (3072, 3072)}, "wan"),
        ({"model.diffusion_model.transformer_blocks.0.attn1.to_q.weight": (2048, 2048)}, "ltx-video"),
        ({"transformer_blocks.0.img_mlp.net.0.proj.weight": (12288, 3072)}, "qwen-image"),
        ({"layers.0.attention.qkv.weight": (11520, 3840)}, "z-image"),
        (
            {
                "img_in.proj.weight": (2048, 65, 1, 1, 1),
                "txt_in.individual_token_refiner.blocks.0.norm1.weight": (2048,),
                "double_blocks.0.img_attn.qkv.weight": (6144, 2048),
            },
            "hunyuan-video",
        ),
    ],
)
def test_the_layers_tell_the_family_whatever_the_name(tensors: dict[str, tuple[int, ...]], family: str) -> None:
    guess = family_of("flux_or_sdxl.safetensors", 1, header(tensors))
    assert (guess.family, guess.found_by, guess.certain) == (family, "header", True)


@pytest.mark.parametrize(
    ("name", "size_bytes", "family", "found_by"),
    [
        ("flux1-dev.safetensors", 2 * GB, "flux", "name"),
        ("FLUX/my_Flux_mix.safetensors", None, "flux", "name"),
        ("sd_xl_base_1.0.safetensors", 2 * GB, "sdxl", "name"),
        ("sd3.5_large.safetensors", 16 * GB, "sd3", "name"),
        ("v1-5-pruned-emaonly.safetensors", 7 * GB, "sd15", "name"),
        ("Wan2_2-TI2V-5B.safetensors", 5 * GB, "wan", "name"),
        ("z_image_turbo.safetensors", None, "z-image", "name"),
        ("flux2-dev.safetensors", None, "flux2", "name"),
        ("ltx-video-2b-v0.9.safetensors", None, "ltx-video", "name"),
        ("ltxv-13b-0.9.8-distilled-fp8.safetensors", None, "ltx-video", "name"),
        ("ltxv-2b-0.9.8-distilled.safetensors", None, "ltx-video", "name"),
        ("ltx-2-19b-dev.safetensors", None, "ltx2", "name"),
        ("ltx-2.3-22b-dev.safetensors", None, "ltx2", "name"),
        ("photo.safetensors", 7 * GB, "sdxl", "size"),
        ("photo.safetensors", 2 * GB, "sd15", "size"),
        ("flux/photo.safetensors", 2 * GB, "sd15", "size"),
        ("photo.safetensors", int(5.5 * GB), "sdxl", "nothing"),
        ("photo.safetensors", None, "sdxl", "nothing"),
    ],
)
def test_without_a_header_name_and_size_decide(name: str, size_bytes: int | None, family: str, found_by: str) -> None:
    guess = family_of(name, size_bytes, None)
    assert (guess.family, guess.found_by) == (family, found_by)
    assert guess.certain == (found_by == "name")


FLUX_LAYER = {"double_blocks.0.img_attn.qkv.weight": (9216, 3072)}
LTX_QUERY = "model.diffusion_model.transformer_blocks.0.attn1.to_q.weight"
UNET = "model.diffusion_model.input_blocks."


@pytest.mark.parametrize(
    ("name", "tensors", "variant"),
    [
        ("flux1-dev.safetensors", None, "flux"),
        ("flux1-schnell.safetensors", None, "flux-schnell"),
        ("flux1-dev-kontext_fp8_scaled.safetensors", FLUX_LAYER, "flux-kontext"),
        ("flux1-fill-dev.safetensors", None, "flux-fill"),
        ("mine.safetensors", {**FLUX_LAYER, "img_in.weight": (3072, 384)}, "flux-fill"),
        ("flux1-fill-dev-taken-back.safetensors", {**FLUX_LAYER, "img_in.weight": (3072, 64)}, "flux"),
        ("sd_xl_base_1.0_inpainting_0.1.safetensors", None, "sdxl-inpaint"),
        (
            "photo.safetensors",
            {
                UNET + "0.0.weight": (320, 9, 3, 3),
                UNET + "1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
            },
            "sd15-inpaint",
        ),
        ("qwen_image_edit_2509_fp8_e4m3fn.safetensors", None, "qwen-image-edit"),
        ("qwen_image_fp8_e4m3fn.safetensors", None, "qwen-image"),
        ("z_image_turbo_bf16.safetensors", None, "z-image-turbo"),
        ("z_image_bf16.safetensors", None, "z-image"),
        ("ltxv-13b-0.9.8-distilled-fp8.safetensors", None, "ltx-video-13b-distilled"),
        ("ltxv-13b-0.9.8-dev-fp8.safetensors", None, "ltx-video-13b"),
        ("ltx-video-2b-v0.9.safetensors", None, "ltx-video"),
        ("ltxv-2b-0.9.8-distilled.safetensors", None, "ltx-video-distilled"),
        ("mine-distilled.safetensors", {LTX_QUERY: (4096, 4096)}, "ltx-video-13b-distilled"),
        ("mine.safetensors", {LTX_QUERY: (2048, 2048)}, "ltx-video"),
        ("TI2V/Wan2_2-TI2V-5B_fp8_e4m3fn_scaled_KJ.safetensors", None, "wan-2.2-ti2v-5b"),
        ("wan2.2_t2v_high_noise_14B_fp16.safetensors", None, "wan"),
        ("wan.safetensors", {"blocks.0.self_attn.q.weight": (3072, 3072)}, "wan-2.2-ti2v-5b"),
        ("wan_5b.safetensors", {"blocks.0.self_attn.q.weight": (5120, 5120)}, "wan"),
        ("hunyuanvideo1.5_720p_i2v_fp16.safetensors", None, "hunyuan-video-1.5"),
        ("hunyuanvideo1.5_720p_i2v_cfg_distilled_fp16.safetensors", None, "hunyuan-video-1.5-distilled"),
        ("hunyuan_video_t2v_720p_bf16.safetensors", None, "hunyuan-video"),
    ],
)
def test_a_variant_is_told_by_a_shape_or_by_its_name(
    name: str, tensors: dict[str, tuple[int, ...]] | None, variant: str
) -> None:
    assert family_of(name, None, None if tensors is None else header(tensors)).variant == variant


def test_a_header_that_tells_nothing_leaves_it_to_the_name() -> None:
    assert family_of("my_flux.safetensors", None, header({"x.weight": (3, 3)})).found_by == "name"


@pytest.mark.parametrize(
    ("words", "family"),
    [
        ("flux", "flux"),
        ("tinyflux-1", "flux"),
        ("flux-1-dev/lora", "flux"),
        ("flux2-dev", "flux2"),
        ("stable-diffusion-xl-v1-base", "sdxl"),
        ("sd_v1", "sd15"),
        ("unknown", None),
        ("", None),
        ("my own thing", None),
    ],
)
def test_an_architecture_is_understood_in_the_words_of_its_writers(words: str, family: str | None) -> None:
    assert family_of_architecture(words) == family
