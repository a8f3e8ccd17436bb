"""Downloads: how fast a LoRA is fetched by ranges, and its digest compared, from either server."""

import os
from pathlib import Path

import httpx
from anyio import to_thread

from benchmarks.disk import copy
from benchmarks.measuring import KIB, MIB, Bench, Row, in_thread, in_turn
from benchmarks.tool_calls import call
from benchmarks.ways import fetch, write_lora

RANGE_SIZES = (("256k", 256 * KIB), ("1m", MIB), ("4m", 4 * MIB))


async def rows(bench: Bench) -> list[Row]:
    """Measure a download in one range from each server, and in ranges of three sizes, beside `cp` and `sha256sum`.

    Both sides end with a file whose sha256 was computed; that nobody waits for the disk holds for both too.
    """
    source = bench.folder / "fetched.safetensors"
    sha256 = await to_thread.run_sync(write_lora, source, bench.size_bytes)
    lora = await offer_lora(await bench.comfy_url(), bench.data_dir("comfy_mcp"), source)
    model = await offer_model(await bench.aitk_url(), source)
    size_bytes, target = source.stat().st_size, bench.folder / "target.safetensors"

    def load(url: str, range_bytes: int) -> None:
        fetch(url, target, size_bytes, sha256, range_bytes)
        target.unlink()

    ways = (
        ("download_lora", lora, size_bytes),
        ("download_model", model, size_bytes),
        *((f"download_lora_{label}", lora, range_bytes) for label, range_bytes in RANGE_SIZES),
    )
    works = [in_thread(load, url, range_bytes) for _, url, range_bytes in ways]
    *taken, copied_s = await in_turn(bench.runs, *works, in_thread(copy, source, target))
    megabytes = size_bytes / 1e6
    return [
        Row(name, megabytes / s, "MB/s", "cp, sha256sum", megabytes / copied_s, copied_s / s, None)
        for (name, _, _), s in zip(ways, taken, strict=True)
    ]


async def offer_lora(url: str, data_dir: Path, source: Path) -> str:
    """Give comfy_mcp a LoRA, let it compute the digest, which its answers say from then on, and return its address."""
    await to_thread.run_sync(_place, source, data_dir / "comfyui" / "models" / "loras")
    async with httpx.AsyncClient(timeout=120) as client:
        await call(client, url, "get-lora-info", {"lora_name": source.name})
    return f"{url}/loras/{source.name}"


async def offer_model(url: str, source: Path) -> str:
    """Give aitk_mcp a model, as `offer_lora` does."""
    async with httpx.AsyncClient(timeout=120) as client:
        folder = Path((await call(client, url, "list-exported-models", {}))["outputs_folder"])
        await to_thread.run_sync(_place, source, folder)
        await call(client, url, "get-model-info", {"model_path": source.name})
    return f"{url}/models/{source.name}"


def _place(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.link(source, folder / source.name)
