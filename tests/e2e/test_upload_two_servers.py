"""Two server processes over one loras folder: callers of both, at one upload at once, get one right file."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import server_process
from tests.unit.lora_files.files import FLUX_AI_TOOLKIT, pairs, write

CHUNK = 64 * 1024
Answer = tuple[int, dict[str, Any]]


@pytest.fixture
async def both(tmp_path: Path) -> AsyncGenerator[list[httpx.AsyncClient]]:
    """Run two servers over one ComfyUI that does not run, each with two callers."""
    (tmp_path / "comfyui" / "models" / "loras").mkdir(parents=True)
    told = ("--comfyui-dir", str(tmp_path / "comfyui"), "--comfyui-api-url", "http://127.0.0.1:9")
    async with AsyncExitStack() as stack:
        with ExitStack() as processes:
            urls = [
                processes.enter_context(server_process("comfy_mcp", *told, "--data-dir", str(tmp_path / name)))[1]
                for name in ("first", "second")
            ]
            yield [await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30)) for url in urls * 2]


async def call(http: httpx.AsyncClient, tool: str, arguments: dict[str, Any]) -> Answer:
    """Call a tool; returns the status, and the result or the error."""
    answer = await http.post("/mcp/tool", json={"tool": f"upload-lora-chunked-{tool}", "arguments": arguments})
    told = answer.json()
    return answer.status_code, told["result"] if told["success"] else told["error"]


async def of_all(callers: list[httpx.AsyncClient], tool: str, arguments: dict[str, Any]) -> list[Answer]:
    """Let every caller ask the same at once."""
    return await asyncio.gather(*(call(http, tool, arguments) for http in callers))


async def test_every_step_of_one_upload_is_taken_by_all_at_once(both: list[httpx.AsyncClient], tmp_path: Path) -> None:
    data = write(tmp_path / "source.safetensors", pairs(FLUX_AI_TOOLKIT, rank=4)).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    upload_id = str(uuid4())
    start = {"upload_id": upload_id, "filename": "cat.safetensors", "total_size": len(data), "chunk_size": CHUNK}
    for status, started in await of_all(both, "start", start):
        assert (status, started["received_bytes"]) == (200, 0)
    status, other = await call(both[1], "start", {**start, "filename": "dog.safetensors"})
    assert (status, other["details"]["differing"]) == (409, ["filename"])
    for index in range(-(-len(data) // CHUNK)):
        chunk = base64.b64encode(data[index * CHUNK : (index + 1) * CHUNK]).decode()
        answers = await of_all(both, "append", {"upload_id": upload_id, "chunk": chunk, "chunk_index": index})
        assert {status for status, _ in answers} == {200}
        assert {each["received_bytes"] for _, each in answers} == {min(len(data), (index + 1) * CHUNK)}
    finished = await of_all(both, "finish", {"upload_id": upload_id, "sha256": digest})
    assert {status for status, _ in finished} == {200}
    assert {done["sha256"] for _, done in finished} == {digest}
    found = (tmp_path / "comfyui" / "models" / "loras").glob("*.safetensors")
    assert {path.name: path.read_bytes() for path in found} == {"cat.safetensors": data}
    for status, refused in await of_all(both, "abort", {"upload_id": upload_id}):
        assert (status, refused["details"]["status"]) == (409, "published")


@pytest.mark.parametrize("turn", range(2))
async def test_of_an_abort_and_a_finish_at_once_one_wins_and_is_believed_by_all(
    both: list[httpx.AsyncClient], tmp_path: Path, turn: int
) -> None:
    data = write(tmp_path / "source.safetensors", pairs(FLUX_AI_TOOLKIT, rank=1)).read_bytes()
    upload_id = {"upload_id": str(uuid4())}
    start = {**upload_id, "filename": "cat.safetensors", "total_size": len(data), "chunk_size": 4 * 1024 * 1024}
    await call(both[0], "start", start)
    await call(both[0], "append", {**upload_id, "chunk": base64.b64encode(data).decode(), "chunk_index": 0})
    steps = ("abort", "finish") if turn % 2 else ("finish", "abort")
    answers = dict(
        zip(steps, await asyncio.gather(*(call(both[n], step, upload_id) for n, step in enumerate(steps))), strict=True)
    )
    is_there = (tmp_path / "comfyui" / "models" / "loras" / "cat.safetensors").exists()
    assert (answers["finish"][0], answers["abort"][0]) == ((200, 409) if is_there else (404, 200))
    for status, _ in await of_all(both, "status", upload_id):
        assert status == (200 if is_there else 404)
