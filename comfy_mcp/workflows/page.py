"""Read a graph as ComfyUI's page saves it: nodes and links in lists, and sub-graphs as definitions beside them.

A node of a sub-graph runs under the ids of all that contain it, `75:58`. What leads into and out of a sub-graph is
found by following its links; the page does the same each time it sends a graph.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_mcp.workflows.graphs import Link, is_list, is_object
from comfy_mcp.workflows.specs import fits

NOTES = frozenset({"Note", "MarkdownNote"})
REROUTE = "Reroute"
PRIMITIVE = "PrimitiveNode"
# A widely used pair of custom nodes that exists on the page alone: what goes into one comes out of the other.
SETTER, GETTER = "SetNode", "GetNode"
MUTED = 2
BYPASSED = 4
MOST_NODES = 10_000
"""How many nodes a page may unfold to; sub-graphs within sub-graphs multiply."""

_VIRTUAL = NOTES | {REROUTE, PRIMITIVE, SETTER, GETTER}
_OF_THE_SUBGRAPH = "-1"
_LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot")


class TooManyNodes(ValueError):
    """The sub-graphs unfold to more nodes than anybody runs, or a sub-graph contains itself."""


@dataclass(frozen=True, kw_only=True)
class PageNode:
    """One node as it was saved; `links` maps the names of inputs to ids of links."""

    id: str
    type: str
    title: str
    mode: int
    values: Any
    links: Mapping[str, int]
    input_types: tuple[tuple[str, str], ...]
    output_types: tuple[str, ...]
    promoted: tuple[tuple[str, str], ...]

    @property
    def runs(self) -> bool:
        """Tell whether the node reaches the server at all."""
        return self.type not in _VIRTUAL and self.mode not in {MUTED, BYPASSED}


@dataclass(frozen=True)
class Given:
    """A value that an input gets from a primitive, or from the face of a sub-graph."""

    value: Any


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A sub-graph: its name, what it holds, the inputs by name, and the ids of the two nodes that are its borders."""

    name: str
    saved: Mapping[str, Any]
    inputs: tuple[str, ...]
    entry_id: str
    exit_id: str


@dataclass(kw_only=True)
class Scope:
    """The nodes of the page, or of one use of a sub-graph."""

    path: tuple[str, ...]
    nodes: Mapping[str, PageNode]
    links: Mapping[int, Link]
    exits: Mapping[int, int]
    definition: Definition | None = None
    host: "Scope | None" = None
    instance: PageNode | None = None
    faces: Mapping[str, Any] = field(default_factory=dict[str, Any])
    overrides: Mapping[tuple[str, str], Any] = field(default_factory=dict[tuple[str, str], Any])
    children: dict[str, "Scope"] = field(default_factory=dict[str, "Scope"])

    def id_of(self, node_id: str) -> str:
        """Return the id that a node runs under."""
        return ":".join((*self.path, node_id))


