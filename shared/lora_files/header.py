"""The header of a safetensors file: read it, and refuse a file that no program could load.

Layout: 8 bytes, little-endian, the header's length; that many bytes of JSON; then the tensors' bytes, without holes, to
the end of the file. Source: the format section of the safetensors README.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from lora_files.strangers import name_stranger

MAX_HEADER_BYTES = 100_000_000
"""The bound of the reference implementation: a longer header is an attack or no safetensors at all."""

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
_LENGTH = struct.Struct("<Q")
_SCALARS: Mapping[str, str] = {"F16": "<e", "F32": "<f", "F64": "<d", "I32": "<i", "I64": "<q"}
_MAX_SCALARS = 4096
_MAX_DIMENSIONS = 64
_MAX_SIZE = 2**63
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})


class BadSafetensors(ValueError):
    """Say why a file is no safetensors; `reason` is a word for programs (`truncated`, `html`, `overlap`, …)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TensorInfo(NamedTuple):
    """Describe one tensor: `start` and `end` are bytes after the header, the end not included."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class SafetensorsHeader:
    """What a file says before its tensors; `header_bytes` counts the eight bytes of the length too.

    Two readings are never equal, so that what one comes to can be remembered by it.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    header_bytes: int = 0
    file_bytes: int = 0


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check the header of a file; its tensors are not touched.

    Raises BadSafetensors for a file that is something else, broken or cut short; OSError as open() does.
    """
    with path.open("rb", buffering=0) as file:
        return read_header_from(file)


def read_header_from(file: BinaryIO) -> SafetensorsHeader:
    """Read and check the header of an open, seekable file, as `read_header` does."""
    file_bytes = file.seek(0, 2)
    file.seek(0)
    opening = _read_exactly(file, min(file_bytes, 4096))
    check_opening(opening, file_bytes)
    (length,) = _LENGTH.unpack(opening[: _LENGTH.size])
    file.seek(_LENGTH.size)
    return parse_header(_read_exactly(file, length), file_bytes - _LENGTH.size - length)


def check_opening(opening: bytes, file_bytes: int) -> None:
    """Raise BadSafetensors when a file of this size, with these first bytes, can not become a safetensors file.

    `opening` may be as short as it came; what it does not show yet is not judged.
    """
    stranger = name_stranger(opening)
    if stranger is not None:
        raise BadSafetensors(stranger.reason, stranger.message)
    if file_bytes < _LENGTH.size + 2:
        raise BadSafetensors("truncated", f"The file has only {file_bytes} bytes: it was cut short.")
    if len(opening) < _LENGTH.size:
        return
    (length,) = _LENGTH.unpack(opening[: _LENGTH.size])
    if length > MAX_HEADER_BYTES:
        raise BadSafetensors(
            "header_too_large",
            f"The file claims a header of {length} bytes, and {MAX_HEADER_BYTES} are the most that the format allows:"
            " it is no safetensors file.",
        )
    if _LENGTH.size + length > file_bytes:
        raise BadSafetensors(
            "truncated",
            f"The file ends inside its header: {_LENGTH.size + length} bytes were promised, {file_bytes} are there.",
        )
    if len(opening) > _LENGTH.size:
        _require_object(opening[_LENGTH.size : _LENGTH.size + 1])


def parse_header(text: bytes, data_bytes: int) -> SafetensorsHeader:
    """Check a header's JSON against the number of bytes that follow it; raises BadSafetensors."""
    entries = _parse_json(text)
    metadata = _metadata(entries.pop("__metadata__", None))
    tensors = {name: _tensor(name, entry) for name, entry in entries.items()}
    _check_layout(tensors, data_bytes)
    header_bytes = _LENGTH.size + len(text)
    return SafetensorsHeader(tensors, metadata, header_bytes, header_bytes + data_bytes)


def read_scalars(path: Path, header: SafetensorsHeader, names: Iterable[str]) -> dict[str, float]:
    """Read the values of tensors that hold a single finite number (such as `.alpha`); others are left out.

    At most 4096 of them are read: a file with more says nothing new by the rest.
    """
    values: dict[str, float] = {}
    with path.open("rb", buffering=0) as file:
        for name in names:
            info = header.tensors[name]
            if math.prod(info.shape) != 1 or (info.dtype not in _SCALARS and info.dtype != "BF16"):
                continue
            if len(values) >= _MAX_SCALARS:
                break
            file.seek(header.header_bytes + info.start)
            raw = _read_exactly(file, info.end - info.start)
            # A bfloat16 is the upper half of a float32.
            (value,) = (
                struct.unpack("<f", b"\0\0" + raw) if info.dtype == "BF16" else struct.unpack(_SCALARS[info.dtype], raw)
            )
            if math.isfinite(value):
                values[name] = float(value)
    return values


