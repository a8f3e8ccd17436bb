"""The headers of tus 1.0: what they ask for, read without trust."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, cast

import orjson

from mcp_toolserver.errors import InvalidArguments, TooLarge, closest
from mcp_toolserver.uploads.progress import StartUpload

_DIGITS = re.compile(r"[0-9]{1,18}")
_MORE_DIGITS = re.compile(r"0*[1-9][0-9]{18,}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_YES = {"": True, "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_OURS = ("filename", "sha256", "overwrite", "metadata", "publish", "upload_id")


def read_count(headers: Mapping[str, str], name: str) -> int:
    """Return a header that counts bytes; raises InvalidArguments when it is missing or no such number."""
    value = headers.get(name, "")
    if not _DIGITS.fullmatch(value):
        raise InvalidArguments(
            f"`{name}` is {value[:80]!r}, which is no number of bytes (1 to 18 digits)."
            if value
            else f"`{name}` is missing.",
            hint=f"Send `{name}` as decimal digits.",
            details={"field": name, "value": value[:80]},
        )
    return int(value)


def read_start(headers: Mapping[str, str], max_bytes: int) -> StartUpload:
    """Return what a creation announces; raises InvalidArguments for what it lacks, and TooLarge past `max_bytes`.

    The file's name is `filename` in Upload-Metadata, or `name`, which some clients send; what else a client tells there
    (such as `filetype`) is kept for it and means nothing here.
    """
    if "upload-defer-length" in headers or "upload-concat" in headers:
        raise InvalidArguments(
            "This server wants to know the whole length at the creation, and takes one upload for one file.",
            hint="Send `Upload-Length`, without `Upload-Defer-Length` and `Upload-Concat`.",
            details={"field": "Upload-Length"},
        )
    digits = headers.get("Upload-Length", "")
    # So many digits are no number that this server counts with, but they say enough.
    total_bytes = max_bytes + 1 if _MORE_DIGITS.fullmatch(digits) else read_count(headers, "Upload-Length")
    if total_bytes == 0:
        raise InvalidArguments(
            "`Upload-Length` is 0: an empty file is of no use here.",
            hint="Check the file, and send it again.",
            details={"field": "Upload-Length", "value": 0},
        )
    if total_bytes > max_bytes:
        raise TooLarge(
            f"`Upload-Length` is {digits[:80]}; at most {max_bytes} bytes are taken.",
            hint="Send a smaller file.",
            details={"field": "Upload-Length", "value": digits[:80], "max_bytes": max_bytes},
        )
    spoken = headers.get("upload-metadata", "")
    pairs = _pairs(spoken)
    filename = pairs.get("filename") or pairs.get("name")
    if not filename:
        empty = next((f" Its `{key}` is empty." for key in ("filename", "name") if key in pairs), "")
        meant = next((f" It has `{key}`; did you mean `filename`?" for key in pairs if closest(key, ["filename"])), "")
        raise InvalidArguments(
            f"`Upload-Metadata` names no file.{empty or meant}",
            hint="Send `Upload-Metadata: filename BASE64`, with the file's name as base64.",
            details={"field": "Upload-Metadata", "keys": sorted(pairs)[:20]},
        )
    return StartUpload(
        filename=filename,
        total_bytes=total_bytes,
        upload_id=pairs.get("upload_id") or None,
        sha256=_digest(pairs.get("sha256")),
        overwrite=_flag(pairs, "overwrite", default=False),
        metadata=_object(pairs.get("metadata")),
        publish_when_complete=_flag(pairs, "publish", default=True),
        tus_metadata=spoken,
    )


def metadata_header(filename: str) -> str:
    """Return the Upload-Metadata of an upload that another way in has begun."""
    return f"filename {base64.b64encode(filename.encode()).decode()}"


def _pairs(spoken: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in spoken.split(","))):
        key, _, encoded = pair.partition(" ")
        if key in pairs:
            raise InvalidArguments(
                f"`Upload-Metadata` has the key {key[:80]!r} more than once.",
                hint="Send each key once: nobody can tell which value is meant.",
                details={"field": "Upload-Metadata", "key": key[:80]},
            )
        try:
            value = base64.b64decode(encoded, validate=True)
            # Only what is ours must be text; the values of others may be anything.
            pairs[key] = value.decode() if key in _OURS or key == "name" else ""
        except (binascii.Error, ValueError):
            raise InvalidArguments(
                f"`Upload-Metadata` holds no base64 text under {key[:80]!r}.",
                hint="Send pairs of a key, a space and the value as base64, with commas between the pairs.",
                details={"field": "Upload-Metadata", "key": key[:80]},
            ) from None
    return pairs


def _digest(value: str | None) -> str | None:
    if value and not _SHA256.fullmatch(value):
        raise _bad("sha256", value, "a sha256 is written as 64 hexadecimal digits")
    return value.lower() if value else None


def _flag(pairs: Mapping[str, str], key: str, *, default: bool) -> bool:
    if key not in pairs:
        return default
    known = _YES.get(pairs[key].strip().lower())
    if known is None:
        raise _bad(key, pairs[key], "it is neither `true` nor `false`")
    return known


def _object(value: str | None) -> dict[str, Any] | None:
    if not value:
        return None
    try:
        parsed: Any = orjson.loads(value)
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict):
        raise _bad("metadata", value, "it is no JSON object")
    return cast(dict[str, Any], parsed)


def _bad(key: str, value: str, problem: str) -> InvalidArguments:
    return InvalidArguments(
        f"`{key}` in `Upload-Metadata` is {value[:80]!r}: {problem}.",
        hint=f"Correct `{key}`, or leave it out.",
        details={"field": key, "value": value[:80]},
    )
