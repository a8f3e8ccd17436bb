"""Graphs of ComfyUI's page: read as the page itself would run them, or refused node by node."""

from typing import Any

import pytest

from comfy_mcp.workflows.convert import convert, is_ui_graph, unwrapped
from comfy_mcp.workflows.graphs import Graph
from comfy_mcp.workflows.templates import list_templates

from .page import saved
from .server import SERVER, flux_graph, object_info


def converted(page: dict[str, Any]) -> Graph:
    graph, problems = convert(page, SERVER)
    assert problems == []
    return graph


def node_of(page: dict[str, Any], node_id: int) -> dict[str, Any]:
    return next(node for node in page["nodes"] if node["id"] == node_id)


def relinked(page: dict[str, Any], node_id: int, name: str, origin: int, slot: int) -> None:
    link = next(entry["link"] for entry in node_of(page, node_id)["inputs"] if entry["name"] == name)
    next(entry for entry in page["links"] if entry[0] == link)[1:3] = [origin, slot]


@pytest.mark.parametrize("graph", [template.graph for template in list_templates()])
def test_what_the_page_saves_becomes_the_graph_again(graph: Graph) -> None:
    page = saved(graph)
    assert is_ui_graph(page)
    assert converted(page) == graph


def test_links_may_be_objects_and_values_may_have_names() -> None:
    page = saved(flux_graph())
    page["links"] = [{"id": link[0], "origin_id": link[1], "origin_slot": link[2]} for link in page["links"]]
    node_of(page, 6)["widgets_values"] = {"width": 1024, "height": 1024, "batch_size": 1, "videopreview": {}}
    assert converted(page) == flux_graph()


def test_notes_are_left_out_and_reroutes_followed() -> None:
    page = saved(flux_graph())
    page["nodes"] += [
        {"id": 20, "type": "Note", "mode": 0, "widgets_values": ["mind the trigger word"]},
        {"id": 21, "type": "Reroute", "mode": 0, "inputs": [{"name": "", "type": "*", "link": 50}], "outputs": [{}]},
        {"id": 22, "type": "Reroute", "mode": 0, "inputs": [{"name": "", "type": "*", "link": 51}], "outputs": [{}]},
    ]
    page["links"] += [[50, 22, 0, 21, 0, "*"], [51, 1, 2, 22, 0, "*"]]
    relinked(page, 8, "vae", 21, 0)
    assert converted(page) == flux_graph()


def test_a_primitive_gives_its_value() -> None:
    page = saved(flux_graph())
    page["nodes"].append({"id": 20, "type": "PrimitiveNode", "mode": 0, "widgets_values": [28, "fixed"]})
    page["links"].append([50, 20, 0, 7, 4, "INT"])
    node_of(page, 7)["inputs"].append({"name": "steps", "type": "INT", "link": 50, "widget": {"name": "steps"}})
    graph = converted(page)
    assert graph["7"]["inputs"]["steps"] == 28
    assert graph["7"]["inputs"]["cfg"] == 1.0


def test_a_bypassed_lora_hands_on_model_and_text_encoder() -> None:
    page = saved(flux_graph())
    node_of(page, 2)["mode"] = 4
    graph = converted(page)
    assert "2" not in graph
    assert graph["7"]["inputs"]["model"] == ["1", 0]
    assert graph["3"]["inputs"]["clip"] == ["1", 1]


def test_a_bypassed_node_without_a_like_input_hands_on_nothing() -> None:
    page = saved(flux_graph())
    node_of(page, 8)["mode"] = 4
    assert "images" not in converted(page)["9"]["inputs"]


def test_a_muted_node_takes_its_links_with_it() -> None:
    page = saved(flux_graph())
    node_of(page, 5)["mode"] = 2
    graph = converted(page)
    assert "5" not in graph
    assert "positive" not in graph["7"]["inputs"]


def test_reroutes_in_a_circle_lead_nowhere() -> None:
    page = saved(flux_graph())
    page["nodes"].append({"id": 21, "type": "Reroute", "mode": 0, "inputs": [{"name": "", "link": 50}]})
    page["links"].append([50, 21, 0, 21, 0, "*"])
    relinked(page, 8, "vae", 21, 0)
    assert "vae" not in converted(page)["8"]["inputs"]


def test_a_setter_hands_on_to_its_getters_by_name() -> None:
    page = saved(flux_graph())
    page["nodes"] += [
        {"id": 20, "type": "SetNode", "inputs": [{"name": "VAE", "link": 50}], "widgets_values": ["vae"]},
        {"id": 21, "type": "GetNode", "outputs": [{"name": "VAE", "type": "VAE"}], "widgets_values": ["vae"]},
    ]
    page["links"].append([50, 1, 2, 20, 0, "VAE"])
    relinked(page, 8, "vae", 21, 0)
    assert converted(page) == flux_graph()


