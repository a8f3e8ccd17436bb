"""The doors: how long a small tool call takes."""

import time
from typing import Any

import httpx

from benchmarks.measuring import Bench, Row, percentile

CALLS = 200


async def rows(bench: Bench) -> list[Row]:
    """Measure the latency of a small tool call over REST and over MCP (2026-07-28), beside the bare route."""
    comfy_url, bare_url = await bench.comfy_url(), await bench.bare_url()
    version = "2026-07-28"
    arguments: dict[str, Any] = {"name": "list-uploads", "arguments": {}}
    meta = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    mcp_body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": arguments | {"_meta": meta}}
    mcp_headers = {
        "MCP-Protocol-Version": version,
        "Mcp-Method": "tools/call",
        "Mcp-Name": "list-uploads",
        "Accept": "application/json, text/event-stream",
    }
    rest_body: dict[str, Any] = {"tool": "list-uploads", "arguments": {}}
    async with httpx.AsyncClient(timeout=60) as client:

        async def latencies(url: str, body: Any, headers: dict[str, str] | None = None) -> list[float]:
            taken: list[float] = []
            for _ in range(CALLS):
                started = time.perf_counter()
                answer = await client.post(url, json=body, headers=headers)
                taken.append((time.perf_counter() - started) * 1000)
                answer.raise_for_status()
            return taken

        samples: dict[str, list[float]] = {"rest": [], "mcp": [], "bare": []}
        for _ in range(bench.runs + 1):
            samples["bare"] = [*samples["bare"], *await latencies(f"{bare_url}/echo", rest_body)]
            samples["rest"] = [*samples["rest"], *await latencies(f"{comfy_url}/mcp/tool", rest_body)]
            samples["mcp"] = [*samples["mcp"], *await latencies(f"{comfy_url}/mcp", mcp_body, mcp_headers)]
    measured: list[Row] = []
    for door, goal in (("rest", 1 / 1.5), ("mcp", 1 / 2.5)):
        for label, point in (("p50", 50), ("p99", 99)):
            value, yardstick = percentile(samples[door], point), percentile(samples["bare"], point)
            name = f"{door}_call" if label == "p50" else f"{door}_call_{label}"
            wanted = goal if label == "p50" else None
            measured.append(Row(name, value, f"ms {label}", "bare JSON route", yardstick, yardstick / value, wanted))
    return measured
