"""The graphs to start from: whole, by the book, and filled without guessing."""

import copy
from typing import Any

import pytest

from comfy_mcp.workflows import GenerationRequest, Graph, LoraUse, build
from comfy_mcp.workflows.image_recipes import IMAGE_RECIPES
from comfy_mcp.workflows.mermaid import to_mermaid
from comfy_mcp.workflows.templates import Parameter, Template, find_template, get_template, list_templates
from comfy_mcp.workflows.video_recipes import VIDEO_RECIPES
from mcp_toolserver.errors import InvalidArguments, NotFound

from .server import FLUX, LORA, errors, found

# What the server has, where it is not what the templates name.
FILES = {
    "flux": {"checkpoint": FLUX},
    "sdxl": {"checkpoint": "sd_xl_base_1.0.safetensors"},
    "sd15": {"checkpoint": "v1-5-pruned.safetensors"},
    "sd3": {"checkpoint": "sd3_medium.safetensors"},
    "wan": {"diffusion_model": "TI2V/Wan2_2-TI2V-5B_fp8_e4m3fn_scaled_KJ.safetensors"},
}
FOR_ALL = {
    "lora": LORA,
    "input_image": "room.png",
    "reference_image": "second.png",
    "mask": "mask.png",
    "control_image": "pose.png",
    "controlnet": "union_pro.safetensors",
    "upscale_model": "4x-sharp.pth",
}
NAMES = [template.name for template in list_templates()]


def filled(template: Template) -> Graph:
    known = {parameter.name for parameter in template.parameters}
    files = {**FOR_ALL, **FILES.get(template.family, {})}
    return get_template(template.name, {name: file for name, file in files.items() if name in known})


def another(parameter: Parameter) -> Any:
    """Return a value that is valid too."""
    if isinstance(parameter.default, str):
        return f"{parameter.default} changed"
    if isinstance(parameter.default, int):
        return parameter.default + 8
    return parameter.default + 1 if parameter.name in {"cfg_scale", "guidance"} else parameter.default * 0.9


@pytest.mark.parametrize("name", NAMES)
def test_every_template_runs_once_its_files_are_named(name: str) -> None:
    template = find_template(name)
    problems = found(filled(template))
    assert (problems == []) is (name != "pixel-birthday-workflow")
    assert errors(filled(template)) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_sets_what_it_says_and_nothing_else(name: str) -> None:
    template = find_template(name)
    assert template.title
    assert template.description
    assert template.family in {*IMAGE_RECIPES, *(recipe.family for recipe in VIDEO_RECIPES.values())}
    for parameter in template.parameters:
        assert parameter.description
        other = another(parameter)
        graph = get_template(name, {parameter.name: other})
        expected = copy.deepcopy(template.graph)
        for node_id, field in parameter.sets:
            assert expected[node_id]["inputs"][field] == parameter.default
            expected[node_id]["inputs"][field] = other
        assert graph == expected
    assert get_template(name) == template.graph


def test_the_flux_template_is_what_the_builder_makes() -> None:
    template = find_template("flux-lora-txt2img")
    texts = {parameter.name: parameter.default for parameter in template.parameters}
    request = GenerationRequest(
        prompt=str(texts["prompt"]),
        checkpoint=str(texts["checkpoint"]),
        seed=42,
        loras=(LoraUse(name=str(texts["lora"])),),
    )
    assert build(request, "flux").graph == template.graph


def test_names_are_found_as_people_write_them() -> None:
    fixed = find_template("pixel_birthday_flux_workflow_fixed.json")
    assert fixed.name == "pixel-birthday-flux-workflow-fixed"
    with pytest.raises(NotFound, match="flux-txt2image") as refused:
        find_template("flux-txt2image")
    assert refused.value.details["closest_matches"][0] == "flux-txt2img"


def test_an_unknown_parameter_is_refused_with_the_closest() -> None:
    with pytest.raises(InvalidArguments, match="no parameter `lora_name`") as refused:
        get_template("flux-lora-txt2img", {"lora_name": LORA})
    assert refused.value.details["closest_matches"][0] == "lora"
    assert "prompt" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("steps", "many", "a whole number"),
        ("steps", 20.5, "a whole number"),
        ("steps", True, "a whole number"),
        ("guidance", None, "a number"),
        ("prompt", 5, "a text"),
        ("prompt", ["1", 0], "a text"),
    ],
)
def test_a_value_of_another_type_is_refused(parameter: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidArguments, match=f"`{parameter}` is .* it takes {words}"):
        get_template("flux-lora-txt2img", {parameter: value})


@pytest.mark.parametrize(("value", "read"), [("20", 20), (20.0, 20), (" 20 ", 20)])
def test_a_number_is_read_as_generate_image_reads_it(value: Any, read: int) -> None:
    assert get_template("flux-lora-txt2img", {"steps": value})["7"]["inputs"]["steps"] == read


@pytest.mark.parametrize(
    ("parameter", "value", "nearest"),
    [
        ("steps", -1, 1),
        ("seed", -2, 0),
        ("guidance", 100, 10.0),
        ("lora_strength", -3, 0.0),
        ("lora_strength", float("nan"), None),
        ("width", 100, 96),
        ("width", "9000", 8192),
    ],
)
def test_a_number_out_of_bounds_is_refused_with_the_closest(parameter: str, value: Any, nearest: float | None) -> None:
    with pytest.raises(InvalidArguments, match=rf"Argument `parameters\.{parameter}`") as refused:
        get_template("flux-lora-txt2img", {parameter: value})
    assert refused.value.details["closest"] == nearest


def test_a_whole_number_does_for_a_number() -> None:
    graph = get_template("flux-lora-txt2img", {"guidance": 4})
    assert graph["5"]["inputs"]["guidance"] == 4.0


def test_the_drawing_has_each_node_and_link() -> None:
    graph = get_template("flux-lora-txt2img", {"prompt": 'say "hi" <b> #1 `x`\n' + "long " * 40})
    drawing = to_mermaid(graph)
    lines = drawing.splitlines()
    assert lines[0] == "flowchart LR"
    assert len([line for line in lines if "-->" in line]) == 12
    assert '  n1 -->|"model"| n2' in lines
    prompt = next(line for line in lines if "say " in line)
    assert "#quot;hi#quot; #lt;b#gt; #35;1 #96;x#96;" in prompt
    assert "…" in prompt
    assert prompt.count('"') == 2


def test_the_drawing_shows_links_to_nowhere() -> None:
    drawing = to_mermaid({"1": {"class_type": "VAEDecode", "inputs": {"samples": ["9", 0], "vae": ["9", 1]}}})
    assert '  m1["9 is missing"]' in drawing
    assert drawing.count("is missing") == 1
