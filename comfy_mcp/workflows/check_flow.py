"""Where a graph leads: to an output at all, and each LoRA to a sampler."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from comfy_mcp.workflows.check_links import gives, sources_of
from comfy_mcp.workflows.graphs import Link, inputs_of, link_of
from comfy_mcp.workflows.problems import Problem, problem_at
from comfy_mcp.workflows.specs import NodeSpec
from mcp_toolserver.errors import shown

# ComfyUI looks at the class of every node, and at the inputs of those alone that an output needs.
_JUDGED_EVERYWHERE = frozenset({"missing_node_type", "missing_class_type", "node_not_an_object"})
_SCHEDULER = ("SIGMAS",)


def flow_problems(graph: Mapping[str, Any], specs: Mapping[str, NodeSpec]) -> list[Problem]:
    """Return a problem for a graph without output, and for each LoRA that changes nothing that is sampled."""
    problems = list(_lora_problems(graph, specs))
    # A node that the server does not know may well be the one that saves.
    if len(specs) == len(graph) and not any(spec.is_output for spec in specs.values()):
        images = gives(specs, "IMAGE")
        cure = f"Add a SaveImage with `images` linked to {images[-1]}." if images else "Add a SaveImage at its end."
        problems.append(
            Problem(code="prompt_no_outputs", message=f"The graph saves or shows nothing. {cure}"),
        )
    return problems


def weigh(problems: list[Problem], graph: Mapping[str, Any], specs: Mapping[str, NodeSpec]) -> list[Problem]:
    """Turn errors in nodes that no output needs into warnings: ComfyUI never runs those nodes."""
    ends = [node_id for node_id, spec in specs.items() if spec.is_output]
    if not ends:
        return problems
    needed = needed_by(graph, ends)

    def weight(problem: Problem) -> Problem:
        idle = problem.node_id is not None and problem.node_id not in needed
        if not idle or problem.severity == "warning" or problem.code in _JUDGED_EVERYWHERE:
            return problem
        return replace(problem, severity="warning", message=f"{problem.message} No output needs this node.")

    return [weight(problem) for problem in problems]


def needed_by(graph: Mapping[str, Any], ends: list[str]) -> set[str]:
    """Return the nodes that the given ones are made from, and those themselves."""
    needed: set[str] = set()
    waiting = list(ends)
    while waiting:
        node_id = waiting.pop()
        if node_id not in needed:
            needed.add(node_id)
            waiting += [link.node_id for link in sources_of(graph, node_id)]
    return needed


def _lora_problems(graph: Mapping[str, Any], specs: Mapping[str, NodeSpec]) -> Iterator[Problem]:
    users, sampled = _users(graph), _sampled(graph, specs)
    for node_id, spec in specs.items():
        if "lora_name" not in spec.inputs:
            continue
        inputs = inputs_of(graph[node_id])
        name = inputs.get("lora_name")
        for slot, output in enumerate(spec.outputs):
            if output == "MODEL" and Link(node_id, slot) not in sampled:
                yield problem_at(
                    node_id,
                    graph[node_id],
                    "lora_not_connected",
                    f"the model with the LoRA {shown(name)} reaches no sampler, so that the LoRA changes nothing."
                    f"{_way_in(node_id, slot, users, graph, specs)}",
                    field="model",
                    severity="warning",
                )
            elif output == "CLIP" and Link(node_id, slot) not in users and inputs.get("strength_clip") != 0:
                yield problem_at(
                    node_id,
                    graph[node_id],
                    "lora_clip_not_connected",
                    f"nothing takes the text encoder with the LoRA {shown(name)}: link the `clip` of the next LoRA, or "
                    f"of each CLIPTextEncode, to {json.dumps([node_id, slot])}, or use LoraLoaderModelOnly.",
                    field="clip",
                    severity="warning",
                )


def _sampled(graph: Mapping[str, Any], specs: Mapping[str, NodeSpec]) -> set[Link]:
    """Return the outputs whose model comes to a node that uses it up (schedulers read its settings alone).

    A node that the server does not know counts: it may hand the model on.
    """
    sampled: set[Link] = set()
    waiting = [
        node_id
        for node_id in graph
        if (spec := specs.get(node_id)) is None or ("MODEL" not in spec.outputs and spec.outputs != _SCHEDULER)
    ]
    while waiting:
        for link in sources_of(graph, waiting.pop()):
            source = specs.get(link.node_id)
            is_model = source is not None and source.outputs[link.slot : link.slot + 1] == ("MODEL",)
            if is_model and link not in sampled:
                sampled.add(link)
                waiting.append(link.node_id)
    return sampled


def _way_in(
    node_id: str,
    slot: int,
    users: Mapping[Link, list[str]],
    graph: Mapping[str, Any],
    specs: Mapping[str, NodeSpec],
) -> str:
    """Name the node that takes the model past the LoRA, and the link that it should have."""
    before = link_of(inputs_of(graph[node_id]).get("model"))
    link = json.dumps([node_id, slot])
    for user in users.get(before, ()) if before is not None else ():
        if before is not None and user in specs and "MODEL" not in specs[user].outputs:
            named = f"Node {user} ({specs[user].class_type})"
            return f" {named} takes the model from node {before.node_id}: link its `model` to {link}."
    return f" Link the `model` of the sampler, or of the next LoRA, to {link}."


def _users(graph: Mapping[str, Any]) -> dict[Link, list[str]]:
    users: dict[Link, list[str]] = {}
    for node_id in graph:
        for link in sources_of(graph, node_id):
            users.setdefault(link, []).append(node_id)
    return users
