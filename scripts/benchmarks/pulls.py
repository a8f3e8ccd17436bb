"""Imports: how fast comfy_mcp brings a LoRA from aitk_mcp, durable and published."""

import hashlib
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import httpx
from anyio import to_thread

from benchmarks.disk import copy_to_disk
from benchmarks.measuring import Bench, Row, in_thread, in_turn
from benchmarks.tool_calls import call
from benchmarks.ways import write_lora
from mcp_toolserver.child_servers import running_server

LINKED_MS, LINKED_UNKNOWN_MS = 20.0, 100.0
"""How long a link may take: with the digest known, and beside the pass that computes it."""


async def rows(bench: Bench) -> list[Row]:
    """Measure a pull over HTTP and a copy beside copying the file on the disk, and links beside their bounds.

    Both sides of the first two end with bytes that are on the disk and whose sha256 was computed. For a link, aitk_mcp
    tells the digest of its own file, which is the file that is linked.
    """
    aitk_url = await bench.aitk_url()
    async with httpx.AsyncClient(timeout=120) as client:
        outputs = Path((await call(client, aitk_url, "list-exported-models", {}))["outputs_folder"])
        model = outputs / "imported.safetensors"
        await to_thread.run_sync(_write, model, bench.size_bytes)
        async with _importing_server(bench, aitk_url) as comfy_url:
            importer = _Importer(client, comfy_url, aitk_url, model)
            pull_s, copy_s, disk_s = await in_turn(
                bench.runs,
                importer.pull,
                importer.copy,
                in_thread(copy_to_disk, model, bench.folder / "copied.safetensors"),
            )
            known_s, unknown_s, hash_s = await in_turn(
                bench.runs, importer.link_known, importer.link_unknown, in_thread(_hash, model)
            )
        size_bytes = (await to_thread.run_sync(model.stat)).st_size
        await to_thread.run_sync(model.unlink)
    megabytes, bound_ms = size_bytes / 1e6, LINKED_UNKNOWN_MS + hash_s * 1000
    disk = ("cp, sync, sha256sum", megabytes / disk_s)
    return [
        Row("pull_vs_disk", megabytes / pull_s, "MB/s", *disk, disk_s / pull_s, 0.7),
        Row("copy_vs_disk", megabytes / copy_s, "MB/s", *disk, disk_s / copy_s, None),
        Row("link", unknown_s * 1000, "ms", "100 ms and one sha256 pass", bound_ms, bound_ms / (unknown_s * 1000), 1.0),
        Row("link_known", known_s * 1000, "ms", "20 ms", LINKED_MS, LINKED_MS / (known_s * 1000), 1.0),
    ]


class _Importer:
    """Import one model again and again; what takes room is deleted, which costs next to nothing beside it."""

    def __init__(self, client: httpx.AsyncClient, comfy_url: str, aitk_url: str, model: Path) -> None:
        self._client, self._comfy_url, self._aitk_url, self._model = client, comfy_url, aitk_url, model
        self._numbers = count()

    async def pull(self) -> None:
        """Import over HTTP."""
        await self._bring("pull")

    async def copy(self) -> None:
        """Import by a copy."""
        await self._bring("copy")

    async def link_known(self) -> None:
        """Import by a link, of a file whose digest aitk_mcp knows."""
        await self._bring("link")

    async def link_unknown(self) -> None:
        """Import by a link, of a file whose digest nobody knows; the times of a file tell that it is another."""
        await to_thread.run_sync(os.utime, self._model)
        await self._bring("link")

    async def _bring(self, method: str) -> None:
        arguments = {"model_path": self._model.name, "filename": f"{next(self._numbers)}.safetensors", "method": method}
        result = await call(self._client, self._comfy_url, "import-lora", arguments)
        if result["status"] != "completed" or result["already_there"]:
            raise ValueError(f"the import by {method} did not bring the file: {result}")
        if method != "link":
            await call(self._client, self._comfy_url, "delete-lora", {"lora_name": result["filename"]})


@asynccontextmanager
async def _importing_server(bench: Bench, aitk_url: str) -> AsyncGenerator[str]:
    data_dir = bench.data_dir("importing")
    command = ["--port", "0", "--data-dir", str(data_dir), "--backend", "embedded", "--aitk-url", aitk_url]
    with data_dir.with_name("importing.log").open("wb") as log:
        async with running_server("comfy_mcp", command, log.fileno()) as running:
            yield running.url


def _write(model: Path, size_bytes: int) -> None:
    model.parent.mkdir(parents=True, exist_ok=True)
    write_lora(model, size_bytes)


def _hash(path: Path) -> None:
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
