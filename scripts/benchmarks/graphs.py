"""Graphs: how long it takes to check one."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx
from anyio import to_thread

from benchmarks.measuring import Bench, Row
from benchmarks.tool_calls import call
from comfy_mcp.workflows import Graph, check

NODES = 100
MOST_CHECK_MS = 5.0


async def rows(bench: Bench) -> list[Row]:
    """Measure the check of a graph of 100 nodes, beside the most that it may take."""
    async with httpx.AsyncClient(timeout=60) as client:
        url = await bench.comfy_url()
        graph = _long((await call(client, url, "get-workflow", {"name": "flux-txt2img"}))["workflow"])
        classes = {node["class_type"] for node in graph.values()}
        described = [await call(client, url, "get-object-info", {"node_class": name}) for name in classes]
    object_info: dict[str, Any] = {entry["node_class"]: entry["info"] for entry in described}
    check_ms = await to_thread.run_sync(_median_ms, lambda: check(graph, object_info), 20 * bench.runs)
    return [
        Row("check_100_nodes", check_ms, "ms", "the most that is wanted", MOST_CHECK_MS, MOST_CHECK_MS / check_ms, 1.0),
    ]


def _long(graph: Graph) -> Graph:
    """Return the graph with so many guidance nodes in a row that it has 100 in all."""
    guidance_id, guidance = next((at, node) for at, node in graph.items() if node["class_type"] == "FluxGuidance")
    longer = dict(graph)
    before = guidance["inputs"]["conditioning"]
    for n in range(NODES - len(graph)):
        longer[f"extra{n}"] = {**guidance, "inputs": {**guidance["inputs"], "conditioning": before}}
        before = [f"extra{n}", 0]
    longer[guidance_id] = {**guidance, "inputs": {**guidance["inputs"], "conditioning": before}}
    return longer


def _median_ms(work: Callable[[], object], times: int) -> float:
    taken: list[float] = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)
