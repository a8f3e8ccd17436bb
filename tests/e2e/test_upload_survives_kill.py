"""A server that is killed in the middle of an upload loses no byte that it acknowledged, and shows no partial file."""

import base64
import hashlib
import json
import random
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from mcp_toolserver.client import ToolClient
from tests.conftest import server_process
from tests.unit.lora_files.files import FLUX_AI_TOOLKIT, pairs, write

CHUNK = 16 * 1024
LORA = "cat.safetensors"


@contextmanager
def comfy(data_dir: Path) -> Generator[tuple[int, str]]:
    """Run comfy_mcp on its embedded engine; kills it at the end, at whatever it does."""
    with server_process("comfy_mcp", "--backend", "embedded", "--data-dir", str(data_dir)) as (process, url):
        yield process.pid, url
        process.kill()


def send_and_leave(url: str, tool: str, arguments: dict[str, object], share: float) -> None:
    """Send this share of a request's bytes, and wait for no answer."""
    body = json.dumps({"tool": tool, "arguments": arguments}).encode()
    head = f"POST /mcp/tool HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    request = head + body
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as connection:
        connection.sendall(request[: int(len(request) * share)])


@pytest.mark.parametrize("deaths", [4, pytest.param(60, marks=pytest.mark.long)])
async def test_an_upload_goes_on_after_every_kill(tmp_path: Path, deaths: int) -> None:
    chance = random.Random(deaths)
    data = write(tmp_path / "source.safetensors", pairs(FLUX_AI_TOOLKIT, rank=12)).read_bytes()
    total_chunks = -(-len(data) // CHUNK)
    assert total_chunks > 2 * deaths or deaths > 10
    start = {
        "upload_id": str(uuid4()),
        "filename": LORA,
        "total_size": len(data),
        "chunk_size": CHUNK,
        "sha256": hashlib.sha256(data).hexdigest(),
    }

    def append(index: int) -> dict[str, object]:
        chunk = base64.b64encode(data[index * CHUNK : (index + 1) * CHUNK]).decode()
        return {"upload_id": start["upload_id"], "chunk": chunk, "chunk_index": index}

    loras = tmp_path / "comfy" / "comfyui" / "models" / "loras"
    acknowledged = 0
    for _ in range(deaths):
        with comfy(tmp_path / "comfy") as (_, url):
            async with ToolClient(url) as client:
                resumed = await client.call("upload-lora-chunked-start", start)
                assert resumed["next_chunk_index"] >= acknowledged
                acknowledged = resumed["next_chunk_index"]
                for index in range(acknowledged, min(total_chunks, acknowledged + chance.randint(0, 2))):
                    acknowledged = (await client.call("upload-lora-chunked-append", append(index)))["next_chunk_index"]
                if acknowledged < total_chunks:
                    share = chance.choice([0.5, 1.0, 1.0])
                    send_and_leave(url, "upload-lora-chunked-append", append(acknowledged), share)
        assert not (loras / LORA).exists()

    with comfy(tmp_path / "comfy") as (_, url):
        async with ToolClient(url) as client:
            resumed = await client.call("upload-lora-chunked-start", start)
            assert resumed["next_chunk_index"] >= acknowledged
            for index in range(resumed["next_chunk_index"], total_chunks):
                await client.call("upload-lora-chunked-append", append(index))
            send_and_leave(url, "upload-lora-chunked-finish", {"upload_id": start["upload_id"]}, 1.0)
    assert not (loras / LORA).exists() or (loras / LORA).read_bytes() == data

    with comfy(tmp_path / "comfy") as (_, url):
        async with ToolClient(url) as client:
            done = await client.call("upload-lora-chunked-finish", {"upload_id": start["upload_id"]})
            assert (done["checksum_verified"], done["sha256"]) == (True, start["sha256"])
            assert [lora["name"] for lora in (await client.call("list-loras"))["loras"]] == [LORA]
    assert (loras / LORA).read_bytes() == data
