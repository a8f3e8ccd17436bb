"""The chunk tools: how fast base64 chunks are taken, checked and made durable."""

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from uuid import uuid4

import anyio
import httpx
import orjson
import pybase64
from anyio import to_thread

from benchmarks.disk import CURL, curl
from benchmarks.measuring import KIB, MIB, Bench, Row, in_turn
from benchmarks.tool_calls import call

SIZES = (("256k", 256 * KIB, 60.0), ("1m", MIB, 120.0), ("4m", 4 * MIB, 150.0))
"""Name, bytes in a chunk, and the least that is wanted, in MB/s."""
FASTER_THAN_BARE = 1.2
_SLICES = 16


async def rows(bench: Bench) -> list[Row]:
    """Measure the chunk tools at three sizes of chunk, appending only, each beside the bare route and `curl -T`."""
    comfy_url, bare_url = await bench.comfy_url(), await bench.bare_url()
    plain = bench.folder / "chunks.bin"
    await anyio.Path(plain).write_bytes(os.urandom(bench.size_bytes))

    async def curled() -> None:
        if CURL:
            await to_thread.run_sync(curl, plain, f"{bare_url}/raw/curled")
            await anyio.Path(bench.folder / "curled").unlink()

    [curl_s] = await in_turn(bench.runs, curled)
    measured: list[Row] = []
    async with httpx.AsyncClient(timeout=60) as client:
        for name, chunk_size, least in SIZES:
            # Bytes that cannot open a safetensors file are refused with the first chunk.
            opening = (2).to_bytes(8, "little") + b"{}"
            chunk = pybase64.b64encode(opening + os.urandom(chunk_size - len(opening))).decode()
            total = -(-bench.size_bytes // chunk_size)

            in_slice = -(-total // _SLICES)

            async def ours(
                chunk: str = chunk, total: int = total, chunk_size: int = chunk_size, in_slice: int = in_slice
            ) -> AsyncGenerator[None]:
                while True:
                    upload_id = str(uuid4())
                    start = {"upload_id": upload_id, "filename": f"{upload_id}.safetensors", "chunk_size": chunk_size}
                    size = {"total_size": total * chunk_size}
                    await call(client, comfy_url, "upload-lora-chunked-start", start | size)
                    for index in range(total):
                        if index and index % in_slice == 0:
                            yield
                        arguments = {"upload_id": upload_id, "chunk": chunk, "chunk_index": index}
                        await call(client, comfy_url, "upload-lora-chunked-append", arguments)
                    await call(client, comfy_url, "upload-lora-chunked-abort", {"upload_id": upload_id})
                    yield

            async def bare(chunk: str = chunk, total: int = total, in_slice: int = in_slice) -> AsyncGenerator[None]:
                while True:
                    upload_id = str(uuid4())
                    for index in range(total):
                        if index and index % in_slice == 0:
                            yield
                        arguments = {"upload_id": upload_id, "chunk": chunk, "chunk_index": index}
                        body = orjson.dumps({"tool": "upload-lora-chunked-append", "arguments": arguments})
                        (await client.post(f"{bare_url}/append", content=body)).raise_for_status()
                    # What nobody makes durable would else be written out while the next is measured.
                    await anyio.Path(bench.folder / upload_id).unlink()
                    yield

            async with aclosing(ours()) as our_slices, aclosing(bare()) as bare_slices:
                works = (partial(anext, our_slices), partial(anext, bare_slices))
                ours_s, bare_s = await in_turn(bench.runs, *works, slices=-(-total // in_slice))
            megabytes = total * chunk_size / 1e6
            rate, bare_rate = megabytes / ours_s, megabytes / bare_s
            label = "bare route: json, base64, append, no fsync"
            measured.append(Row(f"chunks_{name}", rate, "MB/s", label, bare_rate, rate / bare_rate, FASTER_THAN_BARE))
            wanted = "the least that is wanted"
            measured.append(Row(f"chunks_{name}_rate", rate, "MB/s", wanted, least, rate / least, 1.0))
            if CURL:
                curl_rate = bench.size_bytes / 1e6 / curl_s
                label = "curl -T to a bare route, no digest, no fsync"
                measured.append(Row(f"chunks_{name}_vs_curl", rate, "MB/s", label, curl_rate, rate / curl_rate, None))
    if not CURL:
        bench.leave_out("chunks_…_vs_curl", "there is no curl")
    return measured
