"""Masks, edits, second passes, upscale models and ControlNets: the nodes for each, and what a model refuses."""

from typing import Any

import pytest

from comfy_mcp.workflows import BuiltGraph, ControlNetUse, GenerationRequest, Graph, Hires, LoraUse, build
from comfy_mcp.workflows.image_recipes import IMAGE_RECIPES
from mcp_toolserver.errors import InvalidArguments

from .models import in_parts

CONTROL = ControlNetUse(name="union_pro.safetensors", image="pose.png", strength=0.7, start=0.1, end=0.8)


def built(variant: str, **changes: Any) -> BuiltGraph:
    fields: dict[str, Any] = {"prompt": "a house", "checkpoint": in_parts(variant), "seed": 1, **changes}
    return build(GenerationRequest(**fields), variant)


def nodes(graph: Graph, class_type: str) -> list[dict[str, Any]]:
    return [node["inputs"] for node in graph.values() if node["class_type"] == class_type]


def one(graph: Graph, class_type: str) -> dict[str, Any]:
    [found] = nodes(graph, class_type)
    return found


def source(graph: Graph, link: Any) -> str:
    return graph[link[0]]["class_type"]


def test_a_mask_is_set_on_the_latents_of_the_picture() -> None:
    made = built("flux", input_image="room.png", mask="mask.png", batch_size=3)
    masked = one(made.graph, "SetLatentNoiseMask")
    assert source(made.graph, masked["samples"]) == "RepeatLatentBatch"
    assert one(made.graph, "ImageToMask")["channel"] == "red"
    assert source(made.graph, one(made.graph, "ImageToMask")["image"]) == "LoadImage"
    assert one(made.graph, "KSampler")["denoise"] == 0.9
    assert made.workflow_name == "flux-inpaint"


def test_a_mask_is_fitted_as_its_picture_is() -> None:
    made = built("sdxl", input_image="room.png", mask="mask.png", width=640, height=512)
    picture, mask = nodes(made.graph, "ImageScale")
    assert {**picture, "image": 0} == {**mask, "image": 0}
    assert source(made.graph, one(made.graph, "ImageToMask")["image"]) == "ImageScale"


@pytest.mark.parametrize("variant", ["flux-fill", "sdxl-inpaint", "sd15-inpaint"])
def test_an_inpainting_model_reads_picture_and_mask_beside_the_prompt(variant: str) -> None:
    made = built(variant, input_image="room.png", mask="mask.png")
    sampler = one(made.graph, "KSampler")
    assert {source(made.graph, sampler[name]) for name in ("positive", "negative", "latent_image")} == {
        "InpaintModelConditioning"
    }
    assert (sampler["positive"][1], sampler["negative"][1], sampler["latent_image"][1]) == (0, 1, 2)
    assert sampler["denoise"] == 1.0
    assert nodes(made.graph, "SetLatentNoiseMask") == []
    with pytest.raises(InvalidArguments, match="no mode `txt2img`") as refused:
        built(variant)
    assert refused.value.details["modes"] == ["inpaint"]
    assert "`input_image` with a `mask`" in (refused.value.hint or "")


def test_fill_is_guided_more_strongly_than_other_flux_models() -> None:
    made = built("flux-fill", input_image="room.png", mask="mask.png")
    assert one(made.graph, "FluxGuidance")["guidance"] == 30.0
    assert made.warnings == ()


def test_kontext_looks_at_every_picture_and_edits_the_first() -> None:
    made = built("flux-kontext", input_image="room.png", reference_images=("second.png", "pose.png"))
    assert len(nodes(made.graph, "FluxKontextImageScale")) == len(nodes(made.graph, "VAEEncode")) == 3
    references = nodes(made.graph, "ReferenceLatent")
    assert [source(made.graph, found["conditioning"]) for found in references] == [
        "CLIPTextEncode",
        "ReferenceLatent",
        "ReferenceLatent",
    ]
    sampler = one(made.graph, "KSampler")
    assert sampler["latent_image"] == references[0]["latent"]
    assert source(made.graph, sampler["positive"]) == "FluxGuidance"
    assert (one(made.graph, "FluxGuidance")["guidance"], sampler["denoise"], sampler["cfg"]) == (2.5, 1.0, 1.0)
    assert made.workflow_name == "flux-kontext-edit"


def test_an_edit_of_another_size_begins_from_empty_latents() -> None:
    made = built("flux-kontext", input_image="room.png", width=768, height=1024, denoise=0.5)
    assert one(made.graph, "EmptyLatentImage") == {"width": 768, "height": 1024, "batch_size": 1}
    assert "keeps what it edits" in made.warnings[0]