def _read_exactly(file: BinaryIO, count: int) -> bytes:
    parts: list[bytes] = []
    while count > 0:
        part = file.read(count)
        if not part:
            raise BadSafetensors("truncated", "The file became shorter while it was read.")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _parse_json(text: bytes) -> dict[str, Any]:
    _require_object(text)
    try:
        entries: Any = json.loads(text.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
        if b"\\u" in text:
            # A lone surrogate is no text: no JSON answer could carry it.
            json.dumps(entries, ensure_ascii=False).encode()
    except BadSafetensors:
        raise
    except (ValueError, RecursionError) as error:
        raise BadSafetensors("bad_header", f"The header is no valid JSON: {_first_line(error)}.") from None
    return cast(dict[str, Any], entries)


def _require_object(text: bytes) -> None:
    if not text.startswith(b"{"):
        raise BadSafetensors("bad_header", "The header is no JSON object: the file is no safetensors, or it is broken.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _no_constant(word: str) -> Any:
    raise BadSafetensors("bad_header", f"The header holds {word}, which is not JSON.")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise BadSafetensors("duplicate_key", f"The header names {twice[:120]!r} twice.")
    return entries


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadSafetensors("bad_metadata", "`__metadata__` is no object.")
    entries = cast(dict[str, Any], value)
    for name, text in entries.items():
        if not isinstance(text, str):
            raise BadSafetensors("bad_metadata", f"`__metadata__` holds a {type(text).__name__} under {name[:120]!r}.")
    return entries


def _tensor(name: str, value: Any) -> TensorInfo:
    if not isinstance(value, dict):
        raise BadSafetensors("bad_tensor", f"Tensor {name[:120]!r} is described by no object.")
    entry = cast(dict[str, Any], value)
    if entry.keys() != _FIELDS:
        raise BadSafetensors("bad_tensor", f"Tensor {name[:120]!r} has the fields {sorted(entry)[:5]}.")
    dtype = entry["dtype"]
    shape = _counts(entry["shape"])
    offsets = _counts(entry["data_offsets"])
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise BadSafetensors("bad_dtype", f"Tensor {name[:120]!r} has the unknown dtype {str(dtype)[:40]!r}.")
    if shape is None:
        raise BadSafetensors("bad_shape", f"Tensor {name[:120]!r} has a shape that is no list of whole numbers.")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise BadSafetensors("bad_offsets", f"Tensor {name[:120]!r} has no pair of offsets in order.")
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits != (offsets[1] - offsets[0]) * 8:
        raise BadSafetensors(
            "size_mismatch",
            f"Tensor {name[:120]!r} spans {offsets[1] - offsets[0]} bytes, but its shape and dtype need {bits / 8:g}.",
        )
    return TensorInfo(dtype, shape, offsets[0], offsets[1])


def _counts(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    numbers = cast(list[Any], value)
    if len(numbers) > _MAX_DIMENSIONS:
        return None
    for number in numbers:
        # The type, not isinstance: True is an int, and no size.
        if type(number) is not int or not 0 <= number < _MAX_SIZE:
            return None
    return tuple(numbers)


def _check_layout(tensors: Mapping[str, TensorInfo], data_bytes: int) -> None:
    reached = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start < reached:
            raise BadSafetensors("overlap", f"Tensor {name[:120]!r} lies over the one before it.")
        if info.start > reached:
            raise BadSafetensors("hole", f"{info.start - reached} bytes before tensor {name[:120]!r} belong to none.")
        reached = info.end
    if reached > data_bytes:
        raise BadSafetensors(
            "truncated",
            f"The file is cut short: its tensors need {reached} bytes, {data_bytes} are there"
            f" ({reached - data_bytes} missing).",
        )
    if reached < data_bytes:
        raise BadSafetensors("trailing_bytes", f"{data_bytes - reached} bytes after the last tensor belong to none.")
