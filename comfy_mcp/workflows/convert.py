"""Turn a graph as ComfyUI's page saves it into the form that runs.

The page keeps a node's values in a bare list, in the order of its widgets; only /object_info says which is which.
Notes, reroutes, primitives and sub-graphs exist on the page alone; a muted node is left out, a bypassed one hands its
inputs on.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from comfy_mcp.workflows.graphs import Graph, Link, class_of, is_list, is_object, wrapped
from comfy_mcp.workflows.page import Page, PageNode, Scope, TooManyNodes
from comfy_mcp.workflows.problems import Problem
from comfy_mcp.workflows.specs import InputSpec, NodeSpec, ObjectInfo, spec_of
from mcp_toolserver.errors import closest

_EXPORT = "Save the workflow from ComfyUI's page with `Workflow > Export (API)`."
# A body of /prompt, an answer of get-workflow or get-image-workflow, and the envelope of such an answer.
_WRAPPERS = ("prompt", "workflow", "page_workflow", "result")
# The page adds this choice to every seed, behind its value.
_AFTER_GENERATE = frozenset({"fixed", "increment", "decrement", "randomize"})
_GROUP_NODE = re.compile(r"workflow[>/]")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_ui_graph(graph: object) -> bool:
    """Tell whether this is the form that the page saves, with lists of nodes and links."""
    return is_object(graph) and is_list(graph.get("nodes")) and "links" in graph


def unwrapped(document: object) -> object:
    """Return the nodes alone where they come inside something: a body of /prompt, or an answer of get-workflow."""
    while is_object(document) and not is_ui_graph(document) and not any(map(class_of, document.values())):
        inner = next((document[name] for name in _WRAPPERS if is_object(document.get(name))), None)
        if inner is None:
            break
        document = inner
    return document


def convert(document: Mapping[str, Any], object_info: ObjectInfo) -> tuple[Graph, list[Problem]]:
    """Convert a graph of the page, and return it with a problem for each node that cannot be converted."""
    try:
        page = Page(document)
    except TooManyNodes as error:
        return {}, [Problem(code="not_convertible", message=f"This workflow cannot be unfolded: {error}. {_EXPORT}")]
    graph: Graph = {}
    problems: list[Problem] = []
    for scope, node in page.nodes():
        node_id = scope.id_of(node.id)
        spec = spec_of(object_info, node.type)
        if spec is None:
            problems.append(_unknown(node_id, node, object_info))
            continue
        grown = next((wanted for wanted in spec.inputs.values() if wanted.grows_values), None)
        if grown is not None:
            problems.append(_obstacle(node_id, node, f"whose values of `{grown.name}` only the page can tell apart"))
            continue
        inputs = {name: _written(value) for name, value in _values(scope, node, spec)}
        for name, link_id in node.links.items():
            given = page.given(scope, link_id)
            if isinstance(given, Link):
                inputs[name] = given.as_input()
            elif given is not None:
                inputs[name] = _written(given.value)
        graph[node_id] = {"class_type": node.type, "inputs": inputs, "_meta": {"title": node.title}}
    return graph, problems


def _values(scope: Scope, node: PageNode, spec: NodeSpec) -> Iterator[tuple[str, Any]]:
    yield from _saved_values(node, spec)
    for (owner, name), value in scope.overrides.items():
        if owner == node.id and name in spec.inputs:
            yield name, value


def _saved_values(node: PageNode, spec: NodeSpec) -> Iterator[tuple[str, Any]]:
    if is_object(node.values):
        given = node.values
        yield from ((name, given[name]) for name in given if spec.takes(name) or spec.grows_to(name))
        return
    waiting = list(node.values) if is_list(node.values) else []
    widgets = list(reversed(list(spec.inputs.values())))
    while widgets and waiting:
        wanted = widgets.pop()
        if not wanted.is_value:
            continue
        value = waiting.pop(0)
        yield wanted.name, value
        if waiting and isinstance(waiting[0], str) and waiting[0] in _AFTER_GENERATE and _may_be_followed(wanted):
            waiting.pop(0)
        # A choice that brings inputs of its own has their values right behind it.
        widgets += reversed(wanted.brought_by(value))


def _may_be_followed(wanted: InputSpec) -> bool:
    return wanted.type == "INT" or bool(wanted.settings.get("control_after_generate"))


def _written(value: Any) -> Any:
    # A bare list would be taken for a link.
    return wrapped(value) if is_list(value) else value


def _unknown(node_id: str, node: PageNode, object_info: ObjectInfo) -> Problem:
    if _GROUP_NODE.match(node.type):
        return _obstacle(node_id, node, "a group node of old pages; open it in a new one, which makes it a sub-graph")
    if _UUID.fullmatch(node.type):
        return _obstacle(node_id, node, "a sub-graph whose definition is missing from the file")
    matches = closest(node.type, object_info)
    cure = f"Did you mean `{matches[0]}`?" if matches else "Its custom node may not be installed."
    return Problem(
        code="missing_node_type",
        message=f"Node {node_id} is a `{node.type}`, a class that this server does not have. {cure}",
        node_id=node_id,
        class_type=node.type,
        closest_matches=tuple(matches),
    )


def _obstacle(node_id: str, node: PageNode, reason: str) -> Problem:
    return Problem(
        code="not_convertible",
        message=f"Node {node_id} is a `{node.type}`, {reason}. {_EXPORT}",
        node_id=node_id,
        class_type=node.type,
    )
