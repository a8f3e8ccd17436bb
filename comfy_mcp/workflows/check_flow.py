"""Where a graph leads: to an output at all, and each LoRA to a sampler."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from comfy_mcp.workflows.check_links import gives, sources_of
from comfy_mcp.workflows.graphs import Link, inputs_of, link_of
from comfy_mcp.workflows.problems import Problem, problem_at
from comfy_mcp.workflows.specs import NodeSpec, fits

# ComfyUI looks at the class of every node, and at the inputs of those alone that an output needs.
_JUDGED_EVERYWHERE = frozenset({"missing_node_type", "missing_class_type", "node_not_an_object"})


def flow_problems(graph: Mapping[str, Any], specs: Mapping[str, NodeSpec]) -> list[Problem]:
    """Return a problem for a graph without output, and for each LoRA that changes nothing that is sampled."""
    problems = list(_lora_problems(graph, specs))
    if not any(spec.is_output for spec in specs.values()):
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
    users = _users(graph)
    for node_id, spec in specs.items():
        if "lora_name" not in spec.inputs:
            continue
        name = inputs_of(graph[node_id]).get("lora_name")
        for slot, output in enumerate(spec.outputs):
            if output == "MODEL" and not _is_sampled(Link(node_id, slot), users, specs):
                yield problem_at(
                    node_id,
                    graph[node_id],
                    "lora_not_connected",
                    f"the model with the LoRA {name!r} reaches no sampler, so that the LoRA changes nothing."
                    f"{_way_in(node_id, slot, users, graph, specs)}",
                    field="model",
                    severity="warning",
                )
            elif output == "CLIP" and not users.get(Link(node_id, slot)) and users.get(Link(node_id, 0)):
                yield problem_at(
                    node_id,
                    graph[node_id],
                    "lora_clip_not_connected",
                    f"nothing takes the text encoder with the LoRA {name!r}: link the `clip` of the next LoRA, or of "
                    f"each CLIPTextEncode, to {json.dumps([node_id, slot])}, or use LoraLoaderModelOnly.",
                    field="clip",
                    severity="warning",
                )


def _is_sampled(start: Link, users: Mapping[Link, list[str]], specs: Mapping[str, NodeSpec]) -> bool:
    """Follow a model through the nodes that change it to one that uses it up (schedulers read its settings alone)."""
    seen: set[Link] = set()
    waiting = [start]
    while waiting:
        link = waiting.pop()
        if link in seen:
            continue
        seen.add(link)
        for user in users.get(link, ()):
            outputs = specs[user].outputs if user in specs else ()
            onward = [Link(user, slot) for slot, output in enumerate(outputs) if output == "MODEL"]
            if not onward and outputs != ("SIGMAS",):
                return True
            waiting += onward
    return False


def _way_in(
    node_id: str,
    slot: int,
    users: Mapping[Link, list[str]],
    graph: Mapping[str, Any],
    specs: Mapping[str, NodeSpec],
) -> str:
    """Name the node that takes the model past the LoRA, and the link that it should have."""
    before = link_of(inputs_of(graph[node_id]).get("model"))
    for user in users.get(before, ()) if before is not None else ():
        if user != node_id and user in specs and not fits("MODEL", ",".join(specs[user].outputs) or "NOTHING"):
            return (
                f" Node {user} ({specs[user].class_type}) takes the model from node {before.node_id if before else ''}:"
                f" link its `model` to {json.dumps([node_id, slot])}."
            )
    return " Link the sampler's `model`, or the next LoRA's, to it."


def _users(graph: Mapping[str, Any]) -> dict[Link, list[str]]:
    users: dict[Link, list[str]] = {}
    for node_id in graph:
        for link in sources_of(graph, node_id):
            users.setdefault(link, []).append(node_id)
    return users
