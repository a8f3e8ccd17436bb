"""LoRAs that come without a byte being moved: when that is done, when not, and that a training never reaches them."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aitk_mcp.trainers.unsharing import unshare
from comfy_mcp.imports.placing import place
from mcp_toolserver.errors import Conflict
from mcp_toolserver.files import etag_of
from mcp_toolserver.tools import Call
from mcp_toolserver.uploads.digests import DigestMismatch
from tests.servers.importing import (
    Pair,
    Serve,
    importing,
    in_one_task,
    lora_bytes,
    pair_of,
    save_model,
    sha256,
)

LORA = lora_bytes(200_000)


@pytest.fixture
async def pair(tmp_path: Path, serve: Serve) -> AsyncGenerator[Pair]:
    """Run both sides, with a trained model on one."""
    async with in_one_task(pair_of(tmp_path, serve)) as running:
        save_model(running.outputs, LORA)
        yield running


async def test_a_link_is_the_very_file_and_survives_its_source(pair: Pair) -> None:
    source, target = pair.outputs / "cat" / "cat.safetensors", pair.loras / "cat.safetensors"
    method = (await pair.bring())["method"]
    # Where the file system shares extents, they are two files.
    assert target.samefile(source) is (method == "link")
    save_model(pair.outputs, lora_bytes(200_000, seed=1))
    assert target.read_bytes() == LORA
    await pair.bring(filename="new.safetensors")
    await pair.call("delete-lora", lora_name="new.safetensors")
    assert source.exists()
    assert (await pair.bring(overwrite=True))["already_there"] is False
    assert target.read_bytes() == source.read_bytes() != LORA


def test_placing_wants_the_very_state(tmp_path: Path) -> None:
    source, part = tmp_path / "source", tmp_path / "part"
    source.write_bytes(b"one")
    etag = etag_of(source.stat())
    assert place(source, part, etag, link_safe=True) in ("link", "reflink")
    part.unlink()
    source.write_bytes(b"two")
    os.utime(source, ns=(1, 1))
    assert place(source, part, etag, link_safe=True) is None
    assert place(tmp_path / "absent", part, etag, link_safe=True) is None
    assert not part.exists()


def test_placing_follows_a_symbolic_link_to_the_file(tmp_path: Path) -> None:
    source, named, part = tmp_path / "source", tmp_path / "named", tmp_path / "part"
    source.write_bytes(b"one")
    named.symlink_to(source)
    assert place(named, part, etag_of(source.stat()), link_safe=True) in ("link", "reflink")
    assert not part.is_symlink()
    assert part.read_bytes() == b"one"


def test_what_is_not_safe_is_never_linked(tmp_path: Path) -> None:
    source, part = tmp_path / "source", tmp_path / "part"
    source.write_bytes(b"one")
    way = place(source, part, etag_of(source.stat()), link_safe=False)
    assert source.stat().st_nlink == 1
    assert part.exists() is (way == "reflink")


def test_another_file_system_is_no_way(tmp_path: Path) -> None:
    elsewhere = Path("/proc/self/status")
    assert place(elsewhere, tmp_path / "part", etag_of(elsewhere.stat()), link_safe=True) is None
    assert list(tmp_path.iterdir()) == []


class Changeable:
    """An aitk_mcp that allows a link at first, and has begun a training when it is asked again.

    `sha256` is what it tells of the file, be it true or not.
    """

    def __init__(self, path: Path, *answers: bool, sha256: str | None = None) -> None:
        self._path = path
        self._answers = list(answers)
        self._sha256 = sha256

    def app(self) -> Starlette:
        """Return the server."""
        return Starlette(
            routes=[Route("/mcp/version", self._version), Route("/mcp/tool", self._tool, methods=["POST"])]
        )

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"server": "aitk_mcp"})

    def _tool(self, request: Request) -> Response:
        state = self._path.stat()
        result = {
            "model_path": "cat/cat.safetensors",
            "filename": "cat.safetensors",
            "path": str(self._path),
            "size": state.st_size,
            "sha256": self._sha256 or sha256(self._path.read_bytes()),
            "etag": etag_of(state),
            "link_safe": self._answers.pop(0),
            "training_config": None,
        }
        return JSONResponse({"success": True, "tool": "download-model", "result": result})


@pytest.mark.parametrize("answers", [(False,), (True, False)])
async def test_where_a_training_may_write_the_file_is_copied(
    tmp_path: Path, serve: Serve, answers: tuple[bool, ...]
) -> None:
    source = save_model(tmp_path / "output", LORA)
    (tmp_path / "loras").mkdir()
    url = serve(Changeable(source, *answers).app())
    async with importing(tmp_path / "loras", url, tmp_path / "cache.sqlite") as tools:
        result = await tools.call("import-lora", {"model_path": "cat"}, Call())
    assert result["method"] in ("copy", "reflink")
    assert source.stat().st_nlink == 1
    source.write_bytes(bytes(len(LORA)))
    assert (tmp_path / "loras" / "cat.safetensors").read_bytes() == LORA


async def test_the_digest_of_a_link_is_a_word_until_it_is_compared(tmp_path: Path, serve: Serve) -> None:
    source = save_model(tmp_path / "output", LORA)
    (tmp_path / "loras").mkdir()
    url, wrong = serve(Changeable(source, *[True] * 4, sha256="ab" * 32).app()), "ab" * 32
    async with importing(tmp_path / "loras", url, tmp_path / "cache.sqlite") as tools:
        with pytest.raises(DigestMismatch) as caught:
            await tools.call("import-lora", {"model_path": "cat", "sha256": wrong}, Call())
        assert caught.value.details == {"expected_sha256": wrong, "actual_sha256": sha256(LORA)}
        assert [each.name for each in (tmp_path / "loras").rglob("*") if each.is_file()] == []
        told = await tools.call("import-lora", {"model_path": "cat"}, Call())
        assert (told["checksum_verified"], told["lora"]["sha256"]) == (False, None)
        assert (await tools.call("get-lora-info", {"lora_name": "cat.safetensors"}, Call()))["sha256"] == sha256(LORA)


async def test_a_link_is_compared_with_the_digest_that_the_caller_gives(pair: Pair) -> None:
    told = await pair.bring(method="link", sha256=sha256(LORA))
    assert (told["checksum_verified"], told["lora"]["sha256"]) == (True, sha256(LORA))
    assert told["received_bytes"] == len(LORA)


async def test_a_link_alone_is_refused_where_it_is_not_safe(tmp_path: Path, serve: Serve) -> None:
    source = save_model(tmp_path / "output", LORA)
    (tmp_path / "loras").mkdir()
    url = serve(Changeable(source, False).app())
    async with importing(tmp_path / "loras", url, tmp_path / "cache.sqlite") as tools:
        with pytest.raises(Conflict, match="cannot come by `link`") as caught:
            await tools.call("import-lora", {"model_path": "cat", "method": "link"}, Call())
    assert caught.value.details["field"] == "method"
    assert list((tmp_path / "loras").glob("*.safetensors")) == []


def test_unsharing_gives_a_training_its_own_files(tmp_path: Path) -> None:
    folder, imported = tmp_path / "job", tmp_path / "imported.safetensors"
    folder.mkdir()
    shared, own = folder / "a.safetensors", folder / "b.safetensors"
    shared.write_bytes(LORA)
    os.utime(shared, ns=(1_000_000_007, 1_000_000_007))
    own.write_bytes(b"own")
    imported.hardlink_to(shared)
    before = own.stat().st_ino
    assert unshare(folder) == [shared]
    assert (shared.stat().st_nlink, imported.stat().st_nlink, own.stat().st_ino) == (1, 1, before)
    assert shared.stat().st_mtime_ns == 1_000_000_007
    shared.write_bytes(b"trained on")
    assert imported.read_bytes() == LORA
    assert unshare(folder) == []
    assert unshare(tmp_path / "absent") == []
