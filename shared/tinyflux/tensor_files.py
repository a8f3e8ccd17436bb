"""Read and write safetensors files: whole, checked, and without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save

from tinyflux.operations import F32

# The library's own stub leaves this function's types open.
_deserialize = cast("Callable[[bytes], list[tuple[str, dict[str, Any]]]]", vars(safetensors)["deserialize"])
_DTYPES: Mapping[str, type[np.generic]] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def read_tensors(path: Path) -> tuple[dict[str, F32], dict[str, str]]:
    """Read a file's tensors as float32, and its metadata; raise ValueError where it is no such file."""
    content = path.read_bytes()
    try:
        entries = _deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path.name} is not a safetensors file: {error}") from error
    tensors = {name: _as_float(path, name, entry) for name, entry in entries}
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}
    return tensors, metadata


def write_tensors(path: Path, tensors: Mapping[str, NDArray[np.floating]], metadata: Mapping[str, str]) -> None:
    """Write a file so that a reader finds it whole or not at all."""
    content = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, dict(metadata))
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _as_float(path: Path, name: str, entry: Mapping[str, Any]) -> F32:
    kind = str(entry["dtype"])
    if kind not in _DTYPES:
        raise ValueError(f"{path.name} holds {name!r} as {kind}; tinyflux reads {', '.join(_DTYPES)}")
    raw: NDArray[Any] = np.frombuffer(bytes(entry["data"]), dtype=_DTYPES[kind])
    # numpy has no bfloat16, but its bits are the upper half of a float32's.
    values: NDArray[Any] = (raw.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else raw
    return values.astype(np.float32).reshape([int(size) for size in entry["shape"]])
