"""Bytes written past the page cache lie where they would lie without that, on any file system and at any offset."""

import os
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_toolserver.uploads.past_cache import BLOCK_BYTES, WORTH_IT_BYTES, write_at
from tests.fakes.disk_faults import largest_file

_SPACE = os.urandom(3 * 1024 * 1024)
_lengths = st.integers(0, 700_000) | st.integers(0, 40).map(lambda blocks: blocks * BLOCK_BYTES)


@pytest.fixture(params=["disk", "memory"])
def part(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    folder = {"disk": tmp_path, "memory": Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path}[request.param]
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        yield Path(file.name)


def _append(path: Path, offset: int, pieces: list[bytes]) -> None:
    with path.open("rb+") as file:
        write_at(file.fileno(), offset, pieces)


@settings(max_examples=60, deadline=None)
@given(appends=st.lists(st.lists(_lengths, min_size=1, max_size=4), min_size=1, max_size=5))
def test_appends_of_any_length_come_out_as_one_file(appends: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.part"
        path.touch()
        offset = 0
        for lengths in appends:
            marks = [sum(lengths[:count]) % len(_SPACE) for count in range(len(lengths) + 1)]
            pieces = [_SPACE[start : start + length] for start, length in zip(marks, lengths, strict=False)]
            _append(path, offset, pieces)
            whole = b"".join(pieces)
            assert path.stat().st_size == offset + len(whole)
            assert path.read_bytes()[offset:] == whole
            offset += len(whole)


def test_every_edge_of_a_block_and_of_the_buffer(part: Path) -> None:
    edges = [0, 1, BLOCK_BYTES - 1, WORTH_IT_BYTES + BLOCK_BYTES, 2 * 1024 * 1024 + 1, 3 * 1024 * 1024]
    for start, end in pairwise(edges):
        _append(part, start, [_SPACE[start:end]])
        assert part.read_bytes() == _SPACE[:end]


def test_bytes_that_are_there_stay_when_the_next_ones_share_their_block(part: Path) -> None:
    _append(part, 0, [_SPACE[:1_000_001]])
    _append(part, 1_000_001, [_SPACE[1_000_001:2_500_000]])
    assert part.read_bytes() == _SPACE[:2_500_000]


def test_thousands_of_small_pieces_are_one_write(part: Path) -> None:
    pieces = [_SPACE[start : start + 101] for start in range(0, 1_000_000, 101)]
    _append(part, 0, pieces)
    assert part.read_bytes() == b"".join(pieces)


def test_a_file_that_may_not_grow_further_is_an_error_and_keeps_what_it_had(part: Path) -> None:
    _append(part, 0, [_SPACE[:500_000]])
    with largest_file(1_200_000), pytest.raises(OSError, match="File too large"):
        _append(part, 500_000, [_SPACE[500_000:2_000_000]])
    assert part.read_bytes() == _SPACE[: part.stat().st_size]
    assert part.stat().st_size <= 1_200_000
