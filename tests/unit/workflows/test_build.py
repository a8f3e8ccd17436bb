"""What a request becomes: the right nodes for each family, in order, with every correction said."""

from functools import partial
from typing import Any

import pytest

from comfy_mcp.workflows import BuiltGraph, GenerationRequest, Hires, LoraUse, SplitModel, build
from comfy_mcp.workflows.image_recipes import IMAGE_RECIPES
from mcp_toolserver.errors import InvalidArguments

from .server import FLUX, errors, found

SPLIT = SplitModel(
    diffusion_model=FLUX, text_encoders=("clip_l.safetensors", "t5xxl_fp16.safetensors"), vae="ae.safetensors"
)


def flux(**changes: Any) -> BuiltGraph:
    fields: dict[str, Any] = {"prompt": "a pixel_cat", "checkpoint": FLUX, "seed": 1, **changes}
    return build(GenerationRequest(**fields), "flux")


def classes(built: BuiltGraph) -> list[str]:
    return [node["class_type"] for node in built.graph.values()]


def node(built: BuiltGraph, class_type: str) -> dict[str, Any]:
    return next(found["inputs"] for found in built.graph.values() if found["class_type"] == class_type)


def test_flux_with_a_lora_has_nine_nodes() -> None:
    built = flux(loras=(LoraUse(name="pixel_cat.safetensors", strength=0.9),))
    assert classes(built) == [
        "CheckpointLoaderSimple",
        "LoraLoader",
        "CLIPTextEncode",
        "CLIPTextEncode",
        "FluxGuidance",
        "EmptyLatentImage",
        "KSampler",
        "VAEDecode",
        "SaveImage",
    ]
    assert node(built, "FluxGuidance") == {"guidance": 3.5, "conditioning": ["3", 0]}
    assert node(built, "LoraLoader") == {
        "lora_name": "pixel_cat.safetensors",
        "strength_model": 0.9,
        "strength_clip": 0.9,
        "model": ["1", 0],
        "clip": ["1", 1],
    }
    assert node(built, "KSampler") == {
        "seed": 1,
        "steps": 20,
        "cfg": 1.0,
        "sampler_name": "heunpp2",
        "scheduler": "simple",
        "denoise": 1.0,
        "model": ["2", 0],
        "positive": ["5", 0],
        "negative": ["4", 0],
        "latent_image": ["6", 0],
    }
    assert built.graph["4"]["inputs"]["text"] == ""
    assert node(built, "EmptyLatentImage") == {"width": 1024, "height": 1024, "batch_size": 1}
    assert (built.workflow_name, built.output_node, built.warnings) == ("flux-txt2img", "9", ())


def test_loras_chain_in_order_and_model_only_ones_leave_the_text_encoder() -> None:
    built = flux(
        loras=(
            LoraUse(name="a", strength=0.5, strength_clip=0.25),
            LoraUse(name="b", strength=2.0, model_only=True),
            LoraUse(name="c"),
        )
    )
    assert built.graph["2"]["inputs"]["strength_clip"] == 0.25
    assert built.graph["3"] == {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"lora_name": "b", "strength_model": 2.0, "model": ["2", 0]},
        "_meta": {"title": "LoRA"},
    }
    last = built.graph["4"]["inputs"]
    assert (last["model"], last["clip"]) == (["3", 0], ["2", 1])
    assert node(built, "KSampler")["model"] == ["4", 0]
    assert built.graph["5"]["inputs"]["clip"] == ["4", 1]


def test_settings_of_stable_diffusion_are_corrected_on_flux_and_said() -> None:
    built = flux(cfg_scale=7.0, sampler="euler", scheduler="normal", negative_prompt="blurry")
    sampler = node(built, "KSampler")
    assert (sampler["cfg"], sampler["sampler_name"], sampler["scheduler"]) == (1.0, "heunpp2", "simple")
    assert built.graph[sampler["negative"][0]]["inputs"]["text"] == ""
    assert [warning.split("`")[1] for warning in built.warnings] == [
        "cfg_scale",
        "sampler",
        "scheduler",
        "negative_prompt",
    ]
    assert "FluxGuidance" in built.warnings[0]


@pytest.mark.parametrize(
    ("sampler", "scheduler", "settled"),
    [
        ("euler", None, ("heunpp2", "simple")),
        ("euler", "beta", ("euler", "beta")),
        ("dpmpp_2m", "karras", ("dpmpp_2m", "simple")),
        ("euler_ancestral", "sgm_uniform", ("euler_ancestral", "sgm_uniform")),
        (None, None, ("heunpp2", "simple")),
    ],
)
def test_only_what_does_not_suit_flux_is_corrected(
    sampler: str | None, scheduler: str | None, settled: tuple[str, str]
) -> None:
    built = flux(sampler=sampler, scheduler=scheduler)
    assert (built.settings.sampler, built.settings.scheduler) == settled
    changed = (sampler or settled[0], scheduler or settled[1]) != settled
    assert bool(built.warnings) == changed


def test_few_steps_are_remarked_except_where_the_model_is_made_for_them() -> None:
    assert "20 to 30 steps" in flux(steps=4).warnings[0]
    assert flux(steps=4, checkpoint="flux1-schnell.safetensors").warnings == ()
    assert flux(steps=30).warnings == ()


def test_an_input_image_is_encoded_and_keeps_its_size() -> None:
    built = flux(input_image="room.png")
    assert "ImageScale" not in classes(built)
    encoded = node(built, "VAEEncode")
    assert built.graph[encoded["pixels"][0]]["class_type"] == "LoadImage"
    assert encoded["vae"] == ["1", 2]
    assert node(built, "KSampler")["denoise"] == 0.75
    assert (built.workflow_name, built.settings.width) == ("flux-img2img", None)
    assert errors(built.graph) == []


