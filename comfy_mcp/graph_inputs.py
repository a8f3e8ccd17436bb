"""Put a caller's values into a graph: `{"6": {"text": "…"}}` or `{"6.text": "…"}`. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from comfy_mcp.workflows.graphs import Graph, class_of, inputs_of, is_object
from mcp_toolserver.errors import InvalidArguments, closest


def with_inputs(graph: Graph, inputs: Mapping[str, Any]) -> Graph:
    """Return the graph with the inputs replaced; raises InvalidArguments for a node that is not in it.

    An input that the node does not name yet is set too: graphs may leave out optional ones. What the node class does
    not take at all is for the check against /object_info to find.
    """
    changed = dict(graph)
    for node_id, name, value in _assignments(inputs):
        node = changed.get(node_id)
        if not is_object(node):
            raise _unknown_node(changed, node_id)
        changed[node_id] = {**node, "inputs": {**inputs_of(node), name: value}}
    return changed


def _assignments(inputs: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for key, value in inputs.items():
        node_id, dot, name = key.partition(".")
        if dot and name:
            yield node_id, name, value
        elif is_object(value):
            for inner, item in value.items():
                yield key, inner, item
        else:
            raise InvalidArguments(
                f"`inputs.{key}` is {value!r}; it must say which input of the node it is for.",
                hint=f'Write {{"{key}": {{"INPUT": value}}}} or {{"{key}.INPUT": value}}.',
                details={"field": f"inputs.{key}"},
            )


def _unknown_node(graph: Graph, node_id: str) -> InvalidArguments:
    named = {class_of(node): known for known, node in graph.items()}
    matches = [named[name] for name in closest(node_id, named)] or closest(node_id, graph)
    nodes = ", ".join(f"{known} ({class_of(node)})" for known, node in list(graph.items())[:20])
    return InvalidArguments(
        f"`inputs` names the node `{node_id}`, which the workflow does not have.",
        hint=f"Did you mean node `{matches[0]}`?" if matches else f"It has {nodes}.",
        details={"field": "inputs", "node_id": node_id, "closest_matches": matches, "nodes": list(graph)},
    )
