"""Decide how a conditional or ranged request for one file is answered; pure, after RFC 9110 (sections 13 and 14)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Literal

# Of a number with more digits nothing is asked but whether it is larger than a file.
_MOST_DIGITS = 19


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one state of a file from another: a strong ETag (quoted) and the HTTP date of its last change."""

    etag: str
    last_modified: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Say which status to send, and which bytes: `start` to `end`, the latter not included."""

    status: Literal[200, 206, 304, 412, 416]
    start: int = 0
    end: int = 0


def answer_for(method: str, headers: Mapping[str, str], size_bytes: int, validators: Validators) -> Answer:
    """Return the answer to GET or HEAD; `headers` maps lower-case names to values.

    The order of the checks is that of RFC 9110, 13.2.2. A range of another unit, several ranges at once, and a range
    that cannot be parsed are answered with the whole file, as RFC 9110, 14.2 allows. HEAD has no ranges.
    """
    if not _may_proceed(headers, validators):
        return Answer(412)
    if _is_unchanged(headers, validators):
        return Answer(304)
    whole = Answer(200, 0, size_bytes)
    wanted = headers.get("range")
    if method != "GET" or wanted is None or not _range_applies(headers.get("if-range"), validators):
        return whole
    return _one_range(wanted, size_bytes) or whole


def without_odd_range(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers to pass on, without a Range that `answer_for` would answer with the whole file.

    Others refuse such a one, or take the request for malformed.
    """
    wanted = headers.get("range")
    if wanted is None or _one_range(wanted, 0) is not None:
        return dict(headers)
    return {name: value for name, value in headers.items() if name not in {"range", "if-range"}}


def _one_range(value: str, size_bytes: int) -> Answer | None:
    unit, equals, spec = value.partition("=")
    first, dash, last = spec.strip().partition("-")
    first, last = first.strip(), last.strip()
    if unit.strip().lower() != "bytes" or not equals or not dash or not _are_digits(first, last):
        return None
    if not first:
        suffix = _number(last)
        return Answer(206, max(0, size_bytes - suffix), size_bytes) if suffix and size_bytes else Answer(416)
    start, end = _number(first), _number(last) + 1 if last else size_bytes
    if last and end <= start:
        return None
    return Answer(206, start, min(end, size_bytes)) if start < size_bytes else Answer(416)


def _are_digits(first: str, last: str) -> bool:
    # `str.isdigit` alone also accepts digits of other scripts, which int() reads and HTTP does not know.
    return bool(first or last) and all(text.isascii() and text.isdigit() for text in (first, last) if text)


def _number(digits: str) -> int:
    # Python refuses to read a number of thousands of digits.
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS


def wants_sha256(headers: Mapping[str, str]) -> bool | None:
    """Return whether the caller asks for a sha-256 by Want-Repr-Digest; None where it says nothing of it.

    Source: RFC 9530, 4: a dictionary of algorithms, each with a preference from 0 (not wanted) to 10.
    """
    for member in headers.get("want-repr-digest", "").split(","):
        name, _, preference = (part.strip() for part in member.partition("="))
        if name == "sha-256":
            return _are_digits(preference, "") and 0 < _number(preference) <= 10
    return None


def _may_proceed(headers: Mapping[str, str], validators: Validators) -> bool:
    if_match = headers.get("if-match")
    if if_match is not None:
        return _names(if_match, validators.etag, weakly=False)
    unmodified_since = headers.get("if-unmodified-since")
    return unmodified_since is None or not _changed_after(unmodified_since, validators)


def _is_unchanged(headers: Mapping[str, str], validators: Validators) -> bool:
    if_none_match = headers.get("if-none-match")
    if if_none_match is not None:
        return _names(if_none_match, validators.etag, weakly=True)
    modified_since = headers.get("if-modified-since")
    if modified_since is None or _date(modified_since) is None:
        return False
    return not _changed_after(modified_since, validators)


def _range_applies(if_range: str | None, validators: Validators) -> bool:
    # A weak tag does not promise the same bytes. Neither does a date (RFC 9110, 8.8.2.2): a file may change twice in a
    # second. Who got an answer from here has its tag.
    return if_range is None or if_range.strip() == validators.etag


def _names(header: str, etag: str, *, weakly: bool) -> bool:
    tags = [tag.strip() for tag in header.split(",")]
    if weakly:
        tags = [tag.removeprefix("W/") for tag in tags]
    return "*" in tags or etag in tags


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # `-0000` says that the zone is unknown.
    return date if date.tzinfo is not None else None


def _changed_after(text: str, validators: Validators) -> bool:
    """Return whether the file changed after this HTTP date; a date that cannot be read counts as no condition."""
    date = _date(text)
    return date is not None and parsedate_to_datetime(validators.last_modified) > date
