"""Every kind of model in every mode that it has, once: nothing is left to the dice."""

from typing import Any

import pytest

from comfy_mcp.workflows import ControlNetUse, GenerationRequest, Hires, VideoRequest, build, build_video
from comfy_mcp.workflows.image_recipes import IMAGE_RECIPES
from comfy_mcp.workflows.video_recipes import VIDEO_RECIPES

from .models import FILES, in_parts
from .test_build_any import CONTROLNETS, troubles

IMAGE_MODES = [(name, mode) for name, recipe in sorted(IMAGE_RECIPES.items()) for mode in sorted(recipe.modes)]


def asked_for(name: str, mode: str) -> dict[str, Any]:
    modes = IMAGE_RECIPES[name].modes
    on_top = {
        "hires": {"hires": Hires()},
        "controlnet": {"controlnet": ControlNetUse(name=CONTROLNETS[IMAGE_RECIPES[name].controlnet], image="pose.png")},
    }
    plain = next((each for each in ("txt2img", "edit") if each in modes), "inpaint") if mode in on_top else mode
    picture = {"input_image": "room.png"} if plain != "txt2img" else {}
    mask = {"mask": "mask.png"} if plain == "inpaint" else {}
    return {**picture, **mask, **on_top.get(mode, {})}


@pytest.mark.parametrize(("name", "mode"), IMAGE_MODES)
def test_pictures_of_every_model_in_every_mode(name: str, mode: str) -> None:
    request = GenerationRequest(prompt="a cat", checkpoint=in_parts(name), seed=1, **asked_for(name, mode))
    built = build(request, name)
    assert troubles(built.graph) == []
    # A second pass and a ControlNet come on top of what else is asked for.
    assert mode in {built.settings.mode, "hires", "controlnet"}


@pytest.mark.parametrize("image", [None, "room.png"], ids=["text", "picture"])
@pytest.mark.parametrize("name", sorted(VIDEO_RECIPES))
def test_videos_of_every_model_from_text_and_from_a_picture(name: str, image: str | None) -> None:
    file = FILES[name]
    if name.startswith("hunyuan"):
        distilled = "_cfg_distilled" if name.endswith("distilled") else ""
        file = f"hunyuanvideo1.5_720p_{'t2v' if image is None else 'i2v'}{distilled}_fp16.safetensors"
    request = VideoRequest(prompt="a boat", checkpoint=in_parts(name, file), seed=1, input_image=image)
    assert troubles(build_video(request, name).graph) == []
