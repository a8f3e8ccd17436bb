"""The tools around graphs, as a caller has them."""

import json
from typing import Any

import pytest

from comfy_mcp.tools.workflows import workflow_tools
from comfy_mcp.workflow_checks import WorkflowChecks
from comfy_mcp.workflows.graphs import Graph
from mcp_toolserver.errors import InvalidArguments, NotFound
from mcp_toolserver.tools import Call, Toolbox

from .page import saved
from .server import FLUX, LORA, flux_graph, object_info


class Server:
    """A ComfyUI that knows its node classes, and reads its folders only when asked to."""

    def __init__(self) -> None:
        self.listed = object_info()
        self.on_disk = object_info()
        self.reads = 0

    async def object_info(self, *, refresh: bool = False) -> dict[str, Any]:
        self.reads += refresh
        if refresh:
            self.listed = self.on_disk
        return self.listed

    async def is_away(self) -> bool:
        return False


ARCHITECTURES = {LORA: "flux", "sdxl_film.safetensors": "sdxl"}
FAMILIES = {FLUX: "flux"}


async def architecture_of(name: str) -> str | None:
    return ARCHITECTURES.get(name)


async def family_of(name: str) -> str | None:
    return FAMILIES.get(name)


async def nothing_more(_: str, __: str) -> None:
    """Say nothing of how files fit, and of what stands against them."""


def toolbox(server: Server) -> Toolbox:
    checks = WorkflowChecks(
        server.object_info,
        architecture_of,
        family_of,
        lora_fit=nothing_more,
        problem=nothing_more,
        engine_is_away=server.is_away,
    )
    return Toolbox(workflow_tools(checks))


async def validate(workflow: object, server: Server | None = None) -> dict[str, Any]:
    return await toolbox(server or Server()).call("validate-workflow", {"workflow": workflow}, Call())


async def test_a_right_graph_is_valid() -> None:
    answer = await validate(flux_graph())
    assert answer == {
        "valid": True,
        "problems": [],
        "problems_left_out": 0,
        "nodes": 9,
        "converted": False,
        "message": "Nothing is wrong: run it with execute-workflow.",
    }


async def test_a_null_negative_is_named_with_its_cure() -> None:
    graph = flux_graph()
    graph["7"]["inputs"]["negative"] = None
    answer = await validate(graph)
    assert answer["valid"] is False
    [problem] = answer["problems"]
    assert (problem["node_id"], problem["class_type"], problem["input"]) == ("7", "KSampler", "negative")
    assert (problem["code"], problem["severity"]) == ("null_input", "error")
    assert "empty text" in problem["message"]


async def test_warnings_leave_a_graph_valid() -> None:
    graph = flux_graph()
    graph["7"]["inputs"]["cfg"] = 7.0
    answer = await validate(graph)
    assert (answer["valid"], [problem["code"] for problem in answer["problems"]]) == (True, ["flux_cfg"])


async def test_the_architecture_of_each_named_lora_is_looked_up() -> None:
    graph = flux_graph()
    graph["2"]["inputs"]["lora_name"] = "sdxl_film.safetensors"
    answer = await validate(graph)
    assert [problem["code"] for problem in answer["problems"]] == ["lora_architecture"]


async def test_a_page_graph_is_converted_and_checked() -> None:
    graph = flux_graph()
    graph["7"]["inputs"]["cfg"] = 7.0
    answer = await validate(saved(graph))
    assert (answer["converted"], answer["nodes"], answer["valid"]) == (True, 9, True)
    assert [problem["code"] for problem in answer["problems"]] == ["flux_cfg"]
    page = saved(graph)
    page["nodes"][6]["type"] = "KSamplerr"
    refused = await validate(page)
    assert (refused["valid"], refused["nodes"]) == (False, 0)
    assert refused["problems"][0]["closest_matches"][0] == "KSampler"


async def test_a_prompt_body_is_unwrapped() -> None:
    assert (await validate({"prompt": flux_graph(), "client_id": "x"}))["valid"] is True


async def test_an_answer_of_get_workflow_is_unwrapped() -> None:
    box = toolbox(Server())
    answer = await box.call("get-workflow", {"name": "flux-txt2img", "parameters": {"checkpoint": FLUX}}, Call())
    for sent in (answer, {"workflow": answer["workflow"]}, {"success": True, "result": answer}):
        assert await validate(sent) == await validate(answer["workflow"])
    assert (await validate({"workflow": None, "page_workflow": saved(flux_graph()), "mermaid": None}))[
        "converted"
    ] is True


async def test_a_node_may_be_called_as_a_wrapper_is() -> None:
    graph = flux_graph()
    graph["workflow"] = graph.pop("9")
    assert (await validate(graph))["nodes"] == 9


