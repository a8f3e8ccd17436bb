"""The sheet that builders draw a graph on, and the three outputs of a loaded model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfy_mcp.workflows.graphs import Graph, Link
from comfy_mcp.workflows.recipes import Patch


class Drawing:
    """Number the nodes in the order in which they are added."""

    def __init__(self) -> None:
        self.graph: Graph = {}

    def add(self, class_type: str, title: str, **inputs: Any) -> Link:
        """Add a node and return the link to its first output; inputs that are links become lists."""
        return self.node(class_type, title, inputs)

    def node(self, class_type: str, title: str, inputs: Mapping[str, Any]) -> Link:
        """Add a node whose inputs have names that are known at run time alone."""
        node_id = str(len(self.graph) + 1)
        self.graph[node_id] = {
            "class_type": class_type,
            "inputs": {name: value.as_input() if isinstance(value, Link) else value for name, value in inputs.items()},
            "_meta": {"title": title},
        }
        return Link(node_id, 0)

    def patched(self, link: Link, patches: tuple[Patch, ...], field: str) -> Link:
        """Lead a model or a text encoder through patches, each with its settings."""
        for patch in patches:
            link = self.node(patch.class_type, patch.title, {**patch.settings, field: link})
        return link


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Link to a model, its text encoder and its VAE."""

    model: Link
    clip: Link
    vae: Link

    def with_model(self, model: Link) -> "Loaded":
        """Return the same with another model."""
        return replace(self, model=model)


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Link to what the sampler is led towards, and away from."""

    positive: Link
    negative: Link


def slot(link: Link, number: int) -> Link:
    """Return another output of the node that a link leads to."""
    return Link(link.node_id, number)
