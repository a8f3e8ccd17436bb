"""What is wrong with a graph, in words that say how to mend it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from comfy_mcp.workflows.graphs import class_of

MOST_PROBLEMS = 100
"""How many problems of one graph are told; more help nobody, and an agent pays for each with its context."""

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Name one fault of a graph.

    An error means that ComfyUI would refuse the graph, fail on it, or run something else than it says; a warning, that
    it runs and the picture is not what it could be. `code` is ComfyUI's own where it has one. `node_id`, `class_type`
    and `input` are None for a fault of the whole graph. `closest_matches` are valid values, best first; for a link,
    they are links as JSON.
    """

    code: str
    message: str
    severity: Severity = "error"
    node_id: str | None = None
    class_type: str | None = None
    input: str | None = None
    closest_matches: tuple[str, ...] = ()


def problem_at(
    node_id: str,
    node: object,
    code: str,
    message: str,
    *,
    field: str | None = None,
    severity: Severity = "error",
    matches: Sequence[str] = (),
) -> Problem:
    """Place a problem at a node, and name the node in its message."""
    class_type = class_of(node) or None
    named = f"Node {node_id} ({class_type})" if class_type else f"Node {node_id}"
    return Problem(
        code=code,
        message=f"{named}: {message}",
        severity=severity,
        node_id=node_id,
        class_type=class_type,
        input=field,
        closest_matches=tuple(matches),
    )


def has_errors(problems: Sequence[Problem]) -> bool:
    """Tell whether any of the problems keeps the graph from being run."""
    return any(problem.severity == "error" for problem in problems)
