"""Digests of LoRA files."""

import hashlib
import json
from pathlib import Path

from lora_files.hashes import hashes_of, sha256_of
from tests.unit.lora_files.files import FLUX_AI_TOOLKIT, entry, pairs, write, write_raw


def test_names_the_file_as_sites_do(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", pairs(FLUX_AI_TOOLKIT))
    content = path.read_bytes()
    data = content[8 + int.from_bytes(content[:8], "little") :]
    found = hashes_of(path)
    assert found.sha256 == hashlib.sha256(content).hexdigest() == sha256_of(path)
    assert found.autov2 == found.sha256[:10]
    assert found.autov3 == hashlib.sha256(data).hexdigest()[:12]


def test_autov3_stays_when_the_metadata_changes(tmp_path: Path) -> None:
    first = hashes_of(write(tmp_path / "a.safetensors", pairs(FLUX_AI_TOOLKIT)))
    second = hashes_of(write(tmp_path / "b.safetensors", pairs(FLUX_AI_TOOLKIT), {"title": "edited"}))
    assert first.autov3 == second.autov3
    assert first.sha256 != second.sha256


def test_reads_a_header_that_is_longer_than_one_batch(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"long": "x" * 9_000_000}, "a": entry([2], 0, 4)}).encode()
    path = write_raw(tmp_path / "a.safetensors", header, b"abcd")
    assert hashes_of(path).autov3 == hashlib.sha256(b"abcd").hexdigest()[:12]


def test_a_file_of_a_few_bytes_has_digests_too(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"abc")
    assert hashes_of(path).sha256 == hashlib.sha256(b"abc").hexdigest()
