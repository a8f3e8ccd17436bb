"""Save a graph as ComfyUI's page does, so that its conversion can be held against the graph."""

from typing import Any

from comfy_mcp.workflows.graphs import Graph, link_of
from comfy_mcp.workflows.specs import spec_of

from .server import SERVER


def saved(graph: Graph) -> dict[str, Any]:
    """Return the page's form: values in a bare list, links in a list of their own, a choice behind each seed."""
    links: list[list[Any]] = []
    nodes = [_node(graph, node_id, links) for node_id in graph]
    return {"last_node_id": 99, "nodes": nodes, "links": links, "groups": [], "version": 0.4}


def _node(graph: Graph, node_id: str, links: list[list[Any]]) -> dict[str, Any]:
    node = graph[node_id]
    spec = spec_of(SERVER, node["class_type"])
    assert spec is not None
    inputs: list[dict[str, Any]] = []
    values: list[Any] = []
    for slot, wanted in enumerate(spec.inputs.values()):
        if wanted.name not in node["inputs"]:
            continue
        value = node["inputs"][wanted.name]
        link = link_of(value)
        if link is not None:
            links.append([len(links) + 1, int(link.node_id), link.slot, int(node_id), slot, wanted.type])
        if link is not None or not wanted.is_value:
            inputs.append({"name": wanted.name, "type": wanted.type, "link": len(links) if link else None})
        if wanted.is_value:
            values.append(wanted.settings.get("default") if link is not None else value)
            if wanted.settings.get("control_after_generate"):
                values.append("randomize")
    return {
        "id": int(node_id),
        "type": node["class_type"],
        "title": node.get("_meta", {}).get("title"),
        "mode": 0,
        "inputs": inputs,
        "outputs": [{"name": kind, "type": kind} for kind in spec.outputs],
        "widgets_values": values,
    }
