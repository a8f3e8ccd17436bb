"""LoRAs: how long a list of ten thousand takes, and the description of a large one."""

import json
import os
import struct
from pathlib import Path

import httpx
from anyio import to_thread

from benchmarks.measuring import Bench, Row, alternate, in_thread
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
    await to_thread.run_sync(_fill, folder, bench.many(FILES))
    large = await to_thread.run_sync(_write_large, folder / "large.safetensors")

    async def place() -> Place:
        return Place((folder,))

    async with httpx.AsyncClient(timeout=120) as client:
        list_s, scan_s = await alternate(
            lambda: call(client, url, "list-loras", {}), in_thread(_scan, folder), bench.runs
        )
        seen_s, _ = await alternate(
            lambda: call(client, url, "get-lora-info", {"lora_name": large.name, "include_hashes": False}),
            in_thread(_read, large),
            bench.runs * 10,
        )
    # A library without memory: every look is the first.
    first_s, read_s = await alternate(
        lambda: LoraLibrary(place).info(large.name, hashes=False), in_thread(_read, large), bench.runs * 10
    )
    list_ms, scan_ms, seen_ms, first_ms, read_ms = (s * 1000 for s in (list_s, scan_s, seen_s, first_s, read_s))
    wanted = "the most that is wanted"
    return [
        Row("list_loras_10k", list_ms, "ms", wanted, MOST_LIST_MS, MOST_LIST_MS / list_ms, 1.0),
        Row("list_loras_10k_scan", list_ms, "ms", "scandir and stat", scan_ms, scan_ms / list_ms, None),
        Row("lora_info_2gb", seen_ms, "ms", wanted, MOST_INFO_MS, MOST_INFO_MS / seen_ms, 1.0),
        Row("lora_info_2gb_first", first_ms, "ms", "read the header's JSON", read_ms, read_ms / first_ms, None),
    ]


def _fill(folder: Path, files: int) -> None:
    for number in range(files):
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
