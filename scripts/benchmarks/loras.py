"""LoRAs: how long a list of ten thousand takes, and the description of a large one."""

import json
import os
import statistics
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from anyio import to_thread

from benchmarks.measuring import Bench, Row
from benchmarks.tool_calls import call
from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.models.folders import Place

FILES = 10_000
FOLDERS = 20
MOST_LIST_MS = 100.0
MOST_INFO_MS = 5.0
# A LoRA of all linear layers of FLUX, of such a rank that it has two gigabytes.
LAYERS, WIDTH, RANK = 494, 3072, 340


async def rows(bench: Bench) -> list[Row]:
    """Measure `list-loras` over 10,000 files, warm, and `get-lora-info` of a LoRA of 2 GB, without digests.

    Each stands beside the most that it may take, and beside the plainest way to the same: `os.scandir` and a `stat` of
    each file; reading that header and its JSON, which is what a first look has to do.
    """
    url = await bench.comfy_url()
    folder = bench.data_dir("comfy_mcp") / "comfyui" / "models" / "loras"
    await to_thread.run_sync(_fill, folder)
    large = await to_thread.run_sync(_write_large, folder / "large.safetensors")

    async def place() -> Place:
        return Place((folder,))

    async with httpx.AsyncClient(timeout=120) as client:
        list_ms, scan_ms = await _beside(
            bench.runs, lambda: call(client, url, "list-loras", {}), lambda: to_thread.run_sync(_scan, folder)
        )
        seen_ms, _ = await _beside(
            bench.runs * 10,
            lambda: call(client, url, "get-lora-info", {"lora_name": large.name, "include_hashes": False}),
            lambda: to_thread.run_sync(_read, large),
        )
    first_ms, read_ms = await _beside(
        bench.runs * 10,
        # A library without memory: every look is the first.
        lambda: LoraLibrary(place).info(large.name, hashes=False),
        lambda: to_thread.run_sync(_read, large),
    )
    wanted = "the most that is wanted"
    return [
        Row("list_loras_10k", list_ms, "ms", wanted, MOST_LIST_MS, MOST_LIST_MS / list_ms, 1.0),
        Row("list_loras_10k_scan", list_ms, "ms", "scandir and stat", scan_ms, scan_ms / list_ms, None),
        Row("lora_info_2gb", seen_ms, "ms", wanted, MOST_INFO_MS, MOST_INFO_MS / seen_ms, 1.0),
        Row("lora_info_2gb_first", first_ms, "ms", "read the header's JSON", read_ms, read_ms / first_ms, None),
    ]


async def _beside(
    runs: int, ours: Callable[[], Awaitable[object]], yardstick: Callable[[], Awaitable[object]]
) -> tuple[float, float]:
    """Time two things in turn, after one uncounted pair; returns the medians in milliseconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs + 1):
        for work, taken in zip((ours, yardstick), times, strict=True):
            started = time.perf_counter()
            await work()
            taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def _fill(folder: Path) -> None:
    for number in range(FILES):
        path = folder / f"style {number % FOLDERS:02}" / f"lora {number:05}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, layers=4, width=96, rank=4)


def _write_large(path: Path) -> Path:
    _write(path, layers=LAYERS, width=WIDTH, rank=RANK)
    return path


def _write(path: Path, *, layers: int, width: int, rank: int) -> None:
    """Write a LoRA whose weights are zeros that take no room on the disk."""
    header: dict[str, object] = {"__metadata__": {"ss_base_model_version": "flux1", "trigger_word": path.stem}}
    end = 0
    for layer in range(layers):
        name = f"transformer.single_transformer_blocks.{layer}.attn.to_q"
        for half, shape in (("A", [rank, width]), ("B", [width, rank])):
            start, end = end, end + 2 * rank * width
            header[f"{name}.lora_{half}.weight"] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def _scan(folder: Path) -> int:
    found = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                found += _scan(Path(entry.path))
            else:
                found += entry.stat().st_size > 0
    return found


def _read(path: Path) -> object:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))