class Page:
    """A saved page, its sub-graphs unfolded.

    Raises TooManyNodes.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.definitions = dict(_definitions(document))
        self._count = 0
        self._root = self._scope(document, ())

    def nodes(self) -> Iterator[tuple[Scope, PageNode]]:
        """Yield every node that runs, those of sub-graphs in place of the sub-graph."""
        yield from self._nodes_of(self._root)

    def given(self, scope: Scope, link_id: int) -> Link | Given | None:
        """Follow a link upwards to a node that runs or to a value; None where it leads to neither."""
        seen: set[tuple[tuple[str, ...], int]] = set()
        at: tuple[Scope, int] | Link | Given | None = (scope, link_id)
        while isinstance(at, tuple) and not isinstance(at, Link):
            where, link_id = at
            if (where.path, link_id) in seen:
                return None
            seen.add((where.path, link_id))
            at = self._one_step(where, link_id)
        return at

    def _one_step(self, scope: Scope, link_id: int) -> tuple[Scope, int] | Link | Given | None:
        origin = scope.links.get(link_id)
        if origin is None:
            return None
        if scope.definition is not None and origin.node_id == scope.definition.entry_id:
            return _through_the_face(scope, scope.definition, origin.slot)
        node = scope.nodes.get(origin.node_id)
        if node is None or node.mode == MUTED:
            return None
        if node.type == PRIMITIVE:
            return Given(node.values[0]) if is_list(node.values) and node.values else None
        if node.type == GETTER:
            onward = _set_under_the_name(scope, node)
        elif node.type in {REROUTE, SETTER} or node.mode == BYPASSED:
            onward = _handed_on(node, origin.slot)
        elif node.id in scope.children:
            child = scope.children[node.id]
            return (child, child.exits[origin.slot]) if origin.slot in child.exits else None
        else:
            return Link(scope.id_of(node.id), origin.slot)
        return None if onward is None else (scope, onward)

    def _nodes_of(self, scope: Scope) -> Iterator[tuple[Scope, PageNode]]:
        for node in scope.nodes.values():
            if not node.runs:
                continue
            if node.id in scope.children:
                yield from self._nodes_of(scope.children[node.id])
            else:
                yield scope, node

    def _scope(
        self, saved: Mapping[str, Any], within: tuple[str, ...], host: Scope | None = None, via: PageNode | None = None
    ) -> Scope:
        definition = self.definitions[via.type] if via else None
        links = list(_links(saved.get("links")))
        scope = Scope(
            path=(*host.path, via.id) if host and via else (),
            nodes={node.id: node for node in map(_node, objects(saved.get("nodes")))},
            links={link_id: origin for link_id, origin, _ in links},
            exits={to.slot: link_id for link_id, _, to in links if definition and to.node_id == definition.exit_id},
            definition=definition,
            host=host,
            instance=via,
        )
        if definition and via:
            scope.faces, scope.overrides = _values_on_the_face(definition, via, scope)
        self._count += len(scope.nodes)
        if self._count > MOST_NODES:
            raise TooManyNodes(f"its sub-graphs unfold to more than {MOST_NODES} nodes")
        for node in scope.nodes.values():
            inner = self.definitions.get(node.type)
            if inner is None:
                continue
            if node.type in within:
                raise TooManyNodes(f"the sub-graph `{inner.name}` contains itself")
            scope.children[node.id] = self._scope(inner.saved, (*within, node.type), scope, node)
        return scope


def objects(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of a JSON list, and nothing of anything else."""
    return [entry for entry in value if is_object(entry)] if is_list(value) else []


def _through_the_face(scope: Scope, definition: Definition, slot: int) -> tuple[Scope, int] | Given | None:
    if scope.host is None or scope.instance is None or slot >= len(definition.inputs):
        return None
    name = definition.inputs[slot]
    if name in scope.instance.links:
        return scope.host, scope.instance.links[name]
    return Given(scope.faces[name]) if name in scope.faces else None


def _set_under_the_name(scope: Scope, getter: PageNode) -> int | None:
    setters = (node for node in scope.nodes.values() if node.type == SETTER and node.mode != MUTED)
    match = next((node for node in setters if _name_of(node) == _name_of(getter)), None)
    return next(iter(match.links.values()), None) if match else None


def _name_of(node: PageNode) -> Any:
    return node.values[0] if is_list(node.values) and node.values else None


def _handed_on(node: PageNode, slot: int) -> int | None:
    """Return the link that a node hands on: of its own place first, else of the same type."""
    wanted = node.output_types[slot] if 0 <= slot < len(node.output_types) else "*"
    ordered = [*node.input_types[slot : slot + 1], *node.input_types]
    fitting = (name for name, kind in ordered if node.mode != BYPASSED or fits(kind, wanted))
    return next((node.links[name] for name in fitting if name in node.links), None)


