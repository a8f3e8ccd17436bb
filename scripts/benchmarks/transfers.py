"""Transfers by tus: how fast a LoRA is taken, checked by its digest, made durable and published."""

import hashlib
import json
import os
import struct
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import anyio
import httpx
from anyio import to_thread

from benchmarks.measuring import KIB, MIB, Bench, Row, alternate

TUS = {"Tus-Resumable": "1.0.0"}
PATCH_SIZES = (("256k", 256 * KIB), ("1m", MIB), ("4m", 4 * MIB))
RANK = 4


async def rows(bench: Bench) -> list[Row]:
    """Measure an upload in one PATCH and in PATCHes of three sizes, each beside copying the same file on the disk.

    Both sides end with bytes that are on the disk and whose sha256 was computed.
    """
    url = await bench.comfy_url()
    source = bench.folder / "sent.safetensors"
    sha256 = await to_thread.run_sync(_write, source, bench.size_bytes)
    loras = bench.data_dir("comfy_mcp") / "comfyui" / "models" / "loras"
    size_bytes = source.stat().st_size
    ways = (("tus_vs_disk", size_bytes, 0.7), *((f"tus_{label}", size, None) for label, size in PATCH_SIZES))
    measured: list[Row] = []

    async def copy() -> None:
        await to_thread.run_sync(_copy, source, bench.folder / "copied.safetensors")

    async with httpx.AsyncClient(timeout=120) as client:
        for name, patch_bytes, goal in ways:

            async def ours(patch_bytes: int = patch_bytes) -> None:
                filename = f"{uuid4()}.safetensors"
                await _send(client, url, source, filename, sha256, patch_bytes)
                # Also the proof that it was published under its name.
                await anyio.Path(loras / filename).unlink()

            our_seconds, copy_seconds = await alternate(ours, copy, bench.runs)
            value, yardstick = size_bytes / 1e6 / our_seconds, size_bytes / 1e6 / copy_seconds
            measured.append(Row(name, value, "MB/s", "cp, sync, sha256sum", yardstick, value / yardstick, goal))
    return measured


async def _send(
    client: httpx.AsyncClient, url: str, source: Path, filename: str, sha256: str, patch_bytes: int
) -> None:
    size_bytes = (await anyio.Path(source).stat()).st_size
    told = ",".join(
        f"{key} {b64encode(text.encode()).decode()}" for key, text in (("filename", filename), ("sha256", sha256))
    )
    begin = {**TUS, "Upload-Length": str(size_bytes), "Upload-Metadata": told}
    begun = (await client.post(f"{url}/uploads", headers=begin)).raise_for_status()
    for offset in range(0, size_bytes, patch_bytes):
        length = min(patch_bytes, size_bytes - offset)
        headers = {
            **TUS,
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(length),
            "Upload-Offset": str(offset),
        }
        body = _pieces(source, offset, length)
        (await client.patch(begun.headers["Location"], headers=headers, content=body)).raise_for_status()


async def _pieces(source: Path, offset: int, length: int) -> AsyncIterator[bytes]:
    async with await anyio.open_file(source, "rb") as file:
        await file.seek(offset)
        while length:
            piece = await file.read(min(MIB, length))
            length -= len(piece)
            yield piece


def _copy(source: Path, target: Path) -> None:
    for command in (["cp", source, target], ["sync", target], ["sha256sum", target]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _write(path: Path, size_bytes: int) -> str:
    """Write a LoRA of random bytes, about as large as asked for, and return its sha256."""
    width = max(1, size_bytes // (4 * RANK))
    header: dict[str, object] = {}
    for index, (half, shape) in enumerate((("A", [RANK, width]), ("B", [width, RANK]))):
        start = index * 2 * RANK * width
        key = f"transformer.single_transformer_blocks.0.attn.to_q.lora_{half}.weight"
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [start, start + 2 * RANK * width]}
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + os.urandom(4 * RANK * width)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()
