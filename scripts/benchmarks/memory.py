"""Memory: by how much a server grows while large files go through it, four at once."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import httpx
from anyio import CapacityLimiter, create_task_group, to_thread

from benchmarks.downloads import offer_lora, offer_model
from benchmarks.measuring import MIB, Bench, Row
from benchmarks.tool_calls import call
from benchmarks.ways import fetch, send_by_chunks, send_by_tus, write_lora
from mcp_toolserver.child_servers import RunningServer

AT_ONCE, FILES = 4, 8
CHUNK_SIZES = (("chunks_1m", MIB), ("chunks_4m", 4 * MIB))
MOST_MIB = 48.0
_PROC = Path("/proc")
_FORGET_THE_PEAK = "5"


async def rows(bench: Bench) -> list[Row]:
    """Measure the growth of a server's resident memory from idle to its peak, by each way, over eight files.

    Each way has a server of its own, which has done nothing before.
    """
    if not (_PROC / "self" / "clear_refs").exists():
        bench.leave_out("memory", "this system has no /proc that tells the peak of a process")
        return []
    source = bench.folder / "through.safetensors"
    sha256 = await to_thread.run_sync(write_lora, source, bench.size_bytes)
    grown = {
        "tus": await _uploads(bench, source, sha256, send_by_tus, source.stat().st_size),
        "pull": await _pulls(bench, source),
        "download_lora": await _downloads(bench, source, sha256, "comfy_mcp"),
        "download_model": await _downloads(bench, source, sha256, "aitk_mcp"),
    }
    # A chunk is a whole message, of which the server holds the JSON, the base64 and the bytes: its size counts.
    chunks = {way: await _uploads(bench, source, sha256, send_by_chunks, size) for way, size in CHUNK_SIZES}
    return [
        _row("memory", max(grown.values()), 1.0),
        *(_row(f"memory_{way}", mib, 1.0) for way, mib in grown.items()),
        *(_row(f"memory_{way}", mib, None) for way, mib in chunks.items()),
    ]


def _row(name: str, grown_mib: float, goal: float | None) -> Row:
    ratio = MOST_MIB / max(grown_mib, 0.01)
    return Row(name, grown_mib, "MiB over idle", "the most that is wanted", MOST_MIB, ratio, goal)


async def _uploads(
    bench: Bench, source: Path, sha256: str, send: Callable[[str, Path, str, str, int], None], part_bytes: int
) -> float:
    data = bench.folder / uuid4().hex
    async with bench.server("comfy_mcp", data) as server:

        def one(index: int) -> None:
            filename = f"{index}.safetensors"
            send(server.url, source, filename, sha256, part_bytes)
            (data / "comfyui" / "models" / "loras" / filename).unlink()

        return await _growth(server, lambda index: to_thread.run_sync(one, index))


async def _pulls(bench: Bench, source: Path) -> float:
    aitk_url = await bench.aitk_url()
    await offer_model(aitk_url, source)
    async with bench.server("comfy_mcp", bench.folder / uuid4().hex, "--aitk-url", aitk_url) as server:

        async def one(index: int) -> None:
            filename = f"{index}.safetensors"
            wanted = {"model_path": source.name, "filename": filename, "method": "pull", "wait_s": 120}
            async with httpx.AsyncClient(timeout=120) as client:
                imported = await call(client, server.url, "import-lora", wanted)
                if imported["status"] != "completed":
                    raise ValueError(f"the import did not end: {imported}")
                await call(client, server.url, "delete-lora", {"lora_name": filename})

        return await _growth(server, one)


async def _downloads(bench: Bench, source: Path, sha256: str, name: str) -> float:
    data = bench.folder / uuid4().hex
    async with bench.server(name, data) as server:
        is_comfy = name == "comfy_mcp"
        address = await (offer_lora(server.url, data, source) if is_comfy else offer_model(server.url, source))

        def one(index: int) -> None:
            target = bench.folder / f"{index}.fetched"
            size_bytes = source.stat().st_size
            fetch(address, target, size_bytes, sha256, size_bytes)
            target.unlink()

        return await _growth(server, lambda index: to_thread.run_sync(one, index))


async def _growth(server: RunningServer, one: Callable[[int], Awaitable[None]]) -> float:
    """Return by how many MiB the peak lies above what was resident before."""
    process = _PROC / str(server.process.pid)
    idle_mib = _resident_mib(process, "VmRSS")
    (process / "clear_refs").write_text(_FORGET_THE_PEAK)
    limiter = CapacityLimiter(AT_ONCE)

    async def turn(index: int) -> None:
        async with limiter:
            await one(index)

    async with create_task_group() as tasks:
        for index in range(FILES):
            tasks.start_soon(turn, index)
    return _resident_mib(process, "VmHWM") - idle_mib


def _resident_mib(process: Path, field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB$", (process / "status").read_text("ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