async def test_of_very_many_problems_a_hundred_are_told() -> None:
    graph = flux_graph()
    for number in range(100, 5000):
        link = None if number == 100 else [str(number - 1), 0]
        inputs = {"model": link, "lora_name": LORA, "strength_model": 1.0}
        graph[str(number)] = {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
    answer = await validate(graph)
    assert (len(answer["problems"]), answer["problems_left_out"]) == (100, 4801)
    assert len(json.dumps(answer)) < 100_000


async def test_a_long_value_and_a_long_circle_are_cut() -> None:
    graph = flux_graph()
    graph["3"]["inputs"]["text"] = {"a": "b" * 1_000_000}
    for number in range(100, 5000):
        inputs = {"model": [str(100 if number == 4999 else number + 1), 0], "lora_name": LORA, "strength_model": 1.0}
        graph[str(number)] = {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
    answer = await validate(graph)
    assert "dependency_cycle" in {problem["code"] for problem in answer["problems"]}
    assert len(json.dumps(answer)) < 100_000


async def test_a_lora_that_has_just_arrived_is_found_by_reading_again() -> None:
    server = Server()
    server.on_disk["LoraLoader"]["input"]["required"]["lora_name"][0].append("new.safetensors")
    graph = flux_graph()
    assert (await validate(graph, server))["valid"] is True
    assert server.reads == 0
    graph["2"]["inputs"]["lora_name"] = "new.safetensors"
    assert (await validate(graph, server))["valid"] is True
    assert server.reads == 1


async def test_the_classic_mistake_is_answered_with_the_right_name() -> None:
    with pytest.raises(InvalidArguments, match="belongs in `workflow`"):
        await toolbox(Server()).call("validate-workflow", {"prompt": flux_graph()}, Call())


async def test_workflows_are_listed_with_their_parameters() -> None:
    box = toolbox(Server())
    answer = await box.call("list-workflows", {}, Call())
    assert answer["total"] == len(answer["workflows"]) == 25
    flux = next(found for found in answer["workflows"] if found["name"] == "flux-lora-txt2img")
    assert {"prompt", "lora", "steps"} <= set(flux["parameters"])
    # An agent pays for this answer with its context.
    assert len(json.dumps(answer)) < 16_000
    assert (await box.call("list-workflows", {"family": "sd15"}, Call()))["total"] == 1


async def test_a_workflow_comes_filled_and_drawn_and_valid() -> None:
    box = toolbox(Server())
    parameters = {"checkpoint": FLUX, "lora": LORA, "prompt": "a pixel_cat", "steps": 25}
    answer = await box.call("get-workflow", {"name": "flux_lora_txt2img", "parameters": parameters}, Call())
    graph: Graph = answer["workflow"]
    assert (graph["3"]["inputs"]["text"], graph["7"]["inputs"]["steps"]) == ("a pixel_cat", 25)
    assert answer["mermaid"].startswith("flowchart LR\n")
    assert answer["parameters"][0]["name"] == "checkpoint"
    steps = next(parameter for parameter in answer["parameters"] if parameter["name"] == "steps")
    assert steps == {"name": "steps", "description": "Sampling steps.", "default": 20}
    assert (await validate(graph))["problems"] == []


async def test_a_sampler_that_the_server_lacks_is_refused_and_a_file_is_warned_of() -> None:
    box = toolbox(Server())
    with pytest.raises(InvalidArguments, match=r"`parameters\.sampler` is 'eulr'") as refused:
        await box.call("get-workflow", {"name": "flux-txt2img", "parameters": {"sampler": "eulr"}}, Call())
    assert refused.value.hint == "The closest valid value is euler."
    parameters = {"checkpoint": "nope.safetensors"}
    answer = await box.call("get-workflow", {"name": "flux-txt2img", "parameters": parameters}, Call())
    assert ["nope.safetensors" in warning for warning in answer["warnings"]] == [True]
    assert (await box.call("get-workflow", {"name": "flux-txt2img"}, Call()))["warnings"] == []


async def test_the_seed_that_means_any_is_drawn() -> None:
    box = toolbox(Server())
    asked = {"name": "flux-txt2img", "parameters": {"seed": -1}}
    seeds = [(await box.call("get-workflow", asked, Call()))["workflow"]["6"]["inputs"]["seed"] for _ in range(2)]
    assert min(seeds) >= 0
    assert seeds[0] != seeds[1]


async def test_an_unknown_workflow_is_refused_with_the_closest() -> None:
    with pytest.raises(NotFound) as refused:
        await toolbox(Server()).call("get-workflow", {"name": "flux-lora"}, Call())
    assert refused.value.details["closest_matches"]
