"""Tell a graph saved by ComfyUI's page from one that runs."""

from comfy_mcp.workflows.graphs import is_list, is_object


def is_ui_graph(graph: object) -> bool:
    """Tell whether this is the form that the page saves, with lists of nodes and links."""
    return is_object(graph) and is_list(graph.get("nodes")) and "links" in graph
