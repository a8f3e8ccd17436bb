"""Files: names from callers, appearance by rename, digests."""

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_toolserver.errors import Conflict, InvalidArguments
from mcp_toolserver.files import BATCH_BYTES, publish_now, safe_relative, sha256_of_file, write_file_atomically


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.safetensors", "a.safetensors"),
        ("people/anna v2.safetensors", "people/anna v2.safetensors"),
        ("people\\anna.safetensors", "people/anna.safetensors"),
        ("猫.safetensors", "猫.safetensors"),
        ("e\u0301.bin", "\u00e9.bin"),
        ("connection.bin", "connection.bin"),
        ("\u00bd price.bin", "\u00bd price.bin"),
        ("/".join("a" * 16), "/".join("a" * 16)),
    ],
)
def test_a_plain_name_is_taken(name: str, path: str) -> None:
    assert safe_relative(name).as_posix() == path


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "\\\\server\\share",
        "C:\\a.bin",
        "../a.bin",
        "a/../../b",
        "a/./b",
        "a//b",
        "a/",
        ".uploads/x",
        ".hidden",
        "a\0.bin",
        "a\n.bin",
        "a\u202egpj.bin",
        "a\ud800.bin",
        "\uff0e\uff0e\uff0fa.bin",
        "a\uff0fb",
        "NUL",
        "con.safetensors",
        "COM1.bin",
        "a.bin:stream",
        "a.bin.",
        "a.bin ",
        "a" * 256,
        "/".join("a" * 17),
        "/".join(["a" * 200] * 6),
        "d/" * 1500 + "a.bin",
        "a\u2215b.bin",
        "a\u2044b.bin",
        "a\u29f8b.bin",
        "a\u2216b.bin",
        "a\u2028.bin",
        "a\u2029b.bin",
        "\uff0e\uff0e/a.bin",
        "\u2024a.bin",
        "com\u00b9.bin",
        "LPT\u00b3",
        "conin$.bin",
        "CONOUT$",
        "\u3000",
        "\u00a0",
        "\u00a0.bin",
        "é" * 128,
        "*",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused_with_a_better_one(name: str) -> None:
    with pytest.raises(InvalidArguments, match="`filename` is") as refused:
        safe_relative(name)
    offered = (refused.value.hint or "").split("`")[1]
    assert safe_relative(offered).as_posix() == offered


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    try:
        path = safe_relative(name)
    except InvalidArguments:
        return
    inside = os.path.normpath(f"/models/{path}")
    assert inside == f"/models/{path}"
    assert not any(part.startswith(".") for part in path.parts)


def test_a_file_appears_whole_under_its_name(tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(b"new")
    publish_now(part, tmp_path / "deep" / "er" / "a.bin", overwrite=False)
    assert (tmp_path / "deep" / "er" / "a.bin").read_bytes() == b"new"
    assert not part.exists()


def test_a_name_that_is_taken_is_refused_or_replaced(tmp_path: Path) -> None:
    part, target = tmp_path / "part", tmp_path / "a.bin"
    part.write_bytes(b"new")
    target.write_bytes(b"old")
    with pytest.raises(Conflict, match="exists already"):
        publish_now(part, target, overwrite=False)
    assert (part.read_bytes(), target.read_bytes()) == (b"new", b"old")
    publish_now(part, target, overwrite=True)
    assert (part.exists(), target.read_bytes()) == (False, b"new")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_and_a_file_do_not_take_each_others_place(tmp_path: Path, overwrite: bool) -> None:
    part = tmp_path / "part"
    part.write_bytes(b"new")
    (tmp_path / "a.bin").mkdir()
    (tmp_path / "b.bin").write_bytes(b"old")
    (tmp_path / "nowhere").symlink_to("missing")
    with pytest.raises(Conflict, match=r"`a\.bin` is a folder"):
        publish_now(part, tmp_path / "a.bin", overwrite=overwrite)
    for folder in ("b.bin", "nowhere"):
        with pytest.raises(Conflict, match=f"`{re.escape(folder)}` is a file and no folder"):
            publish_now(part, tmp_path / folder / "deeper" / "c.bin", overwrite=overwrite)
    assert part.read_bytes() == b"new"


def test_a_link_that_leads_nowhere_has_its_name(tmp_path: Path) -> None:
    part, target = tmp_path / "part", tmp_path / "a.bin"
    part.write_bytes(b"new")
    target.symlink_to("missing")
    with pytest.raises(Conflict, match="exists already"):
        publish_now(part, target, overwrite=False)
    publish_now(part, target, overwrite=True)
    assert (target.is_symlink(), target.read_bytes()) == (False, b"new")


def test_a_folder_that_others_remove_meanwhile_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "cats"

    def remove(times: int, is_over: Event) -> int:
        removed = 0
        while removed < times and not is_over.is_set():
            with suppress(OSError):
                folder.rmdir()
                removed += 1
        return removed

    removed = 0
    with ThreadPoolExecutor(1) as pool:
        for number in range(30):
            part = tmp_path / "part"
            part.write_bytes(b"new")
            is_over = Event()
            removing = pool.submit(remove, 3, is_over)
            try:
                publish_now(part, folder / f"{number}.bin", overwrite=False)
                (folder / f"{number}.bin").unlink()
            finally:
                is_over.set()
            removed += removing.result()
    assert removed


def test_of_many_that_want_one_name_one_wins(tmp_path: Path) -> None:
    parts = [tmp_path / f"part{n}" for n in range(8)]
    for part in parts:
        part.write_bytes(part.name.encode())

    def attempt(part: Path) -> str | None:
        try:
            publish_now(part, tmp_path / "a.bin", overwrite=False)
        except Conflict:
            return None
        return part.name

    with ThreadPoolExecutor(8) as pool:
        winners = [name for name in pool.map(attempt, parts) if name]
    assert [name.encode() for name in winners] == [(tmp_path / "a.bin").read_bytes()]


async def test_a_small_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    await write_file_atomically(target, b"one")
    await write_file_atomically(target, b"two")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert target.read_bytes() == b"two"


async def test_a_digest_reports_how_far_it_is(tmp_path: Path) -> None:
    data = os.urandom(BATCH_BYTES + 5)
    (tmp_path / "a.bin").write_bytes(data)
    heard: list[tuple[float, float | None]] = []

    async def report(done: float, /, total: float | None = None, message: str | None = None) -> None:
        heard.append((done, total))

    assert await sha256_of_file(tmp_path / "a.bin", report) == hashlib.sha256(data).hexdigest()
    assert heard == [(BATCH_BYTES, len(data)), (len(data), len(data))]
