"""POST /prompt answers as captured: what is refused, in which words, and what is accepted and fails later."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.contract.comfyui.talk import Comfy, read_capture

CASES: dict[str, dict[str, Any]] = read_capture("validation.json")

_OPTIONS = re.compile(r" not in (\[.*\]|\(list of length \d+\))$", re.DOTALL)


@pytest.mark.parametrize("name", CASES)
async def test_prompt_is_answered_as_captured(comfy: Comfy, name: str) -> None:
    change, expect = CASES[name]["change"], comfy.differences.expected(name, CASES[name]["expect"])
    response = await comfy.http.post("/prompt", content=_body(comfy, change), headers=change.get("headers", {}))

    assert response.status_code == expect["status"], response.text
    if "text" in expect:
        assert response.text == expect["text"]
        return
    answer = response.json()
    assert _told_nodes(answer["node_errors"]) == _told_nodes(expect["node_errors"])
    if "error" in expect:
        assert _told(answer["error"]) == _told(expect["error"])
        return
    ended = await comfy.end_of(answer["prompt_id"])
    if "run" in expect:
        _compare_run(ended.history, expect)


def _body(comfy: Comfy, change: dict[str, Any]) -> str:
    if "raw" in change:
        return change["raw"]
    graph = comfy.graph()
    for node_id, node in json.loads(json.dumps(change.get("nodes", {})).replace("<lora>", comfy.names.lora)).items():
        graph[node_id] = node
    for node_id, inputs in change.get("inputs", {}).items():
        graph[node_id]["inputs"] |= inputs
    for node_id, inputs in change.get("without_inputs", {}).items():
        for name in inputs:
            del graph[node_id]["inputs"][name]
    for node_id, meta in change.get("meta", {}).items():
        graph[node_id]["_meta"] = meta
    for node_id in change.get("without_nodes", []):
        del graph[node_id]
    return json.dumps({"prompt": graph, "client_id": comfy.client_id, **change.get("body", {})})


def _told_nodes(node_errors: dict[str, Any]) -> dict[str, Any]:
    return {
        # The order of a node's errors is that of a set in ComfyUI: no one's to rely on.
        node_id: {**entry, "errors": sorted((_told(error) for error in entry["errors"]), key=json.dumps)}
        for node_id, entry in node_errors.items()
    }


def _told(error: dict[str, Any]) -> dict[str, Any]:
    """Return an error without what depends on the machine: installed files, help texts, tracebacks."""
    extra = {key: value for key, value in error["extra_info"].items() if key != "traceback"}
    if error["type"] == "value_not_in_list":
        extra.pop("input_config", None)
    elif "input_config" in extra:
        kind, settings = extra["input_config"]
        extra["input_config"] = [kind, {key: value for key, value in settings.items() if key != "tooltip"}]
    return {**error, "details": _OPTIONS.sub(" not in <options>", error["details"]), "extra_info": extra}


def _compare_run(history: dict[str, Any], expect: Mapping[str, Any]) -> None:
    status, run = history["status"], expect["run"]
    assert (status["status_str"], status["completed"]) == (run["status_str"], run["completed"])
    assert [event for event, _ in status["messages"]] == run["messages"]
    if "error" in run:
        failure = status["messages"][-1][1]
        for key in ("node_id", "node_type", "exception_type"):
            assert failure[key] == run["error"].get(key, failure[key])
        assert run["error"]["exception_message"] in failure["exception_message"]
    assert history["outputs"].keys() == expect["outputs"].keys()
    for node_id, output in expect["outputs"].items():
        images = [
            {**image, "filename": re.sub(r"\d{5}", "#####", image["filename"])} for image in _images(history, node_id)
        ]
        assert images == output["images"]


def _images(history: dict[str, Any], node_id: str) -> list[dict[str, Any]]:
    return [
        {key: image[key] for key in ("filename", "subfolder", "type")}
        for image in history["outputs"][node_id]["images"]
    ]
