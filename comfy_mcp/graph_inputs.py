"""Put a caller's values into a graph: `{"6": {"text": "…"}}` or `{"6.text": "…"}`. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from comfy_mcp.workflows.graphs import Graph, class_of, inputs_of, is_object
from comfy_mcp.workflows.problems import Problem
from mcp_toolserver.errors import InvalidArguments, closest, shown

_NODES_SHOWN = 20
_PLACES_SHOWN = 5


def with_inputs(graph: Graph, inputs: Mapping[str, Any]) -> Graph:
    """Return the graph with the inputs replaced; raises InvalidArguments for a node that is not in it.

    An input that the node does not name yet is set too: graphs may leave out optional ones. What the node class does
    not take at all is found by the check against /object_info, and then refused by `check_names`.
    """
    changed = dict(graph)
    for node_id, name, value in _assignments(graph, inputs):
        node = changed.get(node_id)
        if not is_object(node):
            raise _unknown_node(changed, node_id)
        changed[node_id] = {**node, "inputs": {**inputs_of(node), name: value}}
    return changed


def check_names(graph: Graph, inputs: Mapping[str, Any], problems: Iterable[Problem]) -> None:
    """Raise InvalidArguments for a value that the check found no input for, in a graph that did not have it before."""
    unknown = {(problem.node_id, problem.input): problem for problem in problems if problem.code == "unknown_input"}
    for node_id, name, _ in _assignments(graph, inputs):
        problem, present = unknown.get((node_id, name)), inputs_of(graph[node_id])
        if problem is None or name in present:
            continue
        names = [*present, *(match for match in problem.closest_matches if match not in present)]
        matches = [f"{node_id}.{match}" for match in closest(name.removeprefix("inputs."), names)]
        has = ", ".join(f"`{node_id}.{known}`" for known in names)
        raise InvalidArguments(
            f"`inputs` names `{node_id}.{name}`, and node {node_id} ({problem.class_type}) takes no `{name}`.",
            hint=f"Did you mean `{matches[0]}`?" if matches else f"It has {has or 'no inputs'}.",
            details={"field": f"inputs.{node_id}.{name}", "node_id": node_id, "closest_matches": matches},
        )


def _assignments(graph: Graph, inputs: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for key, value in inputs.items():
        node_id, dot, name = key.partition(".")
        if dot and name:
            yield node_id, name, value
        elif is_object(value):
            for inner, item in value.items():
                yield key, inner, item
        elif key in graph:
            raise InvalidArguments(
                f"`inputs.{key}` is {shown(value)}; it must say which input of the node it is for.",
                hint=f'Write {{"{key}": {{"INPUT": value}}}} or {{"{key}.INPUT": value}}.',
                details={"field": f"inputs.{key}"},
            )
        else:
            raise _bare_name(graph, key)


def _bare_name(graph: Graph, name: str) -> InvalidArguments:
    """Say which nodes have an input that was named without its node."""
    known = dict.fromkeys(known for node in graph.values() for known in inputs_of(node))
    meant = name if name in known else next(iter(closest(name, known, limit=1)), None)
    places = [f"{node_id}.{meant}" for node_id, node in graph.items() if meant in inputs_of(node)]
    if not places:
        return _unknown_node(graph, name)
    named = ", ".join(f"`{place}`" for place in places[:_PLACES_SHOWN])
    more = f" or one of {len(places) - _PLACES_SHOWN} more" if len(places) > _PLACES_SHOWN else ""
    return InvalidArguments(
        f"`inputs` names `{name}` without the node that it is for.",
        hint=f"Did you mean {named}?" if len(places) == 1 else f"Write which you mean: {named}{more}.",
        details={"field": f"inputs.{name}", "closest_matches": places[:_PLACES_SHOWN]},
    )


def _unknown_node(graph: Graph, node_id: str) -> InvalidArguments:
    named = {class_of(node): known for known, node in graph.items()}
    matches = [named[name] for name in closest(node_id, named)] or closest(node_id, graph)
    some = list(graph)[:_NODES_SHOWN]
    more = f" and {len(graph) - _NODES_SHOWN} more" if len(graph) > _NODES_SHOWN else ""
    return InvalidArguments(
        f"`inputs` names the node `{node_id}`, which the workflow does not have.",
        hint=f"Did you mean node `{matches[0]}`?"
        if matches
        else f"It has {', '.join(f'{known} ({class_of(graph[known])})' for known in some)}{more}.",
        details={"field": "inputs", "node_id": node_id, "closest_matches": matches, "nodes": some},
    )
