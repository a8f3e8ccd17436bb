"""The header parser: what it accepts, what it refuses, and by which name."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load, save

from lora_files.header import DTYPE_BITS, BadSafetensors, parse_header, read_header, read_scalars
from tests.unit.lora_files.files import entry, write, write_raw, zeros

names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).filter(
    lambda name: name != "__metadata__"
)
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
shapes = st.lists(st.integers(0, 4), max_size=3)
dtypes = st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64, np.bool_])


def built(tensors: dict[str, tuple[list[int], type[np.generic]]], metadata: dict[str, str] | None) -> bytes:
    arrays: dict[str, NDArray[Any]] = {name: np.zeros(shape, dtype) for name, (shape, dtype) in tensors.items()}
    return save(arrays, metadata)


def names_by_reference(path: Path) -> set[str]:
    opened: Any = safe_open(path, framework="numpy")
    with opened as file:
        return set(file.keys())


files = st.builds(
    built,
    st.dictionaries(names, st.tuples(shapes, dtypes), max_size=6),
    st.none() | st.dictionaries(names, text, min_size=1, max_size=4),
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(path: Path) -> str:
    with pytest.raises(BadSafetensors) as caught:
        read_header(path)
    return caught.value.reason


@quick
@given(content=files)
def test_reads_what_the_reference_library_writes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    header = read_header(path)
    expected = load(content)
    assert {name: info.shape for name, info in header.tensors.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    assert header.file_bytes == len(content)
    for name, info in header.tensors.items():
        data = content[header.header_bytes + info.start : header.header_bytes + info.end]
        assert data == expected[name].tobytes()
        assert DTYPE_BITS[info.dtype] == expected[name].itemsize * 8


@quick
@given(content=files, changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4))
def test_accepts_no_damaged_file_that_the_reference_library_refuses(
    content: bytes, changes: list[tuple[int, int]], tmp_path: Path
) -> None:
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path = tmp_path / "a.safetensors"
    path.write_bytes(damaged)
    try:
        header = read_header(path)
    except BadSafetensors as error:
        assert str(error)
        assert error.reason
    else:
        assert names_by_reference(path) == set(header.tensors)


@quick
@given(content=files, keep=st.integers(0, 2000))
def test_refuses_every_cut_file(content: bytes, keep: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content[: keep % len(content)])
    assert refused(path) in {"empty", "truncated"}


@quick
@given(text=st.binary(max_size=200), data_bytes=st.integers(0, 100))
def test_never_fails_otherwise_than_by_name(text: bytes, data_bytes: int) -> None:
    with pytest.raises(BadSafetensors):
        parse_header(b"{" + text, data_bytes + 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\x10\0\0", "truncated"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "html"),
        (b"\n  <html lang=en>", "html"),
        (b'{"error": "Access to model is restricted"}', "json"),
        (b"PK\x03\x04" + b"\0\0\x08\x08" + bytes(30), "zip"),
        (b"\x80\x02}q\0X\x05\0\0\0" + bytes(30), "pickle"),
        (b"GGUF\x03\0\0\0" + bytes(30), "gguf"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "lfs_pointer"),
        (b"\x1f\x8b\x08" + bytes(30), "gzip"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "image"),
        (struct.pack("<Q", 100_000_001) + b"{" + bytes(30), "header_too_large"),
        (struct.pack("<Q", 500) + b"{}", "truncated"),
        (struct.pack("<Q", 4) + b"null", "bad_header"),
    ],
)
def test_names_what_the_file_is_instead(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert refused(path) == reason


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        ({"a": entry([2], 0, 4), "b": entry([2], 2, 6)}, 6, "overlap"),
        ({"a": entry([2], 0, 4), "b": entry([2], 6, 10)}, 10, "hole"),
        ({"a": entry([2], 2, 6)}, 6, "hole"),
        ({"a": entry([2], 0, 4)}, 9, "trailing_bytes"),
        ({"a": entry([2], 0, 4)}, 3, "truncated"),
        ({"a": entry([3], 0, 4)}, 4, "size_mismatch"),
        ({"a": entry([2], 4, 0)}, 4, "bad_offsets"),
        ({"a": entry([2**62, 2**62], 0, 4)}, 4, "size_mismatch"),
        ({"a": entry([-2], 0, 4)}, 4, "bad_shape"),
        ({"a": {"dtype": "F16", "shape": [True], "data_offsets": [0, 2]}}, 2, "bad_shape"),
        ({"a": {"dtype": "F16", "shape": [2.0], "data_offsets": [0, 4]}}, 4, "bad_shape"),
        ({"a": entry([1] * 65, 0, 2)}, 2, "bad_shape"),
        ({"a": entry([2], 0, 4, "F17")}, 4, "bad_dtype"),
        ({"a": {"dtype": "F16", "shape": [2]}}, 4, "bad_tensor"),
        ({"a": 1}, 4, "bad_tensor"),
        ({"__metadata__": []}, 0, "bad_metadata"),
        ({"__metadata__": {"steps": 100}}, 0, "bad_metadata"),
    ],
)
def test_refuses_a_broken_layout(header: dict[str, object], data: int, reason: str, tmp_path: Path) -> None:
    assert refused(write_raw(tmp_path / "a.safetensors", json.dumps(header).encode(), bytes(data))) == reason


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b'{"a":{"dtype":"F16","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}',
         "duplicate_key"),
        (b'{"__metadata__":{"a":"1","a":"2"}}', "duplicate_key"),
        (b'{"a":{"dtype":"F16","shape":[NaN],"data_offsets":[0,0]}}', "bad_header"),
        (b'{"\\ud800":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}', "bad_header"),
        (b'{"a": \xff}', "bad_header"),
        (b'{"a":' + b"[" * 100_000, "bad_header"),
        (b'{"a":{"dtype":"F16","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,0]}}', "bad_header"),
    ],
)  # fmt: skip
def test_refuses_json_that_is_read_in_two_ways(header: bytes, reason: str, tmp_path: Path) -> None:
    assert refused(write_raw(tmp_path / "a.safetensors", header)) == reason


def test_reads_single_numbers_of_every_kind_of_float(tmp_path: Path) -> None:
    tensors = {
        "half.alpha": np.array(8, np.float16),
        "single.alpha": np.array([0.5], np.float32),
        "many.alpha": zeros(2),
    }
    path = write(tmp_path / "a.safetensors", tensors)
    header = read_header(path)
    assert read_scalars(path, header, header.tensors) == {"half.alpha": 8.0, "single.alpha": 0.5}


def test_reads_a_bfloat16_number(tmp_path: Path) -> None:
    header = json.dumps({"x.alpha": entry([], 0, 2, "BF16")}).encode()
    path = write_raw(tmp_path / "a.safetensors", header, struct.pack("<f", 16.0)[2:])
    assert read_scalars(path, read_header(path), ["x.alpha"]) == {"x.alpha": 16.0}


@pytest.mark.parametrize(("dtype", "bits"), DTYPE_BITS.items())
def test_the_reference_library_takes_every_dtype_of_the_table(dtype: str, bits: int, tmp_path: Path) -> None:
    header = json.dumps({"a": entry([4], 0, bits // 2, dtype)}).encode()
    path = write_raw(tmp_path / "a.safetensors", header, bytes(bits // 2))
    assert names_by_reference(path) == set(read_header(path).tensors)
