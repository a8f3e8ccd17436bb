"""The library of LoRAs: what it takes in, replaces, deletes and remembers."""

import hashlib
import os
from pathlib import Path

import pytest

from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.models.folders import Place
from mcp_toolserver.errors import BackendUnavailable, Conflict, InvalidArguments, ToolError
from tests.servers.loras import SD15, TINY, call, flux, library_over
from tests.unit.lora_files.files import KOHYA, pairs, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty loras folder."""
    loras = tmp_path / "comfyui" / "models" / "loras"
    loras.mkdir(parents=True)
    return loras


@pytest.fixture
def library(folder: Path, tmp_path: Path) -> LoraLibrary:
    """Return a library over the folder, with a cache."""
    return library_over([folder], tmp_path / "loras.sqlite")


async def test_installs_a_checked_file_whole(library: LoraLibrary, folder: Path, tmp_path: Path) -> None:
    content = flux(tmp_path / "data.part").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    metadata = {"trained_on": "2026-01-01", "trigger_words": ["zwx"]}
    info = await library.install(tmp_path / "data.part", "new/cat.safetensors", metadata=metadata, sha256=digest)
    assert (info.name, info.trigger_words, info.supplied) == ("new/cat.safetensors", ["zwx"], metadata)
    assert (folder / "new" / "cat.safetensors").read_bytes() == content
    assert not (tmp_path / "data.part").exists()
    answer = await call(library, "get-lora-info", lora_name="new/cat.safetensors")
    assert (answer["sha256"], answer["supplied_metadata"]) == (digest, metadata)
    assert [lora["name"] for lora in (await call(library, "list-loras"))["loras"]] == ["new/cat.safetensors"]


async def test_replaces_only_when_asked_and_tells_comfyui(folder: Path, tmp_path: Path) -> None:
    told: list[str] = []

    async def places() -> Place:
        return Place((folder,))

    async def replaced(name: str) -> None:
        told.append(name)
        if len(told) > 1:
            raise BackendUnavailable("ComfyUI does not answer.")

    library = LoraLibrary(places, replaced=replaced)
    write(tmp_path / "1.part", pairs(TINY), {"first": "1"})
    await library.install(tmp_path / "1.part", "a.safetensors", metadata={"note": "first"})
    second = write(tmp_path / "2.part", pairs(TINY), {"second": "2"})
    with pytest.raises(Conflict) as caught:
        await library.install(second, "a.safetensors")
    assert "overwrite: true" in (caught.value.hint or "")
    with pytest.raises(Conflict):
        await library.accept("a.safetensors", overwrite=False)
    assert second.exists()
    assert told == []

    info = await library.install(second, "a.safetensors", overwrite=True)
    assert told == ["a.safetensors"]
    assert info.description is not None
    assert (info.description.metadata, info.supplied, info.notices) == ({"second": "2"}, {}, ())
    third = write(tmp_path / "3.part", pairs(TINY), {"third": "3"})
    info = await library.install(third, "a.safetensors", overwrite=True)
    assert "old weights" in info.notices[0]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../a.safetensors", "dot"),
        ("/etc/a.safetensors", "absolute"),
        ("a.ckpt", "run code"),
        ("a", "ends in .safetensors"),
        ("a.sft", "ends in .safetensors"),
        ("a.safetensors.part", "ends in .safetensors"),
        (".uploads/a.safetensors", "dot"),
        ("con.safetensors", "Windows"),
    ],
)
async def test_refuses_names_that_no_lora_should_have(
    name: str, problem: str, library: LoraLibrary, folder: Path, tmp_path: Path
) -> None:
    part = flux(tmp_path / "data.part")
    for refused in (library.accept(name, overwrite=False), library.install(part, name)):
        with pytest.raises(InvalidArguments, match=problem):
            await refused
    assert part.exists()
    assert list(folder.iterdir()) == []


async def test_refuses_what_is_no_safetensors(library: LoraLibrary, folder: Path, tmp_path: Path) -> None:
    part = tmp_path / "data.part"
    for content, reason in (
        (b"<html>", "html"),
        (b"", "empty"),
        (b"PK\x03\x04", "zip"),
        (b"\xff" * 100, "header_too_large"),
    ):
        part.write_bytes(content)
        with pytest.raises(InvalidArguments) as caught:
            await library.install(part, "a.safetensors")
        assert caught.value.details["reason"] == reason
    assert list(folder.iterdir()) == []


async def test_deletes_a_lora_with_what_was_supplied(library: LoraLibrary, folder: Path, tmp_path: Path) -> None:
    flux(tmp_path / "data.part")
    info = await library.install(tmp_path / "data.part", "a.safetensors", metadata={"note": "x"})
    assert await call(library, "delete-lora", lora_name="a.safetensors") == {
        "name": "a.safetensors",
        "freed_bytes": info.size_bytes,
    }
    assert list(folder.iterdir()) == []
    assert (await call(library, "list-loras"))["loras"] == []


async def test_remembers_descriptions_until_a_file_changes(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "data" / "loras.sqlite"
    path = flux(folder / "a.safetensors")
    first = await call(library_over([folder], cache), "get-lora-info", lora_name="a.safetensors")
    state = path.stat()
    # Other bytes behind the same size and time: whoever still answers right has not read them.
    path.write_bytes(bytes(state.st_size))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert await call(library_over([folder], cache), "get-lora-info", lora_name="a.safetensors") == first
    assert (await call(library_over([folder], cache), "list-loras"))["loras"][0]["rank"] == 16
    path.write_bytes(bytes(state.st_size + 1))
    changed = await call(library_over([folder], cache), "get-lora-info", lora_name="a.safetensors")
    assert changed["architecture"] == "unknown"


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b""])
async def test_a_damaged_cache_costs_nothing_but_time(damage: bytes, folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "loras.sqlite"
    cache.write_bytes(damage)
    flux(folder / "a.safetensors")
    for _ in range(2):
        assert (await call(library_over([folder], cache), "list-loras"))["loras"][0]["rank"] == 16


async def test_joins_several_folders_and_names_a_missing_one(folder: Path, tmp_path: Path) -> None:
    second = tmp_path / "output" / "loras"
    flux(second / "only_here.safetensors")
    flux(second / "both.safetensors")
    write(folder / "both.safetensors", pairs(SD15, suffixes=KOHYA))
    library = library_over([folder, second])
    loras = (await call(library, "list-loras"))["loras"]
    assert [(lora["name"], lora["architecture"]) for lora in loras] == [
        ("both.safetensors", "sd15"),
        ("only_here.safetensors", "flux"),
    ]
    for folders, code in (((), "forbidden"), ([tmp_path / "nowhere"], "not_found")):
        with pytest.raises(ToolError) as caught:
            await call(library_over(folders), "list-loras")
        assert (caught.value.code, caught.value.details["setting"]) == (code, "COMFYUI_DIR")
