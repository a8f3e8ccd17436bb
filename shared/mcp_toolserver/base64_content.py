"""Bytes that callers send as base64 inside JSON."""

import binascii
import re

import pybase64

from mcp_toolserver.errors import InvalidArguments, TooLarge

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_FOREIGN = re.compile(r"[^A-Za-z0-9+/=]")


def decode_base64(text: str, *, field: str, max_bytes: int | None = None, past_limit: str | None = None) -> bytes:
    """Return the bytes of strict base64; a `data:…;base64,` prefix is dropped.

    Raises InvalidArguments that says what is wrong and where, and TooLarge past `max_bytes`, with `past_limit` as the
    hint. Blocks for about a millisecond per MiB.
    """
    prefix = _DATA_URL.match(text, 0, 256)
    body = text[prefix.end() :] if prefix else text
    if max_bytes is not None and len(body) // 4 * 3 - body.count("=", -2) > max_bytes:
        raise TooLarge(
            f"`{field}` holds more than {max_bytes} bytes.",
            hint=past_limit,
            details={"field": field, "size_bytes": len(body) // 4 * 3 - body.count("=", -2), "max_bytes": max_bytes},
        )
    try:
        return pybase64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArguments(
            f"`{field}` is not valid base64: {_what_is_wrong(body)}.",
            hint="Use the standard alphabet with padding and no line breaks, as `base64 -w0 FILE` and Python's "
            "base64.b64encode write it.",
            details={"field": field, "length": len(body)},
        ) from None


def _what_is_wrong(body: str) -> str:
    foreign = _FOREIGN.search(body)
    if foreign:
        letter, place = foreign.group(), foreign.start()
        if letter.isspace():
            return f"there is white space at character {place}"
        if letter in "-_":
            return f"character {place} is {letter!r}, which belongs to the URL alphabet"
        return f"character {place} is {letter!r}"
    if "=" in body.rstrip("="):
        return f"there is padding in the middle, at character {body.index('=')}"
    if len(body) % 4:
        return f"its length of {len(body)} is no multiple of 4, so that it was cut off or lacks its padding"
    return "its padding is wrong"
