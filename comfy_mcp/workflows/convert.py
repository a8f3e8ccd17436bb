"""Turn a graph as ComfyUI's page saves it (nodes and links in lists) into the form that runs.

The page keeps a node's values in a bare list, in the order of its widgets; only /object_info says which is which.
Notes, reroutes and primitives exist on the page alone; a muted node is left out, a bypassed one hands its inputs on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_mcp.workflows.graphs import Graph, Link, is_list, is_object
from comfy_mcp.workflows.problems import Problem
from comfy_mcp.workflows.specs import NodeSpec, ObjectInfo, fits, spec_of
from mcp_toolserver.errors import closest

_NOTES = frozenset({"Note", "MarkdownNote"})
_REROUTE = "Reroute"
_PRIMITIVE = "PrimitiveNode"
_EXPORT = "Save the workflow from ComfyUI's page with `Workflow > Export (API)`."
# What a body of /prompt may hold.
_ENVELOPE = frozenset(
    {"prompt", "client_id", "extra_data", "front", "number", "prompt_id", "partial_execution_targets"}
)
_MUTED = 2
_BYPASSED = 4
# The page adds this choice to every seed, behind its value.
_AFTER_GENERATE = frozenset({"fixed", "increment", "decrement", "randomize"})


def is_ui_graph(graph: object) -> bool:
    """Tell whether this is the form that the page saves, with lists of nodes and links."""
    return is_object(graph) and is_list(graph.get("nodes")) and "links" in graph


def unwrapped(document: object) -> object:
    """Return the nodes alone where they come as /prompt takes them, inside `prompt`."""
    if is_object(document) and is_object(document.get("prompt")) and set(document) <= _ENVELOPE:
        return document["prompt"]
    return document


def convert(document: Mapping[str, Any], object_info: ObjectInfo) -> tuple[Graph, list[Problem]]:
    """Convert a graph of the page, and return it with a problem for each node that cannot be converted."""
    page = _Page(document)
    graph: Graph = {}
    problems: list[Problem] = []
    for node in page.nodes.values():
        if node.is_virtual or node.mode in {_MUTED, _BYPASSED}:
            continue
        spec = spec_of(object_info, node.type)
        if spec is None or any(wanted.grows for wanted in spec.inputs.values()):
            problems.append(_obstacle(node, spec, object_info, page.subgraphs))
            continue
        inputs: dict[str, Any] = dict(_values(node, spec))
        for name, link_id in node.links.items():
            given = page.given(link_id)
            if isinstance(given, Link):
                inputs[name] = given.as_input()
            elif given is not None:
                inputs[name] = given.value
        graph[node.id] = {"class_type": node.type, "inputs": inputs, "_meta": {"title": node.title}}
    return graph, problems


@dataclass(frozen=True, kw_only=True)
class _Node:
    id: str
    type: str
    title: str
    mode: int
    values: Any
    links: Mapping[str, int]
    input_types: tuple[tuple[str, str], ...]
    output_types: tuple[str, ...]

    @property
    def is_virtual(self) -> bool:
        return self.type in _NOTES or self.type in {_REROUTE, _PRIMITIVE}


@dataclass(frozen=True)
class _Value:
    value: Any


class _Page:
    """Index a saved page: its nodes by id, and its links by id as (node id, slot)."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.nodes = {node.id: node for node in map(_node, _objects(document.get("nodes")))}
        self.links = dict(_links(document.get("links")))
        definitions = document.get("definitions")
        described = definitions.get("subgraphs") if is_object(definitions) else None
        self.subgraphs = {str(found.get("id")): str(found.get("name")) for found in _objects(described)}

    def given(self, link_id: int) -> Link | _Value | None:
        """Follow a link upwards to a node that runs or to a primitive's value; None where it leads to neither."""
        seen: set[int] = set()
        while link_id not in seen:
            seen.add(link_id)
            origin = self.links.get(link_id)
            node = self.nodes.get(origin.node_id) if origin else None
            if origin is None or node is None or node.mode == _MUTED:
                return None
            if node.type == _PRIMITIVE:
                return _Value(node.values[0]) if is_list(node.values) and node.values else None
            if node.type != _REROUTE and node.mode != _BYPASSED:
                return origin
            onward = _passed(node, origin.slot)
            if onward is None:
                return None
            link_id = onward
        return None


def _passed(node: _Node, slot: int) -> int | None:
    """Return the link that a reroute or a bypassed node hands on: of its own place first, else of the same type."""
    wanted = node.output_types[slot] if slot < len(node.output_types) else "*"
    ordered = [*node.input_types[slot : slot + 1], *node.input_types]
    fitting = (name for name, kind in ordered if node.type == _REROUTE or fits(kind, wanted))
    return next((node.links[name] for name in fitting if name in node.links), None)


def _values(node: _Node, spec: NodeSpec) -> Iterator[tuple[str, Any]]:
    widgets = [wanted for wanted in spec.inputs.values() if wanted.is_value]
    if is_object(node.values):
        yield from ((wanted.name, node.values[wanted.name]) for wanted in widgets if wanted.name in node.values)
        return
    waiting = list(node.values) if is_list(node.values) else []
    for wanted in widgets:
        if not waiting:
            return
        yield wanted.name, waiting.pop(0)
        if wanted.type == "INT" and waiting and isinstance(waiting[0], str) and waiting[0] in _AFTER_GENERATE:
            waiting.pop(0)


def _obstacle(node: _Node, spec: NodeSpec | None, object_info: ObjectInfo, subgraphs: Mapping[str, str]) -> Problem:
    code, matches = "not_convertible", list[str]()
    if node.type in subgraphs:
        reason = f"is the sub-graph `{subgraphs[node.type]}`, which only the page can take apart. {_EXPORT}"
    elif spec is not None:
        reason = f"is a `{node.type}`, whose inputs change with its values as only the page knows. {_EXPORT}"
    else:
        code, matches = "missing_node_type", closest(node.type, object_info)
        cure = f"Did you mean `{matches[0]}`?" if matches else "Its custom node may not be installed."
        reason = f"is a `{node.type}`, a class that this server does not have. {cure}"
    return Problem(
        code=code,
        message=f"Node {node.id} {reason}",
        node_id=node.id,
        class_type=node.type,
        closest_matches=tuple(matches),
    )


def _node(saved: Mapping[str, Any]) -> _Node:
    kind = str(saved.get("type", ""))
    inputs = [(str(entry.get("name")), entry) for entry in _objects(saved.get("inputs"))]
    links = {name: entry.get("link") for name, entry in inputs}
    mode = saved.get("mode")
    return _Node(
        id=str(saved.get("id")),
        type=kind,
        title=str(saved.get("title") or kind),
        mode=mode if isinstance(mode, int) else 0,
        values=saved.get("widgets_values"),
        links={name: link for name, link in links.items() if isinstance(link, int)},
        input_types=tuple((name, str(entry.get("type", "*"))) for name, entry in inputs),
        output_types=tuple(str(entry.get("type", "*")) for entry in _objects(saved.get("outputs"))),
    )


def _links(saved: object) -> Iterator[tuple[int, Link]]:
    """Read both forms: `[id, from, from slot, to, to slot, type]`, and objects with these by name."""
    for entry in saved if is_list(saved) else []:
        parts = [entry.get(name) for name in ("id", "origin_id", "origin_slot")] if is_object(entry) else entry
        if is_list(parts) and len(parts) >= 3:
            link_id, origin, slot = parts[:3]
            if isinstance(link_id, int) and isinstance(slot, int):
                yield link_id, Link(str(origin), slot)


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if is_object(entry)] if is_list(value) else []
