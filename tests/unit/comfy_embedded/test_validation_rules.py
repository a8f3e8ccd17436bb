"""What the captures do not show of validation: outputs that are wrong themselves, and graphs of any kind."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfy_mcp.embedded.folders import Folders
from comfy_mcp.embedded.nodes.catalogue import NODES
from comfy_mcp.embedded.validation import Graph, as_link, validate


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folders = Folders(tmp_path)
    folders.create()
    return folders


def _chain() -> Graph:
    return {
        "1": {"class_type": "VAELoader", "inputs": {"vae_name": "pixel_space"}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
    }


def test_a_good_graph_has_its_outputs(folders: Folders) -> None:
    verdict = validate(_chain(), NODES, folders)
    assert (verdict.outputs, verdict.error, verdict.node_errors) == (["4"], None, {})


def test_values_become_the_types_that_nodes_take(folders: Folders) -> None:
    graph = _chain()
    graph["2"]["inputs"]["width"] = "96"
    graph["4"]["inputs"]["filename_prefix"] = 7
    assert validate(graph, NODES, folders).error is None
    assert graph["2"]["inputs"]["width"] == 96
    assert graph["4"]["inputs"]["filename_prefix"] == "7"


@pytest.mark.parametrize(
    ("node_id", "name", "value", "held"),
    [("2", "width", 96, 96), ("2", "width", "96", 96), ("4", "filename_prefix", ["a", "b"], "['a', 'b']")],
)
def test_a_value_is_taken_out_of_what_keeps_it_from_being_a_link(
    folders: Folders, node_id: str, name: str, value: Any, held: Any
) -> None:
    graph = _chain()
    graph[node_id]["inputs"][name] = {"__value__": value}
    assert validate(graph, NODES, folders).error is None
    assert graph[node_id]["inputs"][name] == held


@pytest.mark.parametrize(
    ("node_id", "name", "value", "code"),
    [
        ("2", "width", 0, "value_smaller_than_min"),
        ("2", "width", [64], "invalid_input_type"),
        ("1", "vae_name", ["3", 0], "value_not_in_list"),
        ("4", "images", ["77", 0], "exception_during_validation"),
        ("4", "images", ["3"], "bad_linked_input"),
    ],
)
def test_a_value_that_was_taken_out_is_judged(folders: Folders, node_id: str, name: str, value: Any, code: str) -> None:
    graph = _chain()
    graph[node_id]["inputs"][name] = {"__value__": value}
    assert [error["type"] for error in validate(graph, NODES, folders).node_errors[node_id]["errors"]] == [code]


def test_a_list_of_pictures_is_no_picture(folders: Folders) -> None:
    graph = _chain()
    graph["5"] = {"class_type": "LoadImage", "inputs": {"image": {"__value__": ["3", 0]}}}
    graph["4"]["inputs"]["images"] = ["5", 0]
    errors = validate(graph, NODES, folders).node_errors["5"]["errors"]
    assert [error["type"] for error in errors] == ["custom_validation_failed"]


def test_an_output_that_is_wrong_itself_is_told_in_the_error(folders: Folders) -> None:
    graph = _chain()
    del graph["4"]["inputs"]["images"]
    verdict = validate(graph, NODES, folders)
    assert verdict.error is not None
    assert verdict.error["details"] == "Required input is missing: images"


def test_an_output_whose_link_leads_nowhere_is_told(folders: Folders) -> None:
    graph = _chain()
    graph["4"]["inputs"]["images"] = ["77", 0]
    verdict = validate(graph, NODES, folders)
    assert verdict.node_errors["4"]["errors"][0]["type"] == "exception_during_validation"
    assert verdict.error is not None
    assert verdict.error["details"] == "Exception when validating node: '77'"


def test_two_outputs_that_need_one_broken_node_are_both_named(folders: Folders) -> None:
    graph = _chain()
    graph["2"]["inputs"]["width"] = 0
    graph["5"] = copy.deepcopy(graph["4"])
    verdict = validate(graph, NODES, folders)
    assert verdict.outputs == []
    assert list(verdict.node_errors) == ["2"]
    assert verdict.node_errors["2"]["dependent_outputs"] == ["4", "5"]


def test_targets_limit_the_outputs(folders: Folders) -> None:
    graph = _chain()
    graph["5"] = copy.deepcopy(graph["4"])
    assert validate(graph, NODES, folders, ["5"]).outputs == ["5"]
    error = validate(graph, NODES, folders, ["3"]).error
    assert error is not None
    assert error["type"] == "prompt_no_outputs"


def test_a_longer_cycle_names_its_members_in_order(folders: Folders) -> None:
    graph = _chain()
    for node_id, source in (("6", "7"), ("7", "8"), ("8", "6")):
        inputs = {"image": [source, 0], "upscale_method": "area", "width": 8, "height": 8, "crop": "disabled"}
        graph[node_id] = {"class_type": "ImageScale", "inputs": inputs}
    graph["4"]["inputs"]["images"] = ["6", 0]
    errors = validate(graph, NODES, folders).node_errors
    assert set(errors) == {"6", "7", "8"}
    for node_id, entry in errors.items():
        (error,) = entry["errors"]
        assert error["details"] == "6 (ImageScale) -> 7 (ImageScale) -> 8 (ImageScale) -> 6 (ImageScale)"
        assert error["extra_info"] == {"node_id": node_id, "cycle_nodes": ["6", "7", "8"]}


_IDS = st.sampled_from(["1", "2", "3", "4"])
_LINKS = st.tuples(_IDS, st.integers(0, 2)).map(list)
_VALUES: st.SearchStrategy[Any] = st.one_of(
    _LINKS,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=3),
)


@st.composite
def _graphs(draw: st.DrawFn) -> Graph:
    graph: Graph = {}
    for node_id in ("1", "2", "3", "4"):
        name = draw(st.sampled_from(["SaveImage", *NODES]))
        inputs = {item.name: draw(_VALUES) for item in NODES[name].inputs if draw(st.integers(0, 5))}
        graph[node_id] = {"class_type": name, "inputs": inputs}
    return graph


@given(_graphs())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_graph_is_judged(folders: Folders, graph: Graph) -> None:
    """Every graph gets a verdict, and what it lets through is whole: links lead to slots of the type that is taken."""
    verdict = validate(graph, NODES, folders)
    assert (verdict.error is None) == bool(verdict.outputs)
    waiting, seen = list(verdict.outputs), set[str]()
    while waiting:
        node_id = waiting.pop()
        seen.add(node_id)
        for item in NODES[graph[node_id]["class_type"]].inputs:
            link = as_link(graph[node_id]["inputs"].get(item.name))
            if link is not None:
                source, slot = link
                assert NODES[graph[source]["class_type"]].output_types[slot] == item.type
                assert source not in verdict.node_errors
                waiting += [] if source in seen else [source]