def _values_on_the_face(
    definition: Definition, instance: PageNode, scope: Scope
) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
    """Return the values that one use of a sub-graph sets: by input, and by inner node and widget.

    They stand in the order of `proxyWidgets` where the page wrote that, else in the order of those inputs that lead to
    a widget. A null leaves the inner node its own value.
    """
    order = instance.promoted or tuple((_OF_THE_SUBGRAPH, name) for name in _inputs_with_widgets(definition, scope))
    values = instance.values if is_list(instance.values) else []
    faces: dict[str, Any] = {}
    overrides: dict[tuple[str, str], Any] = {}
    for (owner, name), value in zip(order, values, strict=False):
        if value is None:
            continue
        if owner == _OF_THE_SUBGRAPH:
            faces[name] = value
        else:
            overrides[owner, name] = value
    return faces, overrides


def _inputs_with_widgets(definition: Definition, scope: Scope) -> Iterator[str]:
    fed = {
        scope.links[link_id].slot
        for saved in objects(definition.saved.get("nodes"))
        for entry in objects(saved.get("inputs"))
        if is_object(entry.get("widget")) and isinstance(link_id := entry.get("link"), int)
        if link_id in scope.links and scope.links[link_id].node_id == definition.entry_id
    }
    yield from (name for slot, name in enumerate(definition.inputs) if slot in fed)


def _definitions(document: Mapping[str, Any]) -> Iterator[tuple[str, Definition]]:
    waiting: list[Mapping[str, Any]] = [document]
    while waiting:
        described = waiting.pop().get("definitions")
        for saved in objects(described.get("subgraphs") if is_object(described) else None):
            waiting.append(saved)
            yield (
                str(saved.get("id")),
                Definition(
                    name=str(saved.get("name") or saved.get("id")),
                    saved=saved,
                    inputs=tuple(str(entry.get("name")) for entry in objects(saved.get("inputs"))),
                    entry_id=_border(saved.get("inputNode"), "-10"),
                    exit_id=_border(saved.get("outputNode"), "-20"),
                ),
            )


def _border(saved: object, usual: str) -> str:
    return str(saved.get("id", usual)) if is_object(saved) else usual


def _node(saved: Mapping[str, Any]) -> PageNode:
    kind = str(saved.get("type", ""))
    inputs = [(str(entry.get("name")), entry) for entry in objects(saved.get("inputs"))]
    links = {name: entry.get("link") for name, entry in inputs}
    mode = saved.get("mode")
    properties = saved.get("properties")
    proxies = properties.get("proxyWidgets") if is_object(properties) else None
    return PageNode(
        id=str(saved.get("id")),
        type=kind,
        title=str(saved.get("title") or kind),
        mode=mode if isinstance(mode, int) else 0,
        values=saved.get("widgets_values"),
        links={name: link for name, link in links.items() if isinstance(link, int)},
        input_types=tuple((name, str(entry.get("type", "*"))) for name, entry in inputs),
        output_types=tuple(str(entry.get("type", "*")) for entry in objects(saved.get("outputs"))),
        promoted=tuple((str(pair[0]), str(pair[-1])) for pair in proxies or [] if is_list(pair) and len(pair) > 1)
        if is_list(proxies)
        else (),
    )


def _links(saved: object) -> Iterator[tuple[int, Link, Link]]:
    """Yield id, origin and target; both forms are read: lists `[id, from, slot, to, slot, type]`, and objects."""
    for entry in saved if is_list(saved) else []:
        parts = [entry.get(name) for name in _LINK] if is_object(entry) else entry
        if not is_list(parts) or len(parts) < 3:
            continue
        link_id, origin, origin_slot, target, target_slot = [*parts, None, None][: len(_LINK)]
        if isinstance(link_id, int) and isinstance(origin_slot, int):
            # An input may be named here by no slot that a reader needs: only those of a border are looked at.
            slot = target_slot if isinstance(target_slot, int) else -1
            yield link_id, Link(str(origin), origin_slot), Link(str(target), slot)
