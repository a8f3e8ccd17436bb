"""Faults of a graph, each found at its place and with its cure."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from comfy_mcp.workflows import Graph, check

from .server import LORA, SERVER, errors, flux_graph, found, object_info, only

Change = Callable[[Graph], object]


def setting(node_id: str, name: str, value: Any) -> Change:
    return lambda graph: graph[node_id]["inputs"].update({name: value})


def dropping(node_id: str, name: str) -> Change:
    return lambda graph: graph[node_id]["inputs"].pop(name)


def without(node_id: str, key: str) -> Change:
    return lambda graph: graph[node_id].pop(key)


def replacing(node_id: str, node: Any) -> Change:
    return lambda graph: graph.update({node_id: node})


def changed(change: Change) -> Graph:
    graph = flux_graph()
    change(graph)
    return graph


def test_the_nine_nodes_have_no_problem() -> None:
    assert found(flux_graph()) == []


# What ComfyUI 0.30 answers to the same changes, where it looks at all; the last column is its code or ours.
@pytest.mark.parametrize(
    ("change", "node_id", "field", "code"),
    [
        (setting("2", "lora_name", "nope.safetensors"), "2", "lora_name", "value_not_in_list"),
        (setting("2", "lora_name", ""), "2", "lora_name", "value_not_in_list"),
        (setting("2", "lora_name", None), "2", "lora_name", "null_input"),
        (setting("2", "lora_name", "./pixel_cat.safetensors"), "2", "lora_name", "value_not_in_list"),
        (setting("1", "ckpt_name", "nope.safetensors"), "1", "ckpt_name", "value_not_in_list"),
        (setting("7", "negative", None), "7", "negative", "null_input"),
        (setting("7", "model", None), "7", "model", "null_input"),
        (setting("7", "negative", "x"), "7", "negative", "not_a_link"),
        (dropping("7", "negative"), "7", "negative", "required_input_missing"),
        (dropping("7", "seed"), "7", "seed", "required_input_missing"),
        (setting("7", "latent_image", ["777", 0]), "7", "latent_image", "link_to_missing_node"),
        (setting("7", "latent_image", ["6", 5]), "7", "latent_image", "bad_slot"),
        (setting("7", "latent_image", ["6", -1]), "7", "latent_image", "bad_slot"),
        (setting("7", "latent_image", [6, 0]), "7", "latent_image", "bad_linked_input"),
        (setting("7", "latent_image", ["6", 0, 1]), "7", "latent_image", "bad_linked_input"),
        (setting("7", "latent_image", ["6", "0"]), "7", "latent_image", "bad_linked_input"),
        (setting("7", "latent_image", ["1", 2]), "7", "latent_image", "return_type_mismatch"),
        (setting("3", "text", ["a", 1]), "3", "text", "link_to_missing_node"),
        (setting("7", "cfg", 500.0), "7", "cfg", "value_bigger_than_max"),
        (setting("7", "cfg", -1.0), "7", "cfg", "value_smaller_than_min"),
        (setting("7", "cfg", "abc"), "7", "cfg", "invalid_input_type"),
        (setting("7", "cfg", float("nan")), "7", "cfg", "not_a_number"),
        (setting("7", "cfg", float("inf")), "7", "cfg", "not_a_number"),
        (setting("7", "steps", 1.9), "7", "steps", "not_an_integer"),
        (setting("7", "steps", "1.9"), "7", "steps", "invalid_input_type"),
        (setting("7", "steps", {}), "7", "steps", "invalid_input_type"),
        (setting("7", "steps", 10**400), "7", "steps", "invalid_input_type"),
        (setting("7", "seed", -1), "7", "seed", "value_smaller_than_min"),
        (setting("7", "seed", 2**64), "7", "seed", "value_bigger_than_max"),
        (setting("7", "sampler_name", "zzz"), "7", "sampler_name", "value_not_in_list"),
        (setting("6", "width", 0), "6", "width", "value_smaller_than_min"),
        (setting("9", "filename_prefix", {"a": "../../x"}), "9", "filename_prefix", "path_outside_folder"),
        (setting("9", "filename_prefix", {"__value__": "../../x"}), "9", "filename_prefix", "path_outside_folder"),
        (setting("7", "negative", {"__value__": None}), "7", "negative", "null_input"),
        (setting("7", "negative", {"__value__": ["77", 0]}), "7", "negative", "link_to_missing_node"),
        (setting("7", "steps", {"__value__": 0}), "7", "steps", "value_smaller_than_min"),
        (setting("7", "steps", {"__value__": [20]}), "7", "steps", "invalid_input_type"),
        (setting("7", "steps", {"__value__": {"__value__": 20}}), "7", "steps", "invalid_input_type"),
        (setting("1", "ckpt_name", {"__value__": "FLUX1-dev.safetensors"}), "1", "ckpt_name", "value_not_in_list"),
        (setting("7", "sampler_name", {"__value__": ["euler"]}), "7", "sampler_name", "value_not_in_list"),
        (setting("2", "strength_model", 1000.0), "2", "strength_model", "value_bigger_than_max"),
        (setting("9", "filename_prefix", "../../x"), "9", "filename_prefix", "path_outside_folder"),
        (setting("9", "filename_prefix", "C:\\x"), "9", "filename_prefix", "path_outside_folder"),
        (without("7", "inputs"), "7", None, "missing_inputs"),
        (without("7", "class_type"), "7", None, "missing_class_type"),
        (replacing("7", {"class_type": "KSamplr", "inputs": {}}), "7", None, "missing_node_type"),
        (replacing("7", 5), "7", None, "node_not_an_object"),
    ],
)
def test_a_fault_is_an_error_at_its_place(change: Change, node_id: str, field: str | None, code: str) -> None:
    problems = errors(changed(change))
    assert (node_id, field, code) in [(problem.node_id, problem.input, problem.code) for problem in problems]
    assert all(f"Node {node_id}" in problem.message for problem in problems if problem.node_id == node_id)


@pytest.mark.parametrize(
    ("change", "code", "closest"),
    [
        (setting("7", "cfg", "1.0"), "number_as_other_type", ("1.0",)),
        (setting("7", "steps", True), "number_as_other_type", ("1",)),
        (setting("6", "width", 1001), "not_a_multiple", ("1000",)),
        (setting("7", "sampler", "euler"), "unknown_input", ("sampler_name",)),
    ],
)
def test_what_runs_all_the_same_is_a_warning(change: Change, code: str, closest: tuple[str, ...]) -> None:
    problem = only(changed(change))
    assert (problem.severity, problem.code) == ("warning", code)
    if code != "unknown_input":
        assert problem.closest_matches == closest


def test_a_null_negative_is_answered_with_an_empty_text() -> None:
    problem = only(changed(setting("7", "negative", None)))
    assert problem.message.startswith("Node 7 (KSampler): `negative` is null.")
    assert "CLIPTextEncode with an empty text" in problem.message
    assert problem.closest_matches == ('["3", 0]', '["4", 0]', '["5", 0]')


def test_a_misspelt_input_is_named_for_the_one_that_is_missing() -> None:
    graph = flux_graph()
    inputs = graph["7"]["inputs"]
    inputs["sampler"] = inputs.pop("sampler_name")
    missing, unknown = found(graph)
    assert (missing.code, missing.severity) == ("required_input_missing", "error")
    assert "`sampler` is there instead" in missing.message
    assert (unknown.code, unknown.severity, unknown.closest_matches[0]) == ("unknown_input", "warning", "sampler_name")


@pytest.mark.parametrize(
    ("written", "meant", "why"),
    [
        ("characters\\Ada.safetensors", "characters/Ada.safetensors", "other separators"),
        ("styles/ink.safetensors", "styles\\ink.safetensors", "other separators"),
        ("./pixel_cat.safetensors", "pixel_cat.safetensors", "other separators"),
        ("Pixel_Cat.safetensors", "pixel_cat.safetensors", "letter case"),
        ("characters/ada.safetensors", "characters/Ada.safetensors", "letter case"),
        ("Ada.safetensors", "characters/Ada.safetensors", "in a folder"),
        ("people/Ada.safetensors", "characters/Ada.safetensors", "another folder"),
        ("pixel_cat", "pixel_cat.safetensors", "its ending"),
        ("pixel-cat_v2.safetensors", "pixel_cat.safetensors", "Did you mean"),
    ],
)
def test_a_lora_that_is_not_in_the_list_is_recognised(written: str, meant: str, why: str) -> None:
    problem = only(changed(setting("2", "lora_name", written)))
    assert problem.closest_matches[0] == meant
    assert why in problem.message


def test_both_forms_of_a_list_are_read() -> None:
    graph = flux_graph()
    graph["20"] = {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "4x-sharp"}}
    graph["21"] = {
        "class_type": "SaveAnimatedWEBP",
        "inputs": {
            "images": ["8", 0],
            "filename_prefix": "x",
            "fps": 6.0,
            "lossless": True,
            "quality": 80,
            "method": "fast",
        },
    }
    by_node = {problem.node_id: problem for problem in found(graph)}
    assert by_node["20"].closest_matches == ("4x-sharp.pth",)
    assert by_node["21"].closest_matches[0] == "fastest"


def test_an_empty_list_says_so() -> None:
    info = object_info()
    info["LoraLoader"]["input"]["required"]["lora_name"][0] = []
    [problem] = check(flux_graph(), info)
    assert "The list is empty" in problem.message


def test_an_image_may_lie_in_another_folder_but_not_outside() -> None:
    def with_image(name: str) -> Graph:
        graph = flux_graph()
        graph["20"] = {"class_type": "LoadImage", "inputs": {"image": name}}
        graph["21"] = {"class_type": "PreviewImage", "inputs": {"images": ["20", 0]}}
        return graph

    for name in ("room.png", "sub/a.png", "a.png [output]"):
        assert found(with_image(name)) == []
    assert only(with_image("nope.png")).code == "value_not_in_list"
    assert only(with_image("../output/x.png")).code == "path_outside_folder"


def test_inputs_that_only_the_server_can_enumerate_pass() -> None:
    graph = flux_graph()
    graph["20"] = {"class_type": "CreateVideo", "inputs": {"images": ["8", 0], "fps": 24.0}}
    graph["21"] = {
        "class_type": "SaveVideo",
        "inputs": {
            "video": ["20", 0],
            "filename_prefix": "v",
            "format": "auto",
            "codec": "h264",
            "codec.encoding": "re-encode",
            "codec.encoding.crf": 20.0,
        },
    }
    assert found(graph) == []
    graph["21"]["inputs"]["codec"] = "h265"
    assert only(graph).closest_matches == ("h264",)


def test_a_cycle_is_found_once_with_its_way() -> None:
    graph = flux_graph()
    graph["10"] = copy.deepcopy(graph["2"])
    graph["2"]["inputs"].update({"model": ["10", 0], "clip": ["10", 1]})
    graph["10"]["inputs"].update({"model": ["2", 0], "clip": ["2", 1]})
    [problem] = errors(graph)
    assert problem.code == "dependency_cycle"
    assert "2 (LoraLoader) -> 10 (LoraLoader) -> 2 (LoraLoader)" in problem.message


def test_a_deep_graph_does_not_exhaust_the_stack() -> None:
    graph = flux_graph()
    for index in range(100, 3100):
        graph[str(index)] = copy.deepcopy(graph["2"])
        graph[str(index)]["inputs"].update({"model": [str(index - 1), 0], "clip": [str(index - 1), 1]})
    graph["100"]["inputs"].update({"model": ["1", 0], "clip": ["1", 1]})
    graph["2"]["inputs"].update({"model": ["3099", 0], "clip": ["3099", 1]})
    assert found(graph) == []


def test_a_graph_without_output_is_told_where_to_add_one() -> None:
    graph = flux_graph()
    del graph["9"]
    problem = only(graph)
    assert (problem.code, problem.node_id) == ("prompt_no_outputs", None)
    assert 'linked to ["8", 0]' in problem.message


def test_a_node_that_is_not_known_may_be_the_one_that_saves() -> None:
    graph = flux_graph()
    graph["9"]["class_type"] = "SaveSomewhere"
    assert only(graph).code == "missing_node_type"


def test_a_node_is_not_offered_as_its_own_source() -> None:
    problem = only(changed(setting("7", "latent_image", ["99", 0])))
    assert (problem.code, problem.closest_matches) == ("link_to_missing_node", ('["6", 0]',))
    assert '["7", 0]' not in problem.message


def test_faults_in_nodes_that_no_output_needs_are_warnings() -> None:
    graph = flux_graph()
    graph["20"] = {"class_type": "VAEDecode", "inputs": {"samples": ["7", 0], "vae": None}}
    problem = only(graph)
    assert (problem.code, problem.severity) == ("null_input", "warning")
    assert "No output needs this node" in problem.message
    graph["21"] = {"class_type": "NoSuchNode", "inputs": {}}
    assert [problem.code for problem in errors(graph)] == ["missing_node_type"]


def test_one_bad_output_beside_a_good_one_is_an_error() -> None:
    graph = flux_graph()
    graph["20"] = {"class_type": "VAELoader", "inputs": {"vae_name": "nope.safetensors"}}
    graph["21"] = {"class_type": "VAEDecode", "inputs": {"samples": ["7", 0], "vae": ["20", 0]}}
    graph["22"] = {"class_type": "PreviewImage", "inputs": {"images": ["21", 0]}}
    assert [(problem.node_id, problem.code) for problem in errors(graph)] == [("20", "value_not_in_list")]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (None, "not_an_object"),
        ([], "not_an_object"),
        ("{}", "not_an_object"),
        ({}, "no_nodes"),
        ({"nodes": [], "links": []}, "ui_format"),
        ({"prompt": {"1": {"class_type": "VAELoader", "inputs": {}}}}, "wrapped_graph"),
    ],
)
def test_what_is_no_graph_is_refused_by_its_form(document: object, code: str) -> None:
    assert [problem.code for problem in found(document)] == [code]


def test_an_unknown_class_names_the_closest() -> None:
    problem = next(problem for problem in found(changed(replacing("7", {"class_type": "Ksampler", "inputs": {}}))))
    assert problem.closest_matches[0] == "KSampler"


def test_problems_are_json() -> None:
    graph = flux_graph()
    graph["7"]["inputs"].update({"cfg": float("nan"), "negative": None, "sampler_name": "zzz"})
    assert json.dumps([asdict(problem) for problem in found(graph)], allow_nan=False)


NODE_INPUTS = [(node_id, name) for node_id, node in flux_graph().items() for name in node["inputs"]]
WRONG = st.one_of(
    st.none(),
    st.just(float("nan")),
    st.just([]),
    st.just(["404", 0]),
    st.just(["1", 17]),
    st.just(["9", 0, 0]),
    st.just([9, 0]),
)


@given(st.sampled_from(NODE_INPUTS), WRONG)
def test_no_wrong_value_in_any_input_passes(place: tuple[str, str], value: Any) -> None:
    node_id, name = place
    # ComfyUI makes text of a number; that is no fault.
    assume(not (name in {"text", "filename_prefix"} and isinstance(value, float)))
    graph = changed(setting(node_id, name, value))
    assert (node_id, name) in [(problem.node_id, problem.input) for problem in errors(graph)]


@given(st.sampled_from(NODE_INPUTS))
def test_no_missing_input_passes(place: tuple[str, str]) -> None:
    graph = changed(dropping(*place))
    problem = errors(graph)[0]
    assert (problem.node_id, problem.input, problem.code) == (*place, "required_input_missing")


LINKS = [(node_id, name) for node_id, name in NODE_INPUTS if isinstance(flux_graph()[node_id]["inputs"][name], list)]
OUTPUTS = [(node_id, slot) for node_id in flux_graph() for slot in range(3)]


@given(st.sampled_from(LINKS), st.sampled_from(OUTPUTS))
def test_a_link_passes_only_to_an_output_of_its_type(place: tuple[str, str], output: tuple[str, int]) -> None:
    node_id, name = place
    info, graph = SERVER, flux_graph()
    source, slot = output
    wanted = info[graph[node_id]["class_type"]]["input"]["required"][name][0]
    outputs = info[graph[source]["class_type"]]["output"]
    right = slot < len(outputs) and outputs[slot] == wanted
    graph[node_id]["inputs"][name] = [source, slot]
    codes = [problem.code for problem in errors(graph) if problem.input == name and problem.node_id == node_id]
    assert codes == [] if right else codes[0] in {"bad_slot", "return_type_mismatch"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
NODES = st.dictionaries(
    st.sampled_from(["1", "2", "3"]),
    st.fixed_dictionaries(
        {},
        optional={
            "class_type": st.sampled_from(sorted(SERVER)) | JSON,
            "inputs": st.dictionaries(
                st.sampled_from(["model", "clip", "lora_name", "positive", "negative", "images", "cfg", "text"]),
                JSON | st.tuples(st.sampled_from(["1", "2", "3"]), st.integers(-1, 3)).map(list),
                max_size=5,
            )
            | JSON,
        },
    )
    | JSON,
    max_size=3,
)


@given(JSON | NODES)
def test_whatever_is_sent_gets_an_answer(document: object) -> None:
    assert isinstance(found(document, {LORA: "flux"}, {}), list)


def test_a_wrapped_value_is_right_where_the_value_is() -> None:
    graph = changed(setting("7", "steps", {"__value__": 20}))
    graph["2"]["inputs"]["lora_name"] = {"__value__": LORA}
    assert found(graph) == []


def test_of_a_list_with_several_choices_each_must_be_there() -> None:
    info = object_info()
    info["Tags"] = {"input": {"required": {"tags": [["red", "blue"], {"multiselect": True}]}}, "output": []}
    graph = flux_graph()
    graph["20"] = {"class_type": "Tags", "inputs": {"tags": {"__value__": ["red", "blue"]}}}
    assert check(graph, info) == []
    graph["20"]["inputs"]["tags"] = {"__value__": ["red", "blu"]}
    [problem] = check(graph, info)
    assert (problem.code, problem.closest_matches) == ("value_not_in_list", ("blue",))


@pytest.mark.parametrize(
    ("value", "text"),
    [({"a": 1}, "an object; ComfyUI reads it as the text \"{'a': 1}\""), ({"__value__": ["a", "b"]}, "a list")],
)
def test_a_text_that_is_none_runs_as_what_python_prints(value: object, text: str) -> None:
    problem = only(changed(setting("3", "text", value)))
    assert (problem.code, problem.severity, problem.input) == ("text_as_other_type", "warning", "text")
    assert f"`text` is {text}" in problem.message
