"""Draw a graph as Mermaid text, for a person to look at."""

import re
from collections.abc import Mapping
from typing import Any

from comfy_mcp.workflows.graphs import Graph, class_of, inputs_of, is_object, link_of

_LONGEST = 60
# What Mermaid would read as its own, even between quotes.
_ENTITIES = {"&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "#": "#35;", "`": "#96;", "\\": "#92;"}


def to_mermaid(graph: Graph) -> str:
    """Return a flow chart from loaders to outputs: a box for each node with its values, an arrow for each link.

    An arrow bears the name of the input that it goes to. Links to missing nodes go to a dashed box.
    """
    boxes = {node_id: f"n{index}" for index, node_id in enumerate(graph, start=1)}
    lines = ["flowchart LR"]
    lines += [f'  {box}["{_label(node_id, graph[node_id])}"]' for node_id, box in boxes.items()]
    missing: dict[str, str] = {}
    for node_id, box in boxes.items():
        for name, value in inputs_of(graph[node_id]).items():
            link = link_of(value)
            if link is None:
                continue
            source = boxes.get(link.node_id) or missing.setdefault(link.node_id, f"m{len(missing) + 1}")
            lines.append(f'  {source} -->|"{_escaped(name)}"| {box}')
    for node_id, box in missing.items():
        lines += [f'  {box}["{_escaped(node_id)} is missing"]', f"  style {box} stroke-dasharray: 4"]
    return "\n".join(lines) + "\n"


def _label(node_id: str, node: Mapping[str, Any]) -> str:
    meta = node.get("_meta")
    title = meta.get("title") if is_object(meta) else None
    class_type = class_of(node) or "no class"
    heading = f"{node_id}: {title} ({class_type})" if isinstance(title, str) and title != class_type else None
    values = [f"{name}: {value}" for name, value in inputs_of(node).items() if link_of(value) is None]
    return "<br/>".join(_escaped(line) for line in [heading or f"{node_id}: {class_type}", *values])


def _escaped(text: str) -> str:
    plain = " ".join(text.split())
    short = plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"
    return re.sub(r'[&"<>#`\\]', lambda match: _ENTITIES[match.group()], short)
