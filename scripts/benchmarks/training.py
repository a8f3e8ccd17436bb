"""Trainings: how fast their state is told, also where the log is long."""

import base64
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from anyio import to_thread
from PIL import Image

from benchmarks.measuring import KIB, MIB, Bench, Row, percentile
from benchmarks.tool_calls import call

CALLS = 100
LONG_LOG_BYTES, SHORTER_LOG_BYTES = 50 * MIB, 5 * MIB
MOST_STATUS_MS = 10.0
FRAME = b"cat:  50%|#####     | 500/1000 [08:20<08:20,  1.00it/s, lr: 1.0e-04 loss: 1.188e-01]\r"


async def rows(bench: Bench) -> list[Row]:
    """Measure get-training-status and get-training-logs of a job that has ended, beside one whose log is a tenth."""
    url, bare_url = await bench.aitk_url(), await bench.bare_url()
    async with httpx.AsyncClient(timeout=300) as client:
        asked: dict[str, tuple[str, dict[str, Any]]] = {"bare": (f"{bare_url}/echo", {"tool": "echo"})}
        await _give_dataset(client, url)
        for name, size_bytes in (("short", SHORTER_LOG_BYTES), ("long", LONG_LOG_BYTES)):
            job_id = await _trained(client, url, name)
            log = bench.data_dir("aitk_mcp") / "jobs" / job_id / "runs" / "0001" / "log.txt"
            await to_thread.run_sync(_lengthen, log, bench.many(size_bytes))
            arguments = {"job_id": job_id, "lines": 100}
            asked[name] = (f"{url}/mcp/tool", {"tool": "get-training-logs", "arguments": arguments})
        asked["status"] = (f"{url}/mcp/tool", {"tool": "get-training-status", "arguments": {"job_id": job_id}})
        taken: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(bench.many(CALLS * bench.runs)):
            for name, (address, body) in asked.items():
                started = time.perf_counter()
                (await client.post(address, json=body)).raise_for_status()
                taken[name].append((time.perf_counter() - started) * 1000)
    short_ms, long_ms, status_ms, bare_ms = (
        percentile(taken[name], 50) for name in ("short", "long", "status", "bare")
    )
    within = "the most that is wanted, with a log of 50 MiB"
    return [
        Row("training_status", status_ms, "ms p50", within, MOST_STATUS_MS, MOST_STATUS_MS / status_ms, 1.0),
        Row("training_status_bare", status_ms, "ms p50", "bare JSON route", bare_ms, bare_ms / status_ms, None),
        Row("training_log_50mb", long_ms, "ms p50", "a log of 5 MiB", short_ms, short_ms / long_ms, 0.8),
    ]


async def _give_dataset(client: httpx.AsyncClient, url: str) -> None:
    file = BytesIO()
    Image.new("RGB", (64, 64), "teal").save(file, "PNG")
    image = {"filename": "0.png", "content": base64.b64encode(file.getvalue()).decode(), "caption": "tok"}
    await call(client, url, "upload-dataset", {"dataset_name": "bench", "images": [image]})


async def _trained(client: httpx.AsyncClient, url: str, name: str) -> str:
    """Train for a few steps and return the job's id."""
    config = {"name": name, "model_name": "tinyflux", "dataset_path": "bench", "trigger_word": "tok"}
    await call(client, url, "create-training-config", {**config, "steps": 4, "test_prompts": ["tok"]})
    job_id = (await call(client, url, "start-training", {"config_name": name}))["job_id"]
    await call(client, url, "wait-training", {"job_id": job_id, "wait_s": 120})
    return job_id


def _lengthen(log: Path, size_bytes: int) -> None:
    """Put frames of a progress bar before what a log says, so that it has this size."""
    with log.open("r+b") as file:
        end = file.read()[-4 * KIB :]
        frames = FRAME * ((size_bytes - len(end)) // len(FRAME)) + b"\n"
        file.seek(0)
        file.write(frames + end)
