"""Any request that is valid becomes a graph that the server's own node classes accept, whatever the model."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_mcp.workflows import (
    ControlNetUse,
    GenerationRequest,
    Graph,
    Hires,
    LoraUse,
    Problem,
    SplitModel,
    VideoRequest,
    build,
    build_video,
)
from comfy_mcp.workflows.image_recipes import IMAGE_RECIPES
from comfy_mcp.workflows.recipes import ImageRecipe
from comfy_mcp.workflows.video_recipes import VIDEO_RECIPES

from .models import FILES, in_parts
from .server import found, listed

LORAS = ("pixel_cat.safetensors", "characters/Ada.safetensors", "sdxl_film.safetensors")
SAMPLERS = listed("KSampler", "sampler_name")
SCHEDULERS = listed("KSampler", "scheduler")
CONTROLNETS = {"prompts": "union_pro.safetensors", "model": "z_image_union.safetensors"}


def sides(step: int = 8) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(128 // step, 1024 // step).map(lambda cells: cells * step)


def loras() -> st.SearchStrategy[tuple[LoraUse, ...]]:
    use = st.builds(
        LoraUse,
        name=st.sampled_from(LORAS),
        strength=st.floats(0, 2),
        strength_clip=st.none() | st.floats(0, 2),
        model_only=st.booleans(),
    )
    return st.lists(use, max_size=3).map(tuple)


def model_of(name: str, draw: st.DrawFn) -> str | SplitModel:
    whole = FILES[name] in listed("CheckpointLoaderSimple", "ckpt_name") and not name.startswith("ltx")
    return FILES[name] if whole and draw(st.booleans()) else in_parts(name)


def pictures_of(recipe: ImageRecipe, draw: st.DrawFn) -> dict[str, Any]:
    mode = draw(st.sampled_from(sorted(recipe.modes - {"hires", "controlnet"})))
    if mode == "txt2img":
        return {}
    more = draw(st.lists(st.just("second.png"), max_size=recipe.references - 1)) if mode == "edit" else []
    return {
        "input_image": "room.png",
        "input_size": (1024, 768),
        "mask": "mask.png" if mode == "inpaint" else None,
        "reference_images": tuple(more),
    }


@st.composite
def images(draw: st.DrawFn) -> tuple[GenerationRequest, str]:
    name = draw(st.sampled_from(sorted(IMAGE_RECIPES)))
    recipe = IMAGE_RECIPES[name]
    width = draw(sides())
    hires = st.builds(Hires, scale=st.floats(1.05, 4), denoise=st.floats(0, 1), steps=st.none() | st.integers(1, 150))
    control = st.builds(
        ControlNetUse,
        name=st.just(CONTROLNETS[recipe.controlnet]),
        image=st.just("pose.png"),
        strength=st.floats(0, 2),
        start=st.floats(0, 0.4),
        end=st.floats(0.5, 1),
    )
    enlarging = st.none() | st.just("4x-sharp.pth")
    request = GenerationRequest(
        prompt=draw(st.text(max_size=30)),
        negative_prompt=draw(st.text(max_size=10)),
        checkpoint=model_of(name, draw),
        seed=draw(st.integers(0, 2**64 - 1)),
        loras=draw(loras()),
        width=width,
        # Where a model enlarges before a second pass, the size has to be known.
        height=draw(sides()) if width is None else width,
        steps=draw(st.none() | st.integers(1, 150)),
        cfg_scale=draw(st.none() | st.floats(1, 30)),
        guidance=draw(st.none() | st.floats(1, 10)),
        sampler=draw(st.none() | st.sampled_from(SAMPLERS)),
        scheduler=draw(st.none() | st.sampled_from(SCHEDULERS)),
        batch_size=draw(st.integers(1, 20)),
        denoise=draw(st.none() | st.floats(0, 1)),
        hires=draw(st.none() | hires) if "hires" in recipe.modes else None,
        upscale_model=draw(enlarging) if width is not None else None,
        controlnet=draw(st.none() | control) if "controlnet" in recipe.modes else None,
        tiled_decode=draw(st.none() | st.booleans()),
        **pictures_of(recipe, draw),
    )
    return request, name


@st.composite
def videos(draw: st.DrawFn) -> tuple[VideoRequest, str]:
    name = draw(st.sampled_from(sorted(VIDEO_RECIPES)))
    image = draw(st.none() | st.just("room.png"))
    file = FILES[name]
    if name.startswith("hunyuan"):
        distilled = "_cfg_distilled" if name.endswith("distilled") else ""
        file = f"hunyuanvideo1.5_720p_{'t2v' if image is None else 'i2v'}{distilled}_fp16.safetensors"
    request = VideoRequest(
        prompt=draw(st.text(max_size=20)) if image else "a boat",
        negative_prompt=draw(st.none() | st.text(max_size=10)),
        checkpoint=in_parts(name, file),
        seed=draw(st.integers(0, 2**64 - 1)),
        input_image=image,
        loras=draw(loras()),
        width=draw(st.none() | st.integers(256, 1920)),
        height=draw(st.none() | st.integers(256, 1920)),
        frames=draw(st.integers(1, 1025)),
        fps=draw(st.integers(1, 120)),
        steps=draw(st.none() | st.integers(1, 150)),
        cfg_scale=draw(st.none() | st.floats(1, 30)),
        motion_strength=draw(st.none() | st.floats(0, 1)),
        as_webp=draw(st.booleans()),
    )
    return request, name


def troubles(graph: Graph) -> list[Problem]:
    """Return errors, and what a builder must never leave for the checker to remark."""
    return [
        problem
        for problem in found(graph)
        if problem.severity == "error"
        or problem.code.startswith("flux")
        or problem.code in {"not_a_multiple", "unknown_input", "number_as_other_type"}
    ]


@settings(max_examples=150, deadline=None)
@given(images())
def test_every_request_for_pictures_becomes_a_graph_without_errors(asked: tuple[GenerationRequest, str]) -> None:
    request, name = asked
    built = build(request, name)
    assert troubles(built.graph) == []
    assert built.graph[built.output_node]["class_type"] == "SaveImage"
    assert built.graph == build(request, name).graph


@settings(max_examples=80, deadline=None)
@given(videos())
def test_every_request_for_a_video_becomes_a_graph_without_errors(asked: tuple[VideoRequest, str]) -> None:
    request, name = asked
    built = build_video(request, name)
    assert troubles(built.graph) == []
    assert built.graph[built.output_node]["class_type"] in {"SaveVideo", "SaveAnimatedWEBP"}
    assert built.graph == build_video(request, name).graph
