"""One page of a list of LoRAs: filtered, sorted, and continued by a cursor. Pure."""

import base64
import binascii
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from comfy_mcp.loras.cache import Remembered
from comfy_mcp.loras.folder import LoraFile
from lora_files.architectures import SIGNATURES, UNKNOWN
from mcp_toolserver.errors import InvalidArguments, closest

Sort = Literal["name", "modified", "size"]
Known = tuple[LoraFile, Remembered | None]
"""A file, and what was read from it; None where nothing has been read yet."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants to see: `words` must all occur in name or trigger words, `after` is where to go on."""

    words: tuple[str, ...]
    architecture: str | None
    sort: Sort
    limit: int
    after: tuple[float, str] | None

    @property
    def reads_files(self) -> bool:
        """Tell whether names alone do not answer it."""
        return bool(self.words) or self.architecture is not None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of files: `total` counts all that match, `next_cursor` continues after this page."""

    files: Sequence[Known]
    total: int
    next_cursor: str | None


def wish_of(query: str | None, architecture: str | None, sort: Sort, limit: int, cursor: str | None) -> Wish:
    """Return what a caller wants; raises InvalidArguments for a cursor that is not from this list."""
    architecture = architecture.strip().lower() if architecture is not None else None
    words = tuple(query.lower().replace("\\", "/").split()) if query else ()
    return Wish(words, architecture, sort, limit, _read_cursor(cursor, sort) if cursor else None)


def page_of(known: Sequence[Known], wish: Wish) -> Page:
    """Return the page of files that come by name; by `modified` the newest come first, by `size` the largest.

    Raises InvalidArguments for an architecture that is neither known nor that of a file.
    """
    found = [each for each in known if _matches(each, wish)] if wish.reads_files else known
    if not found and wish.architecture is not None:
        _require_architecture(wish.architecture, known)
    if wish.sort != "name":
        found = sorted(found, key=lambda each: _place(each[0], wish.sort))
    # By places alone, so that a page is found in thousands without looking at each.
    start = 0 if wish.after is None else bisect_right(found, wish.after, key=lambda each: _place(each[0], wish.sort))
    page = found[start : start + wish.limit]
    more = start + wish.limit < len(found)
    return Page(page, len(found), _write_cursor(wish.sort, page[-1][0]) if more else None)


def _matches(known: Known, wish: Wish) -> bool:
    file, remembered = known
    said = remembered.examined.said if remembered else None
    if wish.architecture is not None and wish.architecture != (said.architecture if said else UNKNOWN):
        return False
    text = "\n".join((file.name, *(said.trigger_words if said else ()))).lower() if wish.words else ""
    return all(word in text for word in wish.words)


def _require_architecture(wanted: str, known: Sequence[Known]) -> None:
    there = {each.examined.said.architecture for _, each in known if each and each.examined.said}
    names = sorted({*(signature.architecture for signature in SIGNATURES), UNKNOWN, *there})
    if wanted in names:
        return
    matches = closest(wanted, names)
    raise InvalidArguments(
        f"Argument `architecture` is `{wanted}`: no LoRA is for such a kind of model.",
        hint=f"Did you mean `{matches[0]}`?" if matches else f"There are {', '.join(names)}.",
        details={"field": "architecture", "value": wanted, "closest_matches": matches},
    )


def _place(file: LoraFile, sort: Sort) -> tuple[float, str]:
    if sort == "modified":
        return -(file.modified_s or 0), file.name
    return (-(file.size_bytes or 0) if sort == "size" else 0), file.name


def _write_cursor(sort: Sort, last: LoraFile) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([sort, *_place(last, sort)])).decode().rstrip("=")


def _read_cursor(cursor: str, sort: Sort) -> tuple[float, str]:
    try:
        value: Any = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        written, place, name = value
        if written == sort:
            return float(place), str(name)
    except (binascii.Error, ValueError, TypeError):
        pass
    raise InvalidArguments(
        "`cursor` is not from this list.",
        hint="Send `next_cursor` of the page before, with the same `sort`; leave it out for the first page.",
        details={"field": "cursor", "value": cursor[:200]},
    )
