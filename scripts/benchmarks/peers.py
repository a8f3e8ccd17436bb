"""tus as npm has it: the same file from tus-js-client to `@tus/server` and to us."""

import json
import shutil
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
from anyio import to_thread

from benchmarks.disk import run
from benchmarks.measuring import Bench, Row, alternate
from benchmarks.ways import write_lora

AHEAD_OF_PEER = 1.3
_HERE = Path(__file__).parent


async def rows(bench: Bench) -> list[Row]:
    """Measure an upload by tus-js-client to us, beside one to `@tus/server` followed by `sync` and `sha256sum`.

    Both end with bytes that are on the disk and whose sha256 was computed; one client, which keeps running, sends both.
    """
    node, packages = shutil.which("node"), bench.extent.peer_tus
    if packages is None or node is None:
        wanted = "--peer-tus DIR" if packages is None else "node"
        bench.leave_out("tus_vs_peer", f"there is no {wanted}")
        return []
    url = await bench.comfy_url()
    source, store = bench.folder / "to_peer.safetensors", bench.folder / "peer"
    sha256 = await to_thread.run_sync(write_lora, source, bench.size_bytes)
    await anyio.Path(store).mkdir()
    published = bench.data_dir("comfy_mcp") / "comfyui" / "models" / "loras"
    async with (
        _node(node, "peer_server.cjs", packages, store) as server,
        _node(node, "peer_client.cjs", packages) as client,
    ):
        peer_url = (await _heard(server))["url"]

        async def ours() -> None:
            filename = f"{uuid4()}.safetensors"
            await _sent(client, f"{url}/uploads", source, {"filename": filename, "sha256": sha256})
            await anyio.Path(published / filename).unlink()

        async def theirs() -> None:
            location = await _sent(client, peer_url, source, {"filename": source.name})
            stored = store / location.rpartition("/")[2]
            await to_thread.run_sync(run, ["sync", stored], ["sha256sum", stored])
            await anyio.Path(stored).unlink()

        ours_s, theirs_s = await alternate(ours, theirs, bench.runs)
    megabytes = source.stat().st_size / 1e6
    label = "@tus/server, sync, sha256sum"
    ratio = theirs_s / ours_s
    return [Row("tus_vs_peer", megabytes / ours_s, "MB/s", label, megabytes / theirs_s, ratio, AHEAD_OF_PEER)]


@asynccontextmanager
async def _node(node: str, script: str, packages: Path, *arguments: Path) -> AsyncGenerator[Process]:
    process = await create_subprocess_exec(node, _HERE / script, packages, *arguments, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


async def _sent(client: Process, endpoint: str, source: Path, metadata: Mapping[str, str]) -> str:
    """Send a file and return its address; raises RuntimeError with what the client says."""
    assert client.stdin is not None
    client.stdin.write(json.dumps({"endpoint": endpoint, "file": str(source), "metadata": metadata}).encode() + b"\n")
    await client.stdin.drain()
    heard = await _heard(client)
    if "error" in heard:
        raise RuntimeError(heard["error"])
    return heard["url"]


async def _heard(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("node ended; its stderr, above, says why")
    return json.loads(line)
