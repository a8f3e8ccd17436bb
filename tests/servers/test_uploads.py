"""The upload tools as a script calls them: over REST, into a real loras folder."""

import base64
import hashlib
import json
import math
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.types import ASGIApp

from comfy_mcp.loras.uploads import LoraUploads
from comfy_mcp.tools.uploads import upload_tools
from mcp_toolserver.app import BackendState, ServerIdentity, ToolServer, create_server_app
from mcp_toolserver.auth import DoorPolicy
from mcp_toolserver.errors import Forbidden
from mcp_toolserver.tools import Call, Toolbox
from mcp_toolserver.uploads.metadata import MAX_METADATA_BYTES
from tests.servers.loras import flux, library_over, toolbox

CHUNK = 64 * 1024


async def backend() -> BackendState:
    """Have no engine: uploading needs none."""
    return BackendState(state="ok", engine="none")


class Rest:
    """The upload and LoRA tools of a server over one loras folder."""

    def __init__(self, url: str, folder: Path, client: httpx.AsyncClient) -> None:
        self.url = url
        self.folder = folder
        self._client = client

    async def post(self, tool: str, arguments: dict[str, Any]) -> httpx.Response:
        return await self._client.post(f"{self.url}/mcp/tool", json={"tool": tool, "arguments": arguments})

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = await self.post(tool, arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    async def refusal(self, status: int, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = await self.post(tool, arguments)
        assert answer.status_code == status, answer.text
        return answer.json()["error"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty loras folder."""
    loras = tmp_path / "models" / "loras"
    loras.mkdir(parents=True)
    return loras


@pytest.fixture
def lora(tmp_path: Path) -> bytes:
    """Return the bytes of a LoRA of several chunks."""
    return flux(tmp_path / "trained.safetensors").read_bytes()


@pytest.fixture
async def rest(folder: Path, tmp_path: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[Rest]:
    """Serve the tools over the folder."""
    library = library_over([folder], tmp_path / "cache.sqlite")
    tools = [*toolbox(library).tools, *upload_tools(LoraUploads(library))]
    identity = ServerIdentity(name="comfy_mcp", title="Test", version="0", instructions="")
    server = ToolServer(identity=identity, toolbox=Toolbox(tools), backend=backend)
    async with httpx.AsyncClient() as client:
        yield Rest(serve(create_server_app(server, DoorPolicy())), folder, client)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pieces(data: bytes, size: int = CHUNK) -> list[str]:
    return [b64(data[start : start + size]) for start in range(0, len(data), size)]


async def sent(rest: Rest, data: bytes, **given: Any) -> str:
    """Start an upload and send every chunk of it."""
    arguments = {"filename": "cat.safetensors", "total_size": len(data), "chunk_size": CHUNK, **given}
    started = await rest.call("upload-lora-chunked-start", **arguments)
    for index, chunk in enumerate(pieces(data)):
        await rest.call("upload-lora-chunked-append", upload_id=started["upload_id"], chunk=chunk, chunk_index=index)
    return started["upload_id"]


async def test_a_lora_arrives_in_chunks(rest: Rest, lora: bytes) -> None:
    upload_id = str(uuid4())
    started = await rest.call(
        "upload-lora-chunked-start",
        upload_id=upload_id,
        filename="cats/cat.safetensors",
        total_size=len(lora),
        chunk_size=CHUNK,
        metadata={"trained_on": "2026-01-01"},
    )
    total_chunks = math.ceil(len(lora) / CHUNK)
    assert total_chunks > 2
    started_at = started.pop("started")
    assert started == {
        "upload_id": upload_id,
        "filename": "cats/cat.safetensors",
        "status": "receiving",
        "total_size": len(lora),
        "chunk_size": CHUNK,
        "total_chunks": total_chunks,
        "received_bytes": 0,
        "next_chunk_index": 0,
    }
    for index, chunk in enumerate(pieces(lora)):
        received = await rest.call("upload-lora-chunked-append", upload_id=upload_id, chunk=chunk, chunk_index=index)
        assert received == {
            "received_bytes": min(len(lora), (index + 1) * CHUNK),
            "next_chunk_index": index + 1,
            "complete": index + 1 == total_chunks,
        }
        assert [path for path in rest.folder.rglob("*.safetensors") if path.is_file()] == []
    status = await rest.call("upload-lora-chunked-status", upload_id=upload_id)
    assert (status["status"], status["started"]) == ("complete", started_at)
    digest = hashlib.sha256(lora).hexdigest()
    done = await rest.call("upload-lora-chunked-finish", upload_id=upload_id, sha256=digest.upper())
    assert (done["sha256"], done["checksum_verified"]) == (digest, True)
    assert (rest.folder / "cats/cat.safetensors").read_bytes() == lora
    info = await rest.call("get-lora-info", lora_name="cats/cat.safetensors", include_hashes=False)
    assert done["lora"] == info
    assert (info["sha256"], info["architecture"]) == (digest, "flux")
    assert info["supplied_metadata"] == {"trained_on": "2026-01-01"}
    listed = await rest.call("list-loras")
    assert [each["name"] for each in listed["loras"]] == ["cats/cat.safetensors"]
    uploads = (await rest.call("list-uploads"))["uploads"]
    assert [(each["upload_id"], each["status"]) for each in uploads] == [(upload_id, "published")]
    again = await rest.call("upload-lora-chunked-finish", upload_id=upload_id)
    assert {**again, "lora": None} == {**done, "lora": None}


async def test_the_start_chooses_what_the_caller_leaves_out(rest: Rest) -> None:
    started = await rest.call("upload-lora-chunked-start", filename="cat.safetensors", total_size=600_000)
    assert (started["chunk_size"], started["total_chunks"]) == (262_144, 3)
    assert len(started["upload_id"]) == 36


async def test_an_interrupted_upload_goes_on_where_it_was(rest: Rest, lora: bytes) -> None:
    start = {"upload_id": str(uuid4()), "filename": "cat.safetensors", "total_size": len(lora), "chunk_size": CHUNK}
    await rest.call("upload-lora-chunked-start", **start)
    chunks = pieces(lora)
    append = {"upload_id": start["upload_id"]}
    for index in (0, 1):
        await rest.call("upload-lora-chunked-append", **append, chunk=chunks[index], chunk_index=index)
    resumed = await rest.call("upload-lora-chunked-start", **start)
    assert (resumed["received_bytes"], resumed["next_chunk_index"]) == (2 * CHUNK, 2)
    repeated = await rest.call("upload-lora-chunked-append", **append, chunk=chunks[1], chunk_index=1)
    assert repeated["next_chunk_index"] == 2
    gap = await rest.refusal(409, "upload-lora-chunked-append", **append, chunk=chunks[3], chunk_index=3)
    assert (gap["code"], gap["details"]["expected_chunk_index"]) == ("conflict", 2)
    other = await rest.refusal(409, "upload-lora-chunked-append", **append, chunk=chunks[0], chunk_index=1)
    assert other["details"]["expected_chunk_index"] == 2
    early = await rest.refusal(409, "upload-lora-chunked-finish", **append)
    assert early["details"]["missing_bytes"] == len(lora) - 2 * CHUNK
    assert early["details"]["next_chunk_index"] == 2
    conflict = await rest.refusal(409, "upload-lora-chunked-start", **{**start, "total_size": len(lora) + 1})
    assert "total_size" in conflict["message"]


async def test_a_name_that_is_taken_is_refused_before_a_byte_was_sent(rest: Rest, lora: bytes) -> None:
    (rest.folder / "cat.safetensors").write_bytes(b"another")
    start = {"filename": "cat.safetensors", "total_size": len(lora), "chunk_size": CHUNK}
    refused = await rest.refusal(409, "upload-lora-chunked-start", **start)
    assert "overwrite: true" in refused["hint"]
    upload_id = await sent(rest, lora, overwrite=True)
    await rest.call("upload-lora-chunked-finish", upload_id=upload_id)
    assert (rest.folder / "cat.safetensors").read_bytes() == lora


async def test_of_two_uploads_of_one_name_the_second_is_refused_unless_it_is_the_same(rest: Rest, lora: bytes) -> None:
    other = lora[:-2] + bytes(byte ^ 1 for byte in lora[-2:])
    first, second, third = await sent(rest, lora), await sent(rest, other), await sent(rest, lora)
    await rest.call("upload-lora-chunked-finish", upload_id=first)
    refused = await rest.refusal(409, "upload-lora-chunked-finish", upload_id=second)
    assert refused["code"] == "conflict"
    assert (await rest.call("upload-lora-chunked-status", upload_id=second))["status"] == "complete"
    same = await rest.call("upload-lora-chunked-finish", upload_id=third)
    assert same["lora"]["sha256"] == hashlib.sha256(lora).hexdigest()


async def test_a_wrong_digest_installs_nothing(rest: Rest, lora: bytes) -> None:
    upload_id = await sent(rest, lora)
    refused = await rest.refusal(409, "upload-lora-chunked-finish", upload_id=upload_id, sha256="0" * 64)
    assert refused["details"]["actual_sha256"] == hashlib.sha256(lora).hexdigest()
    assert list(rest.folder.glob("*.safetensors")) == []


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>", b"PK\x03\x04" + bytes(60), b"\x80\x02}q\x00."])
async def test_what_is_no_safetensors_file_is_refused_by_every_way(rest: Rest, content: bytes) -> None:
    whole = await rest.refusal(422, "upload-lora", filename="cat.safetensors", content=b64(content))
    assert "no usable safetensors file" in whole["message"]
    started = await rest.call("upload-lora-chunked-start", filename="cat.safetensors", total_size=10_000)
    opening = {"chunk": b64(content + bytes(10_000 - len(content))), "chunk_index": 0}
    refused = await rest.refusal(422, "upload-lora-chunked-append", upload_id=started["upload_id"], **opening)
    assert "no usable safetensors file" in refused["message"]
    status = await rest.call("upload-lora-chunked-status", upload_id=started["upload_id"])
    assert status["received_bytes"] == 0
    assert list(rest.folder.glob("*.safetensors")) == []


async def test_a_broken_file_that_begins_well_is_refused_at_the_finish(rest: Rest, lora: bytes) -> None:
    upload_id = await sent(rest, lora[:-1])
    refused = await rest.refusal(422, "upload-lora-chunked-finish", upload_id=upload_id)
    assert "cut short" in refused["message"]
    assert list(rest.folder.glob("*.safetensors")) == []


async def test_an_aborted_upload_is_gone(rest: Rest, lora: bytes) -> None:
    upload_id = await sent(rest, lora)
    aborted = await rest.call("upload-lora-chunked-abort", upload_id=upload_id)
    assert aborted == {"upload_id": upload_id, "filename": "cat.safetensors", "dropped_bytes": len(lora)}
    assert (await rest.call("list-uploads"))["uploads"] == []
    for tool in ("status", "abort", "finish"):
        error = await rest.refusal(404, f"upload-lora-chunked-{tool}", upload_id=upload_id)
        assert error["code"] == "not_found"


@pytest.mark.parametrize("field", ["content", "data"])
async def test_a_small_lora_arrives_in_one_call(rest: Rest, lora: bytes, field: str) -> None:
    digest = hashlib.sha256(lora).hexdigest()
    done = await rest.call(
        "upload-lora", filename="cat.safetensors", sha256=digest, metadata={"a": 1}, **{field: b64(lora)}
    )
    assert (done["checksum_verified"], done["lora"]["sha256"]) == (True, digest)
    assert done["lora"]["supplied_metadata"] == {"a": 1}
    assert (rest.folder / "cat.safetensors").read_bytes() == lora
    await rest.refusal(409, "upload-lora", filename="cat.safetensors", content=b64(lora[:-1]))
    await rest.call("upload-lora", filename="cat.safetensors", content=b64(lora), overwrite=True)
    assert (await rest.call("list-uploads"))["uploads"] == []


CLASSIC = [
    ("upload-lora-chunked-start", {"filename": "a.safetensors", "total_chunks": 450}, "total_size"),
    ("upload-lora-chunked-append", {"upload_id": "x", "chunk_data": "", "chunk_index": 0}, "the argument is `chunk`"),
    ("upload-lora-chunked-append", {"upload_id": "x", "chunk": "", "index": 0}, "`chunk_index`"),
    ("upload-lora", {"filename": "a.safetensors", "contents": ""}, "did you mean `content`?"),
    ("upload-lora-chunked-finish", {"upload_id": "x", "checksum": ""}, "the argument is `sha256`"),
]


@pytest.mark.parametrize(("tool", "arguments", "cure"), CLASSIC)
async def test_a_classic_mistake_is_answered_with_its_cure(
    rest: Rest, tool: str, arguments: dict[str, Any], cure: str
) -> None:
    error = await rest.refusal(422, tool, **arguments)
    assert cure in error["message"]


BAD_STARTS: list[dict[str, Any]] = [
    {"total_size": 0},
    {"total_size": -1},
    {"total_size": 2**63},
    {"chunk_size": 0},
    {"chunk_size": 4 * 1024 * 1024 + 1},
    {"filename": "../cat.safetensors"},
    {"filename": "/etc/cat.safetensors"},
    {"filename": "cat.ckpt"},
    {"filename": "cat"},
    {"filename": ".uploads/cat.safetensors"},
    {"upload_id": "not-a-uuid"},
    {"sha256": "abc"},
    {"metadata": {"long": "x" * MAX_METADATA_BYTES}},
    {"metadata": json.loads('{"a":' * 250 + "1" + "}" * 250)},
    {"metadata": json.loads('{"a":[' * 16 + "{}" + "]}" * 16)},
]


@pytest.mark.parametrize("bad", BAD_STARTS, ids=lambda bad: json.dumps(bad)[:40])
async def test_a_start_that_cannot_be_is_refused_by_name(rest: Rest, bad: dict[str, Any]) -> None:
    good = {"filename": "cat.safetensors", "total_size": 1000}
    error = await rest.refusal(422, "upload-lora-chunked-start", **{**good, **bad})
    assert next(iter(bad)) in error["message"]
    assert not (rest.folder / ".uploads").exists()


async def test_a_file_larger_than_the_disk_is_refused_at_the_start(rest: Rest) -> None:
    error = await rest.refusal(507, "upload-lora-chunked-start", filename="cat.safetensors", total_size=2**52)
    assert error["code"] == "insufficient_storage"
    assert error["details"]["needed_bytes"] == 2**52


async def test_finishing_reports_how_far_the_digest_is(folder: Path, lora: bytes) -> None:
    library = library_over([folder])
    box = Toolbox(upload_tools(LoraUploads(library)))
    heard: list[tuple[float, float | None]] = []

    async def report(done: float, /, total: float | None = None, message: str | None = None) -> None:
        heard.append((done, total))

    call = Call(report=report)
    await box.call("upload-lora", {"filename": "cat.safetensors", "content": b64(lora)}, call)
    assert heard[-1] == (len(lora), len(lora))


async def test_no_folder_to_write_to_is_said(tmp_path: Path) -> None:
    box = Toolbox(upload_tools(LoraUploads(library_over([]))))
    with pytest.raises(Forbidden, match="no access to ComfyUI's loras folder"):
        await box.call("upload-lora-chunked-start", {"filename": "a.safetensors", "total_size": 5}, Call())