def test_qwen_image_edit_reads_pictures_through_its_text_encoder() -> None:
    made = built("qwen-image-edit", input_image="room.png", reference_images=("second.png",), negative_prompt="fog")
    prompt, negative = nodes(made.graph, "TextEncodeQwenImageEditPlus")
    assert (prompt["prompt"], negative["prompt"]) == ("a house", "fog")
    assert [source(made.graph, prompt[name]) for name in ("image1", "image2")] == ["FluxKontextImageScale"] * 2
    assert source(made.graph, one(made.graph, "KSampler")["model"]) == "CFGNorm"
    with pytest.raises(InvalidArguments, match="reads 2 beside `input_image`"):
        built("qwen-image-edit", input_image="room.png", reference_images=("a.png", "b.png", "c.png"))


def test_reference_pictures_are_for_models_that_edit() -> None:
    with pytest.raises(InvalidArguments, match="`reference_images` has 1") as refused:
        built("sdxl", input_image="room.png", reference_images=("second.png",))
    assert "Kontext" in (refused.value.hint or "")
    for field in ({"mask": "mask.png"}, {"reference_images": ("second.png",)}):
        with pytest.raises(InvalidArguments, match="without `input_image`"):
            built("flux", **field)


def test_a_second_pass_samples_the_enlarged_latents() -> None:
    made = built("sdxl", hires=Hires(scale=2.0, denoise=0.4, steps=12), steps=30)
    first, second = nodes(made.graph, "KSampler")
    assert source(made.graph, second["latent_image"]) == "LatentUpscaleBy"
    assert one(made.graph, "LatentUpscaleBy")["scale_by"] == 2.0
    assert (first["steps"], first["denoise"], second["steps"], second["denoise"]) == (30, 1.0, 12, 0.4)
    assert second["positive"] == first["positive"]
    assert source(made.graph, one(made.graph, "VAEDecodeTiled")["samples"]) == "KSampler"
    assert made.workflow_name == "sdxl-txt2img-hires"


def test_a_model_enlarges_before_the_second_pass_and_to_the_size_asked_for() -> None:
    made = built("sd15", hires=Hires(scale=1.5), upscale_model="4x-sharp.pth", width=512, height=768)
    _, second = nodes(made.graph, "KSampler")
    assert source(made.graph, second["latent_image"]) == "VAEEncode"
    scaled = one(made.graph, "ImageScale")
    assert (scaled["width"], scaled["height"]) == (768, 1152)
    assert source(made.graph, scaled["image"]) == "ImageUpscaleWithModel"
    with pytest.raises(InvalidArguments, match="needs `width` and `height`"):
        built("sd15", input_image="room.png", hires=Hires(), upscale_model="4x-sharp.pth")


def test_the_mask_holds_in_the_second_pass_too() -> None:
    made = built(
        "sdxl",
        input_image="room.png",
        mask="mask.png",
        hires=Hires(),
        upscale_model="4x-sharp.pth",
        width=512,
        height=512,
    )
    assert len(nodes(made.graph, "SetLatentNoiseMask")) == 2
    assert source(made.graph, nodes(made.graph, "KSampler")[1]["latent_image"]) == "SetLatentNoiseMask"


def test_an_upscale_model_alone_enlarges_the_finished_picture() -> None:
    made = built("chroma", upscale_model="4x-sharp.pth")
    assert source(made.graph, one(made.graph, "SaveImage")["images"]) == "ImageUpscaleWithModel"
    assert len(nodes(made.graph, "KSampler")) == 1
    assert made.workflow_name == "chroma-txt2img-upscale"


@pytest.mark.parametrize("variant", ["flux", "sd3", "sdxl", "sd15", "qwen-image"])
def test_a_controlnet_leads_the_prompts_and_has_the_vae(variant: str) -> None:
    made = built(variant, controlnet=CONTROL)
    applied = one(made.graph, "ControlNetApplyAdvanced")
    assert (applied["strength"], applied["start_percent"], applied["end_percent"]) == (0.7, 0.1, 0.8)
    assert source(made.graph, applied["vae"]) == "VAELoader"
    sampler = one(made.graph, "KSampler")
    assert made.graph[sampler["positive"][0]]["inputs"] == applied
    assert (sampler["positive"][1], sampler["negative"][1]) == (0, 1)
    assert made.workflow_name.endswith("-controlnet")


def test_the_controlnet_of_z_image_patches_the_model_behind_its_loras() -> None:
    made = built("z-image-turbo", controlnet=CONTROL, loras=(LoraUse(name="pixel_cat.safetensors"),))
    applied = one(made.graph, "QwenImageDiffsynthControlnet")
    assert source(made.graph, applied["model"]) == "LoraLoader"
    assert source(made.graph, one(made.graph, "ModelSamplingAuraFlow")["model"]) == "QwenImageDiffsynthControlnet"
    assert source(made.graph, applied["model_patch"]) == "ModelPatchLoader"
    assert "`controlnet.start`" in made.warnings[0]


