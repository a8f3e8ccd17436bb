"""Fold the events of a job into how far it is."""

from dataclasses import dataclass, field, replace

from comfy_mcp.engines.comfyui_events import Cached, Executed, Executing, JobEvent, Step
from comfy_mcp.workflows.graphs import Graph, class_of

# Sampling is nearly all of the time; a sampler that counted like a text node would leave the bar at a standstill.
_SAMPLER_WEIGHT = 20


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Tell how far a job is: `fraction` of the whole from 0 to 1, and the step of the node that runs now."""

    fraction: float = 0.0
    node_id: str | None = None
    node: str | None = None
    step: int | None = None
    total_steps: int | None = None
    finished: frozenset[str] = field(default_factory=frozenset[str])

    @property
    def words(self) -> str:
        """Return what is going on, for people."""
        if self.node is None:
            return "started"
        return f"{self.node}: step {self.step} of {self.total_steps}" if self.total_steps else self.node


def advance(progress: Progress, event: JobEvent, graph: Graph) -> Progress:
    """Return the progress after an event; it never goes back."""
    match event:
        case Cached(nodes=nodes):
            return _counted(replace(progress, finished=progress.finished | set(nodes)), graph)
        case Executing(node=str(node)):
            before = progress.node_id
            done = progress.finished if before is None or before == node else progress.finished | {before}
            return _counted(
                Progress(fraction=progress.fraction, node_id=node, node=_name(graph, node), finished=done), graph
            )
        case Step(node=node, value=value, maximum=maximum):
            done = progress.finished - {node}
            stepped = Progress(
                fraction=progress.fraction,
                node_id=node,
                node=_name(graph, node),
                step=int(value),
                total_steps=int(maximum),
                finished=done,
            )
            return _counted(stepped, graph, min(value / maximum, 1.0))
        case Executed(node=node):
            return _counted(replace(progress, finished=progress.finished | {node}), graph)
        case _:
            return progress


def _counted(progress: Progress, graph: Graph, part: float = 0.0) -> Progress:
    total = sum(_weight(graph, node) for node in graph)
    done = sum(_weight(graph, node) for node in progress.finished if node in graph)
    current = _weight(graph, progress.node_id) * part if progress.node_id in graph else 0.0
    return replace(progress, fraction=max(progress.fraction, min((done + current) / total, 1.0) if total else 0.0))


def _weight(graph: Graph, node_id: str | None) -> int:
    return _SAMPLER_WEIGHT if "Sampler" in class_of(graph.get(node_id or "")) else 1


def _name(graph: Graph, node_id: str) -> str:
    return class_of(graph.get(node_id)) or node_id
