"""The engine: what a tool call adds to a direct call of ComfyUI, from the graph to the names of its pictures."""

import json
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any
from uuid import uuid4

import httpx
from PIL import Image
from websockets.asyncio.client import connect

from benchmarks.measuring import Bench, Row
from benchmarks.tool_calls import call

MOST_ADDED_MS = 5.0
TURNS = 20
"""Pairs of a call for each counted run: single renders vary by more than what is looked for."""

Render = Callable[[int], Awaitable[object]]


async def rows(bench: Bench) -> list[Row]:
    """Measure what execute-workflow adds to POST /prompt, the socket and /history, on the same server."""
    async with httpx.AsyncClient(timeout=60) as http:
        url = await bench.comfy_url()
        comfyui_url: str = (await http.get(f"{url}/health")).json()["backend"]["url"]
        await http.post(f"{comfyui_url}/upload/image", files={"image": ("bench.png", _small_png(), "image/png")})

        async def through_the_tool(width: int) -> None:
            done = await call(http, url, "execute-workflow", {"workflow": _scaled(width)})
            assert done["images"] and not done["cached"]

        async with _direct_client(comfyui_url) as direct:
            added_ms = await _added_ms(through_the_tool, direct, TURNS * bench.runs)
    yardstick = "the most that is wanted"
    return [Row("engine_overhead", added_ms, "ms", yardstick, MOST_ADDED_MS, MOST_ADDED_MS / added_ms, 1.0)]


async def _added_ms(ours: Render, direct: Render, turns: int) -> float:
    """Return by how much the median of our calls is longer than that of direct ones; no two graphs are the same."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + TURNS):
        for side, render in enumerate((ours, direct)):
            started = time.perf_counter()
            await render(64 + 2 * turn + side)
            taken[side].append((time.perf_counter() - started) * 1000)
    # The first turns are warm-up.
    ours_ms, direct_ms = (statistics.median(side[TURNS:]) for side in taken)
    return max(ours_ms - direct_ms, 0.001)


@asynccontextmanager
async def _direct_client(url: str) -> AsyncGenerator[Render]:
    """Give the least that a client of ComfyUI can do: queue, hear the end, and read the names of the pictures."""
    client_id = str(uuid4())
    async with (
        httpx.AsyncClient(base_url=url, timeout=60) as http,
        connect(f"{url.replace('http', 'ws', 1)}/ws?clientId={client_id}", proxy=None, compression=None) as socket,
    ):

        async def render(width: int) -> None:
            body = {"prompt": _scaled(width), "client_id": client_id}
            prompt_id = (await http.post("/prompt", json=body)).json()["prompt_id"]
            end = {"node": None, "prompt_id": prompt_id}
            async for frame in socket:
                message: dict[str, Any] = json.loads(frame) if isinstance(frame, str) else {}
                if message.get("type") == "executing" and end.items() <= message["data"].items():
                    break
            ended = (await http.get(f"/history/{prompt_id}")).json()[prompt_id]
            assert ended["outputs"]["3"]["images"]

        yield render


def _scaled(width: int) -> dict[str, Any]:
    """Return a graph that costs next to nothing, and that no cache has."""
    scale = {"image": ["1", 0], "upscale_method": "nearest-exact", "width": width, "height": 64, "crop": "disabled"}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "bench.png"}},
        "2": {"class_type": "ImageScale", "inputs": scale},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }


def _small_png() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, "PNG")
    return buffer.getvalue()
