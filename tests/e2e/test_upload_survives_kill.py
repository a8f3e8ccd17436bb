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

import httpx
import pytest

from mcp_toolserver.client import ToolClient
from tests.conftest import server_process
from tests.unit.lora_files.files import FLUX_AI_TOOLKIT, pairs, write

CHUNK = 16 * 1024
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
LORA = "cat.safetensors"


@contextmanager
def comfy(data_dir: Path) -> Generator[tuple[int, str]]:
    """Run comfy_mcp on its embedded engine; kills it at the end, at whatever it does."""
    with server_process("comfy_mcp", "--backend", "embedded", "--data-dir", str(data_dir)) as (process, url):
        yield process.pid, url
        process.kill()


def send_and_leave(url: str, head: str, body: bytes, share: float) -> None:
    """Send this share of a request's bytes, and wait for no answer."""
    request = f"{head}\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as connection:
        connection.sendall(request[: int(len(request) * share)])


class Sender:
    """One upload, sent by chunks, by streams, or by both in turn, at whatever server runs."""

    def __init__(self, data: bytes, way: str, chance: random.Random) -> None:
        self.data = data
        self.start: dict[str, object] = {
            "upload_id": str(uuid4()),
            "filename": LORA,
            "total_size": len(data),
            "chunk_size": CHUNK,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        self._way = way
        self._chance = chance

    async def resume(self, client: ToolClient) -> int:
        """Start, or start again; returns how many bytes have arrived."""
        return (await client.call("upload-lora-chunked-start", self.start))["received_bytes"]

    async def send_some(self, client: ToolClient, url: str, received: int) -> int:
        """Send some bytes and wait for the answer; returns how many have arrived then."""
        if self._streams():
            data = self._piece(received)
            async with httpx.AsyncClient() as http:
                headers = {**TUS, "Upload-Offset": str(received)}
                answer = await http.patch(f"{url}/uploads/{self.start['upload_id']}", headers=headers, content=data)
            assert answer.status_code == 204, answer.text
            return int(answer.headers["Upload-Offset"])
        return (await client.call("upload-lora-chunked-append", self._chunk(received)))["received_bytes"]

    def leave(self, url: str, received: int) -> None:
        """Send a part of some bytes, or all of them, and wait for no answer."""
        share = self._chance.choice([0.5, 0.9, 1.0])
        if self._streams():
            told = "".join(f"\r\n{name}: {value}" for name, value in {**TUS, "Upload-Offset": received}.items())
            head = f"PATCH /uploads/{self.start['upload_id']} HTTP/1.1{told}"
            send_and_leave(url, head, self._piece(received), share)
        else:
            call_and_leave(url, "upload-lora-chunked-append", self._chunk(received), share)

    def _streams(self) -> bool:
        return self._way == "tus" or (self._way == "mixed" and self._chance.random() < 0.5)

    def _piece(self, received: int) -> bytes:
        return self.data[received : received + self._chance.randint(1, 3 * CHUNK)]

    def _chunk(self, received: int) -> dict[str, object]:
        index = received // CHUNK
        chunk = base64.b64encode(self.data[index * CHUNK : (index + 1) * CHUNK]).decode()
        return {"upload_id": self.start["upload_id"], "chunk": chunk, "chunk_index": index}


def call_and_leave(url: str, tool: str, arguments: dict[str, object], share: float) -> None:
    """Call a tool with this share of the request's bytes, and wait for no answer."""
    send_and_leave(url, "POST /mcp/tool HTTP/1.1", json.dumps({"tool": tool, "arguments": arguments}).encode(), share)


@pytest.mark.parametrize("way", ["chunks", "tus", "mixed"])
@pytest.mark.parametrize("deaths", [3, pytest.param(67, marks=pytest.mark.long)])
async def test_an_upload_goes_on_after_every_kill(tmp_path: Path, way: str, deaths: int) -> None:
    chance = random.Random(f"{way} {deaths}")
    data = write(tmp_path / "source.safetensors", pairs(FLUX_AI_TOOLKIT, rank=12)).read_bytes()
    sender = Sender(data, way, chance)
    loras = tmp_path / "comfy" / "comfyui" / "models" / "loras"
    acknowledged = 0
    for _ in range(deaths):
        with comfy(tmp_path / "comfy") as (_, url):
            async with ToolClient(url) as client:
                received = await sender.resume(client)
                assert received >= acknowledged
                acknowledged = received
                for _ in range(chance.randint(0, 2)):
                    if acknowledged < len(data):
                        acknowledged = await sender.send_some(client, url, acknowledged)
                if acknowledged < len(data):
                    sender.leave(url, acknowledged)
        assert not (loras / LORA).exists()

    with comfy(tmp_path / "comfy") as (_, url):
        async with ToolClient(url) as client:
            received = await sender.resume(client)
            assert received >= acknowledged
            while received < len(data):
                received = await sender.send_some(client, url, received)
            call_and_leave(url, "upload-lora-chunked-finish", {"upload_id": sender.start["upload_id"]}, 1.0)
    assert not (loras / LORA).exists() or (loras / LORA).read_bytes() == data

    with comfy(tmp_path / "comfy") as (_, url):
        async with ToolClient(url) as client:
            done = await client.call("upload-lora-chunked-finish", {"upload_id": sender.start["upload_id"]})
            assert (done["checksum_verified"], done["sha256"]) == (True, sender.start["sha256"])
            assert [lora["name"] for lora in (await client.call("list-loras"))["loras"]] == [LORA]
    assert (loras / LORA).read_bytes() == data
