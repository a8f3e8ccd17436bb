"""Graphs of ComfyUI's page: read as the page itself would run them, or refused node by node."""

from typing import Any

import pytest

from comfy_mcp.workflows.convert import convert, is_ui_graph, unwrapped
from comfy_mcp.workflows.graphs import Graph
from comfy_mcp.workflows.templates import list_templates

from .page import saved
from .server import SERVER, flux_graph


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


def test_what_cannot_be_converted_is_named() -> None:
    page = saved(flux_graph())
    page["definitions"] = {"subgraphs": [{"id": "a1b2", "name": "Upscale twice"}]}
    page["nodes"] += [
        {"id": 30, "type": "a1b2", "mode": 0},
        {"id": 31, "type": "KSamplerr", "mode": 0},
        {"id": 32, "type": "SaveVideo", "mode": 0, "widgets_values": ["v", "auto", "h264", "auto"]},
    ]
    _, problems = convert(page, SERVER)
    assert [(problem.node_id, problem.code) for problem in problems] == [
        ("30", "not_convertible"),
        ("31", "missing_node_type"),
        ("32", "not_convertible"),
    ]
    assert "`Upscale twice`" in problems[0].message
    assert "Export (API)" in problems[0].message
    assert problems[1].closest_matches[0] == "KSampler"


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
