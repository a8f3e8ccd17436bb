"""A disk that fills up in the middle of an upload, by each way in: said by name, and what arrived stays."""

import base64
import hashlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from tests.fakes.disk_faults import largest_file
from tests.servers.aitk import settings_in
from tests.servers.lora_server import lora_server
from tests.servers.loras import flux

TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = 64 * 1024
QUOTA_BYTES = CHUNK + 10_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty loras folder."""
    loras = tmp_path / "loras"
    loras.mkdir()
    return loras


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    """Return the bytes of a LoRA."""
    return flux(tmp_path / "source.safetensors").read_bytes()


@pytest.fixture
async def http(folder: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[httpx.AsyncClient]:
    """Serve the folder."""
    url = serve(lora_server(folder, folder.parent / "cache.sqlite"))
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        yield http


async def tool(http: httpx.AsyncClient, name: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool; returns its result or its error."""
    answer = (await http.post("/mcp/tool", json={"tool": name, "arguments": arguments})).json()
    return answer["result"] if answer["success"] else answer["error"]


async def patched(http: httpx.AsyncClient, upload_id: str, offset: int, data: bytes, **more: str) -> httpx.Response:
    """Send bytes by tus."""
    headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset), **more}
    return await http.patch(f"/uploads/{upload_id}", headers=headers, content=data)


async def created(http: httpx.AsyncClient, filename: str, size: int) -> str:
    """Create an upload by tus; returns its id."""
    told = f"filename {base64.b64encode(filename.encode()).decode()}"
    answer = await http.post("/uploads", headers={**TUS, "Upload-Length": str(size), "Upload-Metadata": told})
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"].rpartition("/")[2]


def require_full(error: dict[str, Any]) -> None:
    """Check the refusal that every way in gives."""
    assert error["code"] == "insufficient_storage"
    assert "disk is full" in error["message"]
    assert "every byte that was acknowledged is still there" in error["hint"]


async def test_chunks(http: httpx.AsyncClient, folder: Path, data: bytes) -> None:
    start = {"upload_id": str(uuid4()), "filename": "a.safetensors", "total_size": len(data), "chunk_size": CHUNK}
    await tool(http, "upload-lora-chunked-start", **start)

    async def send(index: int) -> dict[str, Any]:
        chunk = base64.b64encode(data[index * CHUNK : (index + 1) * CHUNK]).decode()
        arguments = {"upload_id": start["upload_id"], "chunk": chunk, "chunk_index": index}
        return await tool(http, "upload-lora-chunked-append", **arguments)

    await send(0)
    with largest_file(QUOTA_BYTES):
        require_full(await send(1))
        status = await tool(http, "upload-lora-chunked-status", upload_id=start["upload_id"])
        assert status["received_bytes"] == QUOTA_BYTES, "what fitted counts"
    for index in range(1, -(-len(data) // CHUNK)):
        await send(index)
    digest = hashlib.sha256(data).hexdigest()
    await tool(http, "upload-lora-chunked-finish", upload_id=start["upload_id"], sha256=digest)
    assert (folder / "a.safetensors").read_bytes() == data


@pytest.mark.parametrize("is_checked", [False, True])
async def test_tus(http: httpx.AsyncClient, folder: Path, data: bytes, is_checked: bool) -> None:
    upload_id = await created(http, "a.safetensors", len(data))
    await patched(http, upload_id, 0, data[:CHUNK])
    checksum = f"sha256 {base64.b64encode(hashlib.sha256(data[CHUNK:]).digest()).decode()}"
    more = {"Upload-Checksum": checksum} if is_checked else {}
    with largest_file(QUOTA_BYTES):
        refused = await patched(http, upload_id, CHUNK, data[CHUNK:], **more)
        assert refused.status_code == 507
        require_full(refused.json()["error"])
        told = await http.head(f"/uploads/{upload_id}", headers=TUS)
        offset = int(told.headers["Upload-Offset"])
        assert offset == (CHUNK if is_checked else QUOTA_BYTES), "what fitted counts, unless nobody can check it"
    assert (await patched(http, upload_id, offset, data[offset:], **more)).status_code == 204
    assert (folder / "a.safetensors").read_bytes() == data


async def test_one_call(http: httpx.AsyncClient, folder: Path, data: bytes) -> None:
    arguments = {"filename": "a.safetensors", "content": base64.b64encode(data).decode()}
    with largest_file(QUOTA_BYTES):
        error = await tool(http, "upload-lora", **arguments)
        assert error["code"] == "insufficient_storage"
    assert (await tool(http, "list-uploads"))["uploads"] == [], "nobody could resume it"
    assert list(folder.glob("*.safetensors")) == []
    await tool(http, "upload-lora", **arguments)
    assert (folder / "a.safetensors").read_bytes() == data


async def test_zips(tmp_path: Path, serve: Callable[[ASGIApp], str]) -> None:
    data = b"PK\x03\x04" + bytes(3 * CHUNK)
    async with httpx.AsyncClient(base_url=serve(create_app(settings_in(tmp_path))), timeout=30) as http:
        upload_id = await created(http, "cats.zip", len(data))
        await patched(http, upload_id, 0, data[:CHUNK])
        with largest_file(QUOTA_BYTES):
            refused = await patched(http, upload_id, CHUNK, data[CHUNK:])
            assert refused.status_code == 507
            require_full(refused.json()["error"])
        assert (await patched(http, upload_id, QUOTA_BYTES, data[QUOTA_BYTES:])).status_code == 204