def test_an_input_image_is_fitted_to_a_size_and_repeated_for_a_batch() -> None:
    built = flux(input_image="room.png", width=512, height=768, batch_size=3, denoise=0.4)
    assert node(built, "ImageScale")["width"] == 512
    assert node(built, "RepeatLatentBatch")["amount"] == 3
    assert node(built, "KSampler")["denoise"] == 0.4
    assert errors(built.graph) == []


@pytest.mark.parametrize(
    ("steps", "denoise", "most"),
    [(4, 0.9, 0.8), (8, 0.9, 0.88), (2, None, 0.66), (1, 0.99, 0.5)],
)
def test_says_that_so_few_steps_keep_hardly_anything_of_the_image(
    steps: int, denoise: float | None, most: float
) -> None:
    made = partial(flux, checkpoint="schnell", input_image="room.png", steps=steps)
    [warning] = [text for text in made(denoise=denoise).warnings if "keeps hardly anything" in text]
    assert f"{most} at most" in warning
    assert not [text for text in made(denoise=most).warnings if "keeps hardly anything" in text]


def test_says_that_a_second_pass_of_so_few_steps_keeps_hardly_anything() -> None:
    made = flux(steps=20, hires=Hires(denoise=0.9, steps=5))
    assert "`hires.denoise` 0.9 in 5 steps keeps hardly anything of the first pass" in made.warnings[0]
    assert not flux(steps=20, hires=Hires(denoise=0.9)).warnings


def test_denoise_without_an_image_is_taken_back() -> None:
    built = flux(denoise=0.5)
    assert built.settings.denoise == 1.0
    assert "`denoise` 0.5" in built.warnings[0]


def test_large_pictures_are_decoded_in_tiles() -> None:
    assert "VAEDecodeTiled" in classes(flux(width=2048, height=1536))
    assert "VAEDecode" in classes(flux(width=1536, height=1536))
    assert "VAEDecodeTiled" in classes(flux(tiled_decode=True))
    assert "VAEDecode" in classes(flux(width=4096, height=4096, tiled_decode=False))


def test_flux_in_parts_takes_two_text_encoders_and_a_vae() -> None:
    built = flux(checkpoint=SPLIT, loras=(LoraUse(name="pixel_cat.safetensors"),))
    assert classes(built)[:4] == ["UNETLoader", "DualCLIPLoader", "VAELoader", "LoraLoader"]
    assert node(built, "DualCLIPLoader")["type"] == "flux"
    assert found(built.graph) == []
    with pytest.raises(InvalidArguments, match="takes 2") as refused:
        flux(checkpoint=SplitModel(diffusion_model=FLUX, text_encoders=("clip_l.safetensors",), vae="ae.safetensors"))
    assert refused.value.details["field"] == "text_encoders"


@pytest.mark.parametrize(
    ("family", "checkpoint", "size", "cfg"),
    [("sdxl", "sd_xl_base_1.0.safetensors", 1024, 7.0), ("sd15", "v1-5-pruned.safetensors", 512, 7.0)],
)
def test_stable_diffusion_keeps_its_own_settings(family: str, checkpoint: str, size: int, cfg: float) -> None:
    built = build(
        GenerationRequest(prompt="a house", negative_prompt="blurry", checkpoint=checkpoint, seed=3, guidance=3.5),
        family,
    )
    assert "FluxGuidance" not in classes(built)
    assert node(built, "EmptyLatentImage")["width"] == size
    sampler = node(built, "KSampler")
    assert (sampler["cfg"], sampler["sampler_name"], sampler["scheduler"]) == (cfg, "euler", "normal")
    assert built.graph[sampler["negative"][0]]["inputs"]["text"] == "blurry"
    assert ["`guidance` 3.5" in warning for warning in built.warnings] == [True]


def test_a_family_without_a_graph_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidArguments, match=r"FLUX\.2") as refused:
        build(GenerationRequest(prompt="x", checkpoint="flux2-dev.safetensors", seed=1), "flux2")
    assert refused.value.details["families"] == list(IMAGE_RECIPES)
    assert "execute-workflow" in (refused.value.hint or "")


def test_a_model_that_makes_videos_is_refused_with_the_tool_for_it() -> None:
    with pytest.raises(InvalidArguments, match=r"Wan 2\.2 TI2V 5B is a model for `generate-video`"):
        build(GenerationRequest(prompt="x", checkpoint="wan2.2.safetensors", seed=1), "wan-2.2-ti2v-5b")


@pytest.mark.parametrize(
    ("field", "value", "closest"),
    [
        ("seed", -1, 0),
        ("seed", 2**64, 2**64 - 1),
        ("steps", 0, 1),
        ("steps", 1000, 150),
        ("width", 1030, 1032),
        ("height", 16, 64),
        ("cfg_scale", 0.0, 1.0),
        ("guidance", 35.0, 10.0),
        ("guidance", float("nan"), None),
        ("denoise", 1.5, 1.0),
        ("batch_size", 21, 20),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_closest(field: str, value: float, closest: float | None) -> None:
    with pytest.raises(InvalidArguments, match=f"`{field}`") as refused:
        flux(**{field: value})
    assert refused.value.details["field"] == field
    assert refused.value.details["closest"] == closest


def test_a_lora_is_refused_by_its_place() -> None:
    with pytest.raises(InvalidArguments, match=r"`loras\.1\.strength` is 2\.5"):
        flux(loras=(LoraUse(name="a"), LoraUse(name="b", strength=2.5)))
    with pytest.raises(InvalidArguments, match=r"loras\.0\.name"):
        flux(loras=(LoraUse(name=" "),))
