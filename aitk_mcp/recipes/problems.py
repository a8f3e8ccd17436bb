"""What is wrong, or only doubtful, with a config: collected, so that a caller sees all of it at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mcp_toolserver.errors import InvalidArguments, ToolError


@dataclass(frozen=True)
class Problem:
    """One finding about one field; an `error` would keep AI Toolkit from training as asked, a `warning` would not."""

    field: str
    message: str
    hint: str | None = None
    severity: Literal["error", "warning"] = "error"
    closest_matches: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the problem as `details.problems` of an error carries it."""
        return {
            "field": self.field,
            "message": self.message,
            "hint": self.hint,
            "closest_matches": list(self.closest_matches),
        }


def problem_of(error: ToolError, field: str) -> Problem:
    """Return an error that was raised for one field as a problem."""
    matches = error.details.get("closest_matches", ())
    return Problem(str(error.details.get("field", field)), error.message, error.hint, "error", tuple(matches))


def refuse(problems: Sequence[Problem]) -> None:
    """Raise InvalidArguments that names every error among `problems`; do nothing when there is none."""
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise InvalidArguments(
            " ".join(problem.message for problem in errors),
            hint=" ".join(problem.hint for problem in errors if problem.hint) or None,
            details={"problems": [problem.as_dict() for problem in errors]},
        )
