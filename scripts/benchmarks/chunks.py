"""The chunk tools: how fast base64 chunks are taken, checked and made durable."""

import base64
import json
import os
from uuid import uuid4

import httpx

from benchmarks.measuring import KIB, MIB, Bench, Row, alternate
from benchmarks.tool_calls import call


async def rows(bench: Bench) -> list[Row]:
    """Measure the chunk tools at three sizes of chunk, appending only, each beside the bare route."""
    comfy_url, bare_url = await bench.comfy_url(), await bench.bare_url()
    measured: list[Row] = []
    async with httpx.AsyncClient(timeout=60) as client:
        for name, chunk_size, goal in (("256k", 256 * KIB, 1.2), ("1m", MIB, 1.2), ("4m", 4 * MIB, 1.2)):
            # Bytes that cannot open a safetensors file are refused with the first chunk.
            opening = (2).to_bytes(8, "little") + b"{}"
            chunk = base64.b64encode(opening + os.urandom(chunk_size - len(opening))).decode()
            total = bench.size_bytes // chunk_size

            async def ours(chunk: str = chunk, total: int = total, chunk_size: int = chunk_size) -> None:
                upload_id = str(uuid4())
                start = {"upload_id": upload_id, "filename": f"{upload_id}.safetensors", "chunk_size": chunk_size}
                await call(client, comfy_url, "upload-lora-chunked-start", start | {"total_size": total * chunk_size})
                for index in range(total):
                    arguments = {"upload_id": upload_id, "chunk": chunk, "chunk_index": index}
                    await call(client, comfy_url, "upload-lora-chunked-append", arguments)
                await call(client, comfy_url, "upload-lora-chunked-abort", {"upload_id": upload_id})

            async def bare(chunk: str = chunk, total: int = total) -> None:
                upload_id = str(uuid4())
                for index in range(total):
                    arguments = {"upload_id": upload_id, "chunk": chunk, "chunk_index": index}
                    body = json.dumps({"tool": "upload-lora-chunked-append", "arguments": arguments})
                    (await client.post(f"{bare_url}/append", content=body)).raise_for_status()

            our_seconds, bare_seconds = await alternate(ours, bare, bench.runs)
            megabytes = total * chunk_size / 1e6
            value, yardstick = megabytes / our_seconds, megabytes / bare_seconds
            label = "bare route: json, base64, append, no fsync"
            measured.append(Row(f"chunks_{name}", value, "MB/s", label, yardstick, value / yardstick, goal))
    return measured
