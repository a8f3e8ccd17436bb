"""What ComfyUI's own refusals, as captured, come to for a caller."""

import copy
from typing import Any

import pytest

from comfy_mcp.engines.comfyui_refusals import read_node_errors, refusal, warnings_of
from mcp_toolserver.errors import BackendRejected, InvalidArguments
from tests.contract.comfyui.talk import read_capture

CASES: dict[str, Any] = read_capture("validation.json")
GRAPH: dict[str, dict[str, Any]] = read_capture("flux_lora.json")
OBJECT_INFO: dict[str, Any] = {
    "KSampler": {"input": {"required": {"sampler_name": [["euler", "heun"], {}], "scheduler": ["COMBO", {}]}}},
    "LoraLoader": {"input": {"required": {"lora_name": ["COMBO", {"options": ["nope_v2.safetensors"]}]}}},
}
REFUSED = [name for name, case in CASES.items() if case["expect"].get("status") == 400]


def test_there_are_captured_refusals() -> None:
    assert len(REFUSED) > 20


@pytest.mark.parametrize("name", REFUSED)
def test_a_captured_refusal_names_its_nodes(name: str) -> None:
    body = CASES[name]["expect"]
    error = refusal(body, GRAPH, OBJECT_INFO)
    assert error.message.startswith("ComfyUI refused the graph: ")
    named = {problem["node_id"] for problem in error.details.get("problems", [])}
    assert set(body.get("node_errors", {})) <= named
    if named:
        assert isinstance(error, InvalidArguments)
        assert all(problem["message"] for problem in error.details["problems"])


def test_a_value_outside_a_short_list_has_the_closest_from_the_answer() -> None:
    body = copy.deepcopy(CASES["lora_not_in_list"]["expect"])
    facts = body["node_errors"]["40"]["errors"][0]["extra_info"]
    facts["input_config"] = ["COMBO", {"options": ["nope_1.safetensors", "zebra.sft"]}]
    [problem] = refusal(body, GRAPH).details["problems"]
    assert problem["closest_matches"] == ("nope_1.safetensors",)
    facts["input_config"] = [["nope_2.safetensors"], {"tooltip": "…"}]
    [problem] = refusal(body, GRAPH).details["problems"]
    assert problem["closest_matches"] == ("nope_2.safetensors",)


def test_a_value_outside_a_long_list_has_the_closest_from_object_info() -> None:
    body = copy.deepcopy(CASES["lora_not_in_list"]["expect"])
    body["node_errors"]["40"]["errors"][0]["extra_info"]["input_config"] = None
    [problem] = refusal(body, GRAPH, OBJECT_INFO).details["problems"]
    assert problem["closest_matches"] == ("nope_v2.safetensors",)
    assert "`nope_v2.safetensors`" in problem["message"]


@pytest.mark.parametrize("code", ["invalid_prompt", "missing_node_type"])
def test_a_missing_node_is_named_whatever_the_version_calls_it(code: str) -> None:
    # 0.3.64 says `invalid_prompt`, 0.30 `missing_node_type`.
    graph: dict[str, dict[str, Any]] = {"1": {"class_type": "KSamplr", "inputs": {}}}
    body: dict[str, Any] = {
        "error": {"type": code, "message": "Cannot execute", "details": "", "extra_info": {}},
        "node_errors": [],
    }
    error = refusal(body, graph, OBJECT_INFO)
    assert isinstance(error, InvalidArguments)
    assert error.details["problems"][0]["closest_matches"] == ("KSampler",)
    assert "get-object-info" in (error.hint or "")


def test_a_fault_of_our_own_is_not_the_callers() -> None:
    body = {"error": {"type": "invalid_prompt_id", "message": "prompt_id must be a valid UUID"}, "node_errors": {}}
    assert isinstance(refusal(body, GRAPH), BackendRejected)


@pytest.mark.parametrize("body", [None, [], {}, {"error": "text"}, {"error": {}, "node_errors": {"1": None}}])
def test_a_refusal_that_makes_no_sense_is_still_one(body: object) -> None:
    assert isinstance(refusal(body, GRAPH), BackendRejected)


def test_dropped_outputs_are_put_into_words() -> None:
    found = read_node_errors(CASES["one_good_one_bad_output"]["expect"]["node_errors"])
    [warning] = warnings_of(found)
    assert found[0].dropped_outputs[0] in warning
