"""Names that the disk cannot take, and folders that hold what no LoRA is: refused by name, or passed over."""

import os
import subprocess
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp

from tests.servers.lora_server import lora_server
from tests.servers.loras import flux
from tests.servers.tus_caller import BODY, TUS, Tus, b64, metadata, refused

LONGEST = 255 - len(".safetensors") - len(".metadata.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty loras folder."""
    loras = tmp_path / "loras"
    loras.mkdir()
    return loras


@pytest.fixture
def lora(tmp_path: Path) -> bytes:
    """Return the bytes of a LoRA."""
    return flux(tmp_path / "trained.safetensors").read_bytes()


@pytest.fixture
async def tus(folder: Path, tmp_path: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[Tus]:
    """Serve the folder."""
    async with httpx.AsyncClient(timeout=30) as http:
        yield Tus(serve(lora_server(folder, tmp_path / "cache.sqlite")), folder, http)


def uploads(folder: Path) -> list[Path]:
    """Return the uploads that were begun and not dropped."""
    return list(folder.glob(".uploads/*/manifest.json"))


async def answers(tus: Tus, filename: str, lora: bytes, *, overwrite: bool = False) -> list[httpx.Response]:
    """Send a LoRA by each way in; chunks and the second tus upload are only begun."""
    said = {"filename": filename, "metadata": {"a": 1}, "overwrite": overwrite}
    told = metadata(filename=filename, metadata='{"a":1}', overwrite=str(overwrite).lower())
    headers = {"Upload-Length": str(len(lora)), "Upload-Metadata": told}

    async def tool(name: str, **arguments: object) -> httpx.Response:
        return await tus.http.post(f"{tus.url}/mcp/tool", json={"tool": name, "arguments": arguments})

    return [
        await tool("upload-lora", **said, content=b64(lora)),
        await tool("upload-lora-chunked-start", **said, total_size=len(lora)),
        await tus.http.post(f"{tus.url}/uploads", headers={**headers, **BODY}, content=lora),
        await tus.http.post(f"{tus.url}/uploads", headers={**headers, **TUS}),
    ]


@pytest.mark.parametrize("letter", ["a", "é", "猫"])
async def test_a_name_leaves_room_for_what_lies_beside_it(tus: Tus, lora: bytes, letter: str) -> None:
    fits = LONGEST // len(letter.encode())
    longest = f"cats/{letter * fits}.safetensors"
    for answer in await answers(tus, f"cats/{letter * (fits + 1)}.safetensors", lora):
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"]["details"]["closest_matches"] == [longest]
    assert (tus.names(), uploads(tus.folder)) == ([], [])
    for answer in (await answers(tus, longest, lora, overwrite=True))[:3]:
        assert answer.is_success, answer.text
    assert (await tus.tool("get-lora-info", lora_name=longest))["supplied_metadata"] == {"a": 1}


COLLISIONS = [
    ("taken.safetensors/x.safetensors", "`taken.safetensors` is a file and no folder", False),
    ("taken.safetensors/x.safetensors", "`taken.safetensors` is a file and no folder", True),
    ("folder.safetensors", "`folder.safetensors` is a folder", False),
    ("folder.safetensors", "`folder.safetensors` is a folder", True),
    ("nowhere.safetensors", "exists already", False),
    ("nowhere.safetensors/x.safetensors", "`nowhere.safetensors` is a file and no folder", False),
]


@pytest.mark.parametrize(("filename", "words", "overwrite"), COLLISIONS)
async def test_a_name_that_something_else_has_is_refused_before_a_byte_was_sent(
    tus: Tus, lora: bytes, filename: str, words: str, overwrite: bool
) -> None:
    (tus.folder / "taken.safetensors").write_bytes(lora)
    (tus.folder / "folder.safetensors").mkdir()
    (tus.folder / "nowhere.safetensors").symlink_to("missing")
    for answer in await answers(tus, filename, lora, overwrite=overwrite):
        assert answer.status_code == 409, answer.text
        assert words in answer.json()["error"]["message"]
    assert uploads(tus.folder) == []
    assert sorted(tus.names()) == ["folder.safetensors", "nowhere.safetensors", "taken.safetensors"]


async def test_what_comes_in_the_way_meanwhile_is_named_and_the_bytes_stay(tus: Tus, lora: bytes) -> None:
    where = await tus.created(len(lora), overwrite="true")
    (tus.folder / "cat.safetensors").mkdir()
    refused(await tus.patch(where, 0, lora), 409, "`cat.safetensors` is a folder")
    (tus.folder / "cat.safetensors").rmdir()
    beside = tus.folder / "cat.safetensors.metadata.json"
    beside.mkdir()
    assert (await tus.http.head(where, headers=TUS)).status_code == 409
    beside.rmdir()
    assert await tus.offset(where) == len(lora)
    assert (tus.folder / "cat.safetensors").read_bytes() == lora


@pytest.mark.parametrize("name", ["/".join(["d" * 200] * 22) + "/x.safetensors", "d/" * 1500 + "x.safetensors"])
async def test_a_path_that_no_system_takes_is_not_there_and_not_taken(tus: Tus, lora: bytes, name: str) -> None:
    for answer in await answers(tus, name, lora):
        assert answer.status_code == 422, answer.text
        assert "are the most" in answer.json()["error"]["message"]
    for tool in ("get-lora-info", "download-lora", "delete-lora"):
        body = {"tool": tool, "arguments": {"lora_name": name}}
        assert (await tus.http.post(f"{tus.url}/mcp/tool", json=body)).status_code == 404
    assert tus.names() == []


async def test_links_that_lead_to_themselves_are_passed_over(tus: Tus, lora: bytes) -> None:
    (tus.folder / "cat.safetensors").write_bytes(lora)
    (tus.folder / "loop").symlink_to("loop")
    (tus.folder / "loop.safetensors").symlink_to("loop.safetensors")
    (tus.folder / "cat.safetensors.metadata.json").symlink_to("cat.safetensors.metadata.json")
    (tus.folder / "cats").mkdir()
    (tus.folder / "cats" / "up").symlink_to("..")
    assert [lora["name"] for lora in (await tus.tool("list-loras"))["loras"]] == ["cat.safetensors"]
    for name in ("loop.safetensors", "loop/x.safetensors", "loop"):
        for tool in ("get-lora-info", "download-lora", "delete-lora"):
            body = {"tool": tool, "arguments": {"lora_name": name}}
            assert (await tus.http.post(f"{tus.url}/mcp/tool", json=body)).status_code == 404
        assert (await tus.http.get(f"{tus.url}/loras/{name}")).status_code == 404
    await tus.tool("delete-lora", lora_name="cat.safetensors")
    assert (await tus.tool("list-loras"))["loras"] == []


async def test_folders_are_listed_at_any_depth(tus: Tus, lora: bytes) -> None:
    at, home = os.open(tus.folder, os.O_RDONLY), tus.folder
    for _ in range(1500):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(os.open("x.safetensors", os.O_CREAT, dir_fd=at))
    os.close(at)
    (home / "cat.safetensors").write_bytes(lora)
    try:
        names = [each["name"] for each in (await tus.tool("list-loras"))["loras"]]
        assert names == ["cat.safetensors", "d/" * 1500 + "x.safetensors"]
    finally:
        # shutil.rmtree, which empties the folders of tests, goes no deeper than Python's own stack.
        subprocess.run(["rm", "-r", str(home / "d")], check=True)


async def test_a_folder_may_be_called_as_a_lora_is(tus: Tus, lora: bytes) -> None:
    await tus.tool("upload-lora", filename="v1.safetensors/x.safetensors", content=b64(lora))
    names = [each["name"] for each in (await tus.tool("list-loras"))["loras"]]
    assert names == ["v1.safetensors/x.safetensors"]


async def test_a_deleted_lora_takes_its_empty_folders_along(tus: Tus, lora: bytes, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tus.folder / "linked").symlink_to(tmp_path / "elsewhere")
    for name in ("a/b/c/x.safetensors", "a/y.safetensors", "linked/z.safetensors", "top.safetensors"):
        await tus.tool("upload-lora", filename=name, content=b64(lora), metadata={"a": 1})
    await tus.tool("delete-lora", lora_name="a/b/c/x.safetensors")
    assert [path.name for path in (tus.folder / "a").iterdir() if "y" not in path.name] == []
    for name in ("a/y.safetensors", "linked/z.safetensors", "top.safetensors"):
        await tus.tool("delete-lora", lora_name=name)
    assert tus.names() == ["linked"]
    assert (tmp_path / "elsewhere").is_dir()
    long_name = "n" * 243 + ".safetensors"
    (tus.folder / long_name).write_bytes(lora)
    await tus.tool("delete-lora", lora_name=long_name)
    assert tus.names() == ["linked"]
