"""Uploads over connections that are cut, slow, half closed or lose their answers; from many callers at once."""

import asyncio
import base64
import hashlib
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import anyio.lowlevel
import httpx
import pytest
from starlette.types import ASGIApp

from mcp_toolserver.uploads.limits import UploadLimits
from tests.fakes.rough_road import Break, RoughRoad, rough_road_to
from tests.servers.lora_server import lora_server
from tests.servers.loras import TINY, flux
from tests.unit.lora_files.files import pairs, write

CHUNK = 64 * 1024
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty loras folder."""
    loras = tmp_path / "loras"
    loras.mkdir()
    return loras


@pytest.fixture
def url(folder: Path, serve: Callable[[ASGIApp], str]) -> str:
    """Serve the folder."""
    return serve(lora_server(folder, folder.parent / "cache.sqlite"))


@pytest.fixture
async def road(url: str) -> AsyncGenerator[RoughRoad]:
    """Build a road to the server."""
    async with rough_road_to(url) as road:
        yield road


async def tool(http: httpx.AsyncClient, url: str, name: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must succeed."""
    answer = await http.post(f"{url}/mcp/tool", json={"tool": name, "arguments": arguments})
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


async def send_once(http: httpx.AsyncClient, url: str, way: str, upload_id: str, data: bytes, received: int) -> None:
    """Send the rest, or the next chunk, on whatever road; errors of the road are for the caller."""
    if way == "tus":
        headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(received)}
        answer = await http.patch(f"{url}/uploads/{upload_id}", headers=headers, content=data[received:])
        # A server may not have noticed yet that the connection before was cut: it refuses what overlaps.
        assert answer.status_code in (204, 400, 409)
    else:
        index = received // CHUNK
        chunk = base64.b64encode(data[index * CHUNK : (index + 1) * CHUNK]).decode()
        arguments = {"upload_id": upload_id, "chunk": chunk, "chunk_index": index}
        body = {"tool": "upload-lora-chunked-append", "arguments": arguments}
        answer = await http.post(f"{url}/mcp/tool", json=body)
        assert answer.status_code in (200, 400, 422)


