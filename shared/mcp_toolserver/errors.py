"""Errors that cross a door.

    ToolError
    ├── InvalidArguments        422  invalid_arguments
    ├── UnknownTool             404  unknown_tool
    ├── NotFound                404  not_found
    ├── Conflict                409  conflict
    ├── TooLarge                413  too_large
    ├── Unauthorized            401  unauthorized
    ├── Forbidden               403  forbidden
    ├── RateLimited             429  rate_limited          retryable
    ├── InsufficientStorage     507  insufficient_storage
    ├── BackendUnavailable      503  backend_unavailable   retryable
    ├── BackendRejected         502  backend_rejected
    ├── TimedOut                504  timeout               retryable
    └── Internal                500  internal

Domain code raises one of these; only the doors render them; an adapter translates foreign errors once, at its edge.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import accumulate
from typing import Any, ClassVar


class ToolError(Exception):
    """Say what went wrong, what the caller can do now, and the values that a program needs to act on it.

    `message` is one or two sentences that name the field and the value; `hint` is the next step;
    `details` holds JSON values (such as `expected_chunk_index`).
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    def as_dict(self) -> dict[str, Any]:
        """Return the error object of the wire contract."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "details": self.details,
            "retryable": self.retryable,
        }

    def as_text(self) -> str:
        """Return the error as a person or an agent reads it: what happened, then what to do."""
        return f"{self.message} {self.hint}" if self.hint else self.message


class InvalidArguments(ToolError):
    """Refuse a value that the caller can correct."""

    code = "invalid_arguments"
    status = 422


class UnknownTool(ToolError):
    """Refuse a tool name that this server does not have."""

    code = "unknown_tool"
    status = 404


class NotFound(ToolError):
    """Say that a named thing (LoRA, job, dataset, upload) does not exist here."""

    code = "not_found"
    status = 404


class Conflict(ToolError):
    """Refuse a change that the present state does not allow."""

    code = "conflict"
    status = 409


class TooLarge(ToolError):
    """Refuse more bytes than the bound that `details` names."""

    code = "too_large"
    status = 413


class Unauthorized(ToolError):
    """Ask for a bearer token."""

    code = "unauthorized"
    status = 401


class Forbidden(ToolError):
    """Refuse what this caller or this path may not do."""

    code = "forbidden"
    status = 403


class RateLimited(ToolError):
    """Ask the caller to come back later."""

    code = "rate_limited"
    status = 429
    retryable = True


class InsufficientStorage(ToolError):
    """Say that the disk has no room for what was asked."""

    code = "insufficient_storage"
    status = 507


class BackendUnavailable(ToolError):
    """Say that ComfyUI or AI Toolkit does not answer."""

    code = "backend_unavailable"
    status = 503
    retryable = True


class BackendRejected(ToolError):
    """Pass on that the backend answered and refused, with its own words in `details`."""

    code = "backend_rejected"
    status = 502


class TimedOut(ToolError):
    """Say that the backend did not finish in time; nothing is lost."""

    code = "timeout"
    status = 504
    retryable = True


class Internal(ToolError):
    """Hide an unexpected failure behind its request id; the log has the rest."""

    code = "internal"
    status = 500


_SHOWN_CHARACTERS = 120


def shown(value: object) -> str:
    """Return a value as an error shows it: as JSON says null, true and false, and cut to 120 characters."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


# How many names are compared letter by letter, and how many places in longer lists are looked at before.
_COMPARED = 150
_SHARED_PIECES = 10_000
_PIECE = 3
_SHORT_WORD = 8


def closest(value: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return at most `limit` of `known` that look like `value`, best first, without regard to case and separators."""

    def plain(text: str) -> str:
        return text.lower().replace("\\", "/").replace("_", "-").replace(" ", "-")

    by_plain: dict[str, str] = {}
    for candidate in known:
        text = plain(candidate)
        by_plain.setdefault(text, candidate)
        by_plain.setdefault(text.rsplit("/", 1)[-1], candidate)
    wanted = plain(value)
    compared = list(by_plain)
    if len(compared) > _COMPARED:
        compared = _shortlist(wanted, compared if "/" in wanted else [text for text in compared if "/" not in text])
    found = get_close_matches(wanted, compared, n=limit * 2, cutoff=0.5)
    return list(dict.fromkeys(by_plain[match] for match in found))[:limit]


def _shortlist(wanted: str, texts: list[str]) -> list[str]:
    """Return those of many texts that share most pieces of a few letters with the wanted one, rare pieces first.

    To compare ten thousand names letter by letter takes a second; to search one long text for pieces, a hundredth.
    """
    joined = "\n".join(texts)
    starts = list(accumulate((len(text) + 1 for text in texts[:-1]), initial=0))
    # Two letters that changed places leave a short word no piece of three.
    length = _PIECE if len(wanted) > _SHORT_WORD else 2
    pieces = {wanted[at : at + length] for at in range(max(1, len(wanted) - length + 1))} - {""}
    shared: list[int] = []
    # Pieces that nearly every name has (an extension) tell nothing.
    for piece in sorted((piece for piece in pieces if "\n" not in piece), key=joined.count):
        at = joined.find(piece)
        while at >= 0 and len(shared) < _SHARED_PIECES:
            shared.append(bisect_right(starts, at) - 1)
            at = joined.find(piece, at + 1)
    return [texts[index] for index, _ in Counter(shared).most_common(_COMPARED)]


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """Return ` Did you mean `x`?` for the closest known value, or an empty string."""
    matches = closest(value, known, limit=1)
    return f" Did you mean `{matches[0]}`?" if matches else ""
