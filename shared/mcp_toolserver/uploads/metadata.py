"""What a caller may send to be kept beside a file. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import orjson

from mcp_toolserver.errors import InvalidArguments

MAX_METADATA_BYTES = 1024 * 1024
MAX_METADATA_LEVELS = 32
"""Far from the depth at which any reader of JSON gives up: what was taken must be readable for ever."""


def require_keepable(metadata: Mapping[str, Any] | None) -> None:
    """Raise InvalidArguments for metadata that is too deep, too long, or no JSON."""
    if not metadata:
        return
    levels = _levels(metadata)
    if levels > MAX_METADATA_LEVELS:
        raise _refused(f"is more than {MAX_METADATA_LEVELS} levels deep", "levels", MAX_METADATA_LEVELS)
    try:
        size_bytes = len(orjson.dumps(dict(metadata)))
    except TypeError as error:
        raise _refused(f"cannot be written as JSON: {error}", "levels", MAX_METADATA_LEVELS) from None
    if size_bytes > MAX_METADATA_BYTES:
        raise _refused(
            f"has {size_bytes} bytes as JSON, of which {MAX_METADATA_BYTES} are the most", "bytes", MAX_METADATA_BYTES
        )


def _levels(value: object) -> int:
    """Return how many objects and arrays lie within each other, up to one level more than may be."""
    levels = 0
    level = [value] if _holds(value) else []
    while level and levels <= MAX_METADATA_LEVELS:
        levels += 1
        level = [inner for holder in level for inner in _inside(holder) if _holds(inner)]
    return levels


def _holds(value: object) -> bool:
    return isinstance(value, Mapping | list)


def _inside(holder: object) -> Iterable[object]:
    if isinstance(holder, Mapping):
        return cast(Mapping[str, object], holder).values()
    return cast(list[object], holder)


def _refused(problem: str, unit: str, limit: int) -> InvalidArguments:
    return InvalidArguments(
        f"`metadata` {problem}.",
        hint=f"Send a JSON object of at most {MAX_METADATA_LEVELS} levels and {MAX_METADATA_BYTES} bytes, or none.",
        details={"field": "metadata", f"most_{unit}": limit},
    )