@pytest.mark.parametrize("way", ["tus", "chunks"])
@pytest.mark.parametrize("how", ["cut", "half-close", "lose-answer"])
async def test_an_upload_gets_through_whatever_breaks(
    url: str, road: RoughRoad, folder: Path, tmp_path: Path, way: str, how: Break
) -> None:
    data = flux(tmp_path / "source.safetensors").read_bytes()
    chance = random.Random(f"{way} {how}")
    upload_id = str(uuid4())
    start = {"upload_id": upload_id, "filename": "cat.safetensors", "total_size": len(data), "chunk_size": CHUNK}
    road.how = how
    async with httpx.AsyncClient(timeout=30) as http:
        started = await tool(http, url, "upload-lora-chunked-start", **start)
        received, attempts = started["received_bytes"], 0
        while received < len(data):
            attempts += 1
            assert attempts < 200
            road.breaks_after = chance.randint(1, len(data) // 3)
            with suppress(httpx.TransportError):
                async with httpx.AsyncClient(timeout=30) as lost:
                    await send_once(lost, road.url, way, upload_id, data, received)
            status = await tool(http, url, "upload-lora-chunked-status", upload_id=upload_id)
            assert status["received_bytes"] >= received
            received = status["received_bytes"]
        digest = hashlib.sha256(data).hexdigest()
        await tool(http, url, "upload-lora-chunked-finish", upload_id=upload_id, sha256=digest)
    assert (folder / "cat.safetensors").read_bytes() == data


@pytest.mark.parametrize("way", ["tus", "chunks"])
async def test_an_upload_gets_through_a_few_bytes_at_a_time(
    url: str, road: RoughRoad, folder: Path, tmp_path: Path, way: str
) -> None:
    data = write(tmp_path / "source.safetensors", pairs(TINY, rank=16)).read_bytes()
    upload_id = str(uuid4())
    start = {"upload_id": upload_id, "filename": "cat.safetensors", "total_size": len(data), "chunk_size": CHUNK}
    road.piece_bytes = 13
    async with httpx.AsyncClient(timeout=60) as http:
        await tool(http, url, "upload-lora-chunked-start", **start)
        await send_once(http, road.url, way, upload_id, data, 0)
        await tool(http, url, "upload-lora-chunked-finish", upload_id=upload_id)
    assert (folder / "cat.safetensors").read_bytes() == data


@pytest.mark.parametrize("way", ["tus", "chunks"])
async def test_what_is_overtaken_on_its_road_changes_nothing(
    url: str, road: RoughRoad, folder: Path, tmp_path: Path, way: str
) -> None:
    data = write(tmp_path / "source.safetensors", pairs(TINY, rank=512)).read_bytes()
    assert len(data) > 2 * CHUNK
    upload_id = str(uuid4())
    start = {"upload_id": upload_id, "filename": "cat.safetensors", "total_size": len(data), "chunk_size": CHUNK}

    async def delayed(position: int) -> None:
        async with httpx.AsyncClient(timeout=30) as late:
            await send_once(late, road.url, way, upload_id, data[: position + CHUNK], position)

    async def overtaking(http: httpx.AsyncClient, gate: asyncio.Event) -> None:
        while len(road.connections) < 2:
            await anyio.lowlevel.checkpoint()
        road.gate = None
        for position in range(0, len(data), CHUNK):
            await send_once(http, road.url, way, upload_id, data[: position + CHUNK], position)
        gate.set()

    async with httpx.AsyncClient(timeout=30) as http:
        await tool(http, url, "upload-lora-chunked-start", **start)
        road.gate = gate = asyncio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(delayed, 0)
            tasks.start_soon(delayed, CHUNK)
            tasks.start_soon(overtaking, http, gate)
        digest = hashlib.sha256(data).hexdigest()
        await tool(http, url, "upload-lora-chunked-finish", upload_id=upload_id, sha256=digest)
    assert (folder / "cat.safetensors").read_bytes() == data


async def test_chunks_that_overtake_each_other_are_told_which_is_the_next(url: str, tmp_path: Path) -> None:
    data = write(tmp_path / "source.safetensors", pairs(TINY, rank=512)).read_bytes()
    upload_id = str(uuid4())
    start = {"upload_id": upload_id, "filename": "cat.safetensors", "total_size": len(data), "chunk_size": CHUNK}
    async with httpx.AsyncClient(timeout=30) as http:
        await tool(http, url, "upload-lora-chunked-start", **start)
        for index, expected in ((1, 0), (0, None), (2, 1), (1, None), (0, None)):
            chunk = base64.b64encode(data[index * CHUNK : (index + 1) * CHUNK]).decode()
            arguments = {"upload_id": upload_id, "chunk": chunk, "chunk_index": index}
            body = {"tool": "upload-lora-chunked-append", "arguments": arguments}
            told = (await http.post(f"{url}/mcp/tool", json=body)).json()
            assert told["success"] == (expected is None)
            assert expected is None or told["error"]["details"]["expected_chunk_index"] == expected


async def test_starts_past_the_limit_are_refused_by_both_doors_until_one_is_dropped(url: str) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        start = {"filename": "a.safetensors", "total_size": 100}
        ids = [
            (await tool(http, url, "upload-lora-chunked-start", **start))["upload_id"]
            for _ in range(UploadLimits().most_open_of_one_caller)
        ]
        by_tool = await http.post(f"{url}/mcp/tool", json={"tool": "upload-lora-chunked-start", "arguments": start})
        told = {"Upload-Length": "100", "Upload-Metadata": f"filename {base64.b64encode(b'a.safetensors').decode()}"}
        by_tus = await http.post(f"{url}/uploads", headers={**TUS, **told})
        for refused in (by_tool, by_tus):
            assert refused.status_code == 429
            error = refused.json()["error"]
            assert (error["code"], error["retryable"], error["details"]["limit"]) == ("rate_limited", True, 200)
            assert "abort some of them" in error["hint"]
        await tool(http, url, "upload-lora-chunked-abort", upload_id=ids[0])
        assert (await http.post(f"{url}/uploads", headers={**TUS, **told})).status_code == 201


async def test_sixty_four_uploads_at_once_by_every_way_with_digests_over_two_servers(
    url: str, folder: Path, tmp_path: Path, serve: Callable[[ASGIApp], str]
) -> None:
    data = write(tmp_path / "source.safetensors", pairs(TINY, rank=32)).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    other_url = serve(lora_server(folder, tmp_path / "other.sqlite"))

    async def by_tus(http: httpx.AsyncClient, name: str) -> None:
        told = ",".join(
            f"{key} {base64.b64encode(value.encode()).decode()}"
            for key, value in {"filename": name, "sha256": digest}.items()
        )
        headers = {**TUS, "Upload-Length": str(len(data)), "Upload-Metadata": told}
        created = await http.post(f"{url}/uploads", headers=headers)
        assert created.status_code == 201, created.text
        upload_id = created.headers["Location"].rpartition("/")[2]
        half = len(data) // 2
        await send_once(http, url, "tus", upload_id, data[:half], 0)
        await send_once(http, other_url, "tus", upload_id, data, half)

    async def by_chunks(http: httpx.AsyncClient, name: str) -> None:
        upload_id = str(uuid4())
        start = {"upload_id": upload_id, "filename": name, "total_size": len(data), "chunk_size": CHUNK}
        await tool(http, url, "upload-lora-chunked-start", **start)
        for position in range(0, len(data), CHUNK):
            where = url if position % (2 * CHUNK) else other_url
            await send_once(http, where, "chunks", upload_id, data, position)
        done = await tool(http, other_url, "upload-lora-chunked-finish", upload_id=upload_id, sha256=digest)
        assert done["checksum_verified"]

    async def whole(http: httpx.AsyncClient, name: str) -> None:
        content = base64.b64encode(data).decode()
        done = await tool(http, url, "upload-lora", filename=name, content=content, sha256=digest)
        assert done["checksum_verified"]

    ways = (by_tus, by_chunks, whole)
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=64)) as http:
        async with anyio.create_task_group() as tasks:
            for number in range(64):
                tasks.start_soon(ways[number % len(ways)], http, f"cat{number}.safetensors")
        listed = await tool(http, url, "list-loras")
    assert listed["total"] == 64
    assert {path.read_bytes() for path in folder.glob("*.safetensors")} == {data}