@pytest.mark.parametrize(
    ("variant", "asked", "mode"),
    [
        ("chroma", {"controlnet": CONTROL}, "controlnet"),
        ("flux-kontext", {"controlnet": CONTROL}, "controlnet"),
        ("flux-kontext", {"input_image": "room.png", "mask": "mask.png"}, "inpaint"),
        ("qwen-image-edit", {}, "txt2img"),
        ("flux-fill", {"input_image": "room.png", "mask": "mask.png", "hires": Hires()}, "hires"),
    ],
)
def test_a_mode_that_a_model_lacks_is_refused_with_those_it_has(variant: str, asked: dict[str, Any], mode: str) -> None:
    with pytest.raises(InvalidArguments, match=f"no mode `{mode}`") as refused:
        built(variant, **asked)
    assert refused.value.details["mode"] == mode
    assert refused.value.details["modes"] == sorted(IMAGE_RECIPES[variant].modes)


@pytest.mark.parametrize(
    ("asked", "field", "closest"),
    [
        ({"hires": Hires(scale=1.0)}, "hires.scale", 1.05),
        ({"hires": Hires(denoise=1.5)}, "hires.denoise", 1.0),
        ({"hires": Hires(steps=0)}, "hires.steps", 1),
        ({"width": 4096, "height": 2048, "hires": Hires(scale=3.0)}, "hires.scale", 2.0),
        ({"width": 4120, "hires": Hires(scale=4.0)}, "hires.scale", 1.98),
        ({"height": 8192, "hires": Hires(scale=2.0)}, "height", 7800),
        ({"controlnet": ControlNetUse(name="c", image="i", strength=2.5)}, "controlnet.strength", 2.0),
        ({"controlnet": ControlNetUse(name="c", image="i", start=-0.1)}, "controlnet.start", 0.0),
        ({"controlnet": ControlNetUse(name="c", image="i", end=1.1)}, "controlnet.end", 1.0),
        ({"controlnet": ControlNetUse(name="c", image="i", start=0.6, end=0.5)}, "controlnet.end", 1.0),
    ],
)
def test_numbers_out_of_range_are_refused_with_the_closest(asked: dict[str, Any], field: str, closest: float) -> None:
    with pytest.raises(InvalidArguments) as refused:
        built("sdxl", **asked)
    assert (refused.value.details["field"], refused.value.details["closest"]) == (field, closest)


def test_what_is_named_as_the_closest_size_is_taken() -> None:
    def closest(width: int) -> tuple[str, Any]:
        with pytest.raises(InvalidArguments) as refused:
            built("sdxl", width=width, height=64, hires=Hires(scale=4.0))
        return refused.value.details["field"], refused.value.details["closest"]

    for asked in range(2056, 8193, 8):
        width = asked
        field, nearest = closest(width)
        if field == "width":
            width = nearest
            field, nearest = closest(width)
        assert field == "hires.scale"
        assert built("sdxl", width=width, height=64, hires=Hires(scale=nearest)).graph


@pytest.mark.parametrize(
    ("variant", "class_type", "settings"),
    [
        ("chroma", "ModelSamplingAuraFlow", {"shift": 1.0}),
        ("chroma", "T5TokenizerOptions", {"min_padding": 0, "min_length": 0}),
        ("chroma", "CLIPLoader", {"type": "chroma"}),
        ("chroma", "KSampler", {"cfg": 3.5, "steps": 26, "sampler_name": "euler", "scheduler": "beta"}),
        ("qwen-image", "CLIPLoader", {"type": "qwen_image"}),
        ("qwen-image", "ModelSamplingAuraFlow", {"shift": 3.1}),
        ("qwen-image", "EmptySD3LatentImage", {"width": 1328, "height": 1328}),
        ("z-image-turbo", "CLIPLoader", {"clip_name": "qwen_3_4b.safetensors", "type": "lumina2"}),
        ("z-image-turbo", "KSampler", {"cfg": 1.0, "steps": 8, "sampler_name": "res_multistep"}),
        ("z-image", "KSampler", {"cfg": 4.0, "steps": 25}),
        ("flux-schnell", "KSampler", {"cfg": 1.0, "steps": 4}),
        ("sd3", "TripleCLIPLoader", {"clip_name3": "t5xxl_fp16.safetensors"}),
        ("sdxl", "DualCLIPLoader", {"type": "sdxl", "clip_name2": "clip_g.safetensors"}),
    ],
)
def test_each_model_has_its_makers_settings(variant: str, class_type: str, settings: dict[str, Any]) -> None:
    found = one(built(variant).graph, class_type)
    assert {name: found[name] for name in settings} == settings


def test_settings_that_do_not_suit_are_corrected_and_said() -> None:
    made = built("z-image-turbo", cfg_scale=7.0, negative_prompt="fog", guidance=3.5, scheduler="karras", width=1000)
    assert [warning.split("`")[1] for warning in made.warnings] == [
        "guidance",
        "cfg_scale",
        "scheduler",
        "negative_prompt",
        "width",
    ]
    assert one(made.graph, "EmptySD3LatentImage")["width"] == 992