def test_a_choice_brings_values_of_its_own() -> None:
    page = saved(flux_graph())
    values = ["clip", "auto", "h264", "re-encode", 18.0]
    page["nodes"].append({"id": 32, "type": "SaveVideo", "mode": 0, "widgets_values": values})
    assert converted(page)["32"]["inputs"] == {
        "filename_prefix": "clip",
        "format": "auto",
        "codec": "h264",
        "codec.encoding": "re-encode",
        "codec.encoding.crf": 18.0,
    }


def test_any_number_of_links_is_taken_as_it_stands() -> None:
    server = object_info()
    template: dict[str, Any] = {
        "template": {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image", "min": 2, "max": 9}
    }
    server["BatchImages"] = {"input": {"required": {"images": ["COMFY_AUTOGROW_V3", template]}}, "output": ["IMAGE"]}
    page = saved(flux_graph())
    inputs = [{"name": f"images.image{n}", "type": "IMAGE", "link": 60 + n} for n in range(2)]
    page["nodes"].append({"id": 33, "type": "BatchImages", "inputs": inputs, "widgets_values": []})
    page["links"] += [[60, 8, 0, 33, 0, "IMAGE"], [61, 8, 0, 33, 1, "IMAGE"]]
    graph, problems = convert(page, server)
    assert problems == []
    assert graph["33"]["inputs"] == {"images.image0": ["8", 0], "images.image1": ["8", 0]}


def test_lists_are_written_so_that_nobody_takes_them_for_links() -> None:
    page = saved(flux_graph())
    node_of(page, 6)["widgets_values"] = {"width": [1, 2], "height": 1024, "batch_size": 1}
    assert converted(page)["6"]["inputs"]["width"] == {"__value__": [1, 2]}


def test_what_cannot_be_converted_is_named() -> None:
    server = object_info()
    template: dict[str, Any] = {
        "template": {"input": {"required": {"text": ["STRING", {}]}}, "prefix": "text", "min": 1, "max": 9}
    }
    server["JoinTexts"] = {"input": {"required": {"texts": ["COMFY_AUTOGROW_V3", template]}}, "output": ["STRING"]}
    page = saved(flux_graph())
    page["nodes"] += [
        {"id": 30, "type": "workflow>Upscale twice", "mode": 0},
        {"id": 31, "type": "KSamplerr", "mode": 0},
        {"id": 32, "type": "JoinTexts", "mode": 0, "widgets_values": ["a", "b"]},
        {"id": 33, "type": "2c61139d-9c34-4c7e-a083-7a67cc4770ad", "mode": 0},
    ]
    _, problems = convert(page, server)
    assert [(problem.node_id, problem.code) for problem in problems] == [
        ("30", "not_convertible"),
        ("31", "missing_node_type"),
        ("32", "not_convertible"),
        ("33", "not_convertible"),
    ]
    assert "group node" in problems[0].message
    assert "Export (API)" in problems[0].message
    assert problems[1].closest_matches[0] == "KSampler"
    assert "`texts`" in problems[2].message
    assert "definition is missing" in problems[3].message


BROKEN: list[dict[str, Any]] = [
    {"nodes": [], "links": None},
    {"nodes": [None, 5, {}], "links": [[], [1], 7, {}]},
    {"nodes": [{"id": 1, "type": "VAEDecode", "mode": "x", "inputs": 5, "widgets_values": 7}], "links": []},
    {"nodes": [{"id": 1, "type": "VAEDecode", "inputs": [{"name": "vae", "link": 3}]}], "links": [[3, 9, 0]]},
    {"nodes": [{"id": 1, "type": "VAEDecode", "inputs": [{"name": "vae", "link": 3}]}], "links": [[[], {}, None]]},
    {"nodes": [{"id": 1, "type": "KSampler", "widgets_values": [1, [], {}, None]}], "links": []},
    {"nodes": [{"id": 1, "type": "Reroute"}], "links": [{"id": {}, "origin_id": [], "origin_slot": "x"}]},
]


@pytest.mark.parametrize("page", BROKEN)
def test_broken_pages_get_an_answer(page: dict[str, Any]) -> None:
    graph, problems = convert(page, SERVER)
    assert len(graph) + len(problems) <= len(page["nodes"])


def test_nodes_inside_a_prompt_are_taken_out() -> None:
    graph = flux_graph()
    assert unwrapped({"prompt": graph, "client_id": "x"}) is graph
    assert unwrapped(graph) is graph
    # A node may well be called `prompt`.
    named: dict[str, Any] = {"prompt": {"class_type": "VAELoader", "inputs": {}}, "2": {}}
    assert unwrapped(named) is named
