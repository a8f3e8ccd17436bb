"""The links of a graph: each to an output that is there, of the type that is wanted, and never in a circle."""

import json
from collections.abc import Mapping
from typing import Any

from comfy_mcp.workflows.graphs import Link, class_of, inputs_of, link_of
from comfy_mcp.workflows.problems import Problem, problem_at
from comfy_mcp.workflows.specs import InputSpec, NodeSpec, fits
from mcp_toolserver.errors import closest, shown

_SOURCES_SHOWN = 3
_CIRCLE_SHOWN = 10


def gives(specs: Mapping[str, NodeSpec], wanted: str, *, to: str | None = None) -> list[str]:
    """Return links, as JSON, to outputs of a graph that have the wanted type, but for those of the node `to`."""
    found = [
        json.dumps([node_id, slot])
        for node_id, spec in specs.items()
        for slot, output in enumerate(spec.outputs)
        if node_id != to and fits(output, wanted)
    ]
    return found[:_SOURCES_SHOWN]


def link_problem(
    graph: Mapping[str, Any], node_id: str, wanted: InputSpec, value: list[Any], specs: Mapping[str, NodeSpec]
) -> Problem | None:
    """Return what is wrong with a list in an input's place: ComfyUI takes every list for a link."""
    node, name = graph[node_id], wanted.name
    link = link_of(value)
    if link is None:
        cure = ""
        if len(value) == 2 and isinstance(value[0], int) and str(value[0]) in graph:
            cure = f" A node id is text: {json.dumps([str(value[0]), value[1]])}."
        return problem_at(
            node_id,
            node,
            "bad_linked_input",
            f"`{name}` is {shown(value)}; a link is [node id, output slot], such as "
            f"{_example(specs, wanted, node_id)}.{cure}",
            field=name,
            matches=gives(specs, wanted.type, to=node_id),
        )
    if link.node_id not in graph:
        givers = [other for other, spec in specs.items() if other != node_id and _fitting(spec, wanted)]
        matches = closest(link.node_id, givers) or gives(specs, wanted.type, to=node_id)
        return problem_at(
            node_id,
            node,
            "link_to_missing_node",
            f"`{name}` is linked to node `{link.node_id}`, which is not in the graph."
            f"{_sources(specs, wanted, node_id)}",
            field=name,
            matches=matches,
        )
    source = specs.get(link.node_id)
    if source is None:
        return None
    if not 0 <= link.slot < len(source.outputs):
        return problem_at(
            node_id,
            node,
            "bad_slot",
            f"`{name}` is linked to output {link.slot} of node {link.node_id} ({source.class_type}), which has "
            f"{_outputs(source)}.",
            field=name,
            matches=[json.dumps([link.node_id, slot]) for slot in _fitting(source, wanted)],
        )
    given = source.outputs[link.slot]
    if fits(given, wanted.type):
        return None
    same_node = [json.dumps([link.node_id, slot]) for slot in _fitting(source, wanted)]
    return problem_at(
        node_id,
        node,
        "return_type_mismatch",
        f"`{name}` wants a {wanted.type}, and output {link.slot} of node {link.node_id} ({source.class_type}) is a "
        f"{given}.{_sources(specs, wanted, node_id)}",
        field=name,
        matches=same_node or gives(specs, wanted.type, to=node_id),
    )


def cycle_problems(graph: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each circle of links, with the way around it."""
    found: list[Problem] = []
    done: set[str] = set()
    for start in graph:
        circle = _circle(graph, start, done)
        if circle:
            left_out = len(circle) - _CIRCLE_SHOWN
            way = [f"{node_id} ({class_of(graph[node_id])})" for node_id in circle[:_CIRCLE_SHOWN]]
            way = " -> ".join([*way, *([f"{left_out} more"] if left_out > 0 else []), way[0]])
            found.append(
                problem_at(
                    circle[0],
                    graph[circle[0]],
                    "dependency_cycle",
                    f"the links go in a circle, {way}, so that no node of it can run first.",
                )
            )
    return found


def sources_of(graph: Mapping[str, Any], node_id: str) -> list[Link]:
    """Return the links of a node's inputs that lead to nodes of the graph."""
    links = (link_of(value) for value in inputs_of(graph.get(node_id)).values())
    return [link for link in links if link is not None and link.node_id in graph]


def _circle(graph: Mapping[str, Any], start: str, done: set[str]) -> list[str]:
    """Walk up from `start` without recursion, since graphs may be deep; return the first circle met, or nothing."""
    path: list[str] = []
    on_path: set[str] = set()
    waiting: list[tuple[str, bool]] = [(start, False)]
    while waiting:
        node_id, leaving = waiting.pop()
        if leaving:
            path.pop()
            on_path.discard(node_id)
            done.add(node_id)
        elif node_id in on_path:
            done.update(path)
            return path[path.index(node_id) :]
        elif node_id not in done:
            path.append(node_id)
            on_path.add(node_id)
            waiting.append((node_id, True))
            waiting += [(link.node_id, False) for link in sources_of(graph, node_id)]
    return []


def _fitting(source: NodeSpec, wanted: InputSpec) -> list[int]:
    return [slot for slot, output in enumerate(source.outputs) if fits(output, wanted.type)]


def _outputs(source: NodeSpec) -> str:
    if not source.outputs:
        return "no outputs"
    return ", ".join(f"{slot} ({output})" for slot, output in enumerate(source.outputs))


def _sources(specs: Mapping[str, NodeSpec], wanted: InputSpec, node_id: str) -> str:
    found = gives(specs, wanted.type, to=node_id)
    return f" A {wanted.type} comes from {', '.join(found)}." if found else ""


def _example(specs: Mapping[str, NodeSpec], wanted: InputSpec, node_id: str) -> str:
    found = gives(specs, wanted.type, to=node_id)
    return found[0] if found else '["1", 0]'
