"""What is wrong with a graph, in words that say how to mend it."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Name one fault of a graph.

    An error means that ComfyUI would refuse the graph or fail on it, or that a connected LoRA could have no effect;
    a warning, that it runs and the picture is not what it could be. `node_id`, `class_type` and `input` are None for a
    fault of the whole graph. `closest_matches` are valid values, best first.
    """

    code: str
    message: str
    severity: Severity = "error"
    node_id: str | None = None
    class_type: str | None = None
    input: str | None = None
    closest_matches: tuple[str, ...] = ()


def has_errors(problems: list[Problem]) -> bool:
    """Tell whether any of the problems keeps the graph from being run."""
    return any(problem.severity == "error" for problem in problems)
