"""The doors: how long a small tool call takes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.measuring import Bench, Row, percentile

CALLS = 200
# The tool that does the least by itself: it answers from memory.
CALL: Mapping[str, Any] = {"name": "list-jobs", "arguments": {}}
STATELESS, BY_HANDSHAKE = "2026-07-28", "2025-11-25"


@dataclass
class Door:
    """A way to make one call, how long each took in ms, and the least ratio that is wanted of its p50."""

    name: str
    url: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    goal: float | None = None
    taken_ms: list[float] = field(default_factory=list[float])


async def rows(bench: Bench) -> list[Row]:
    """Measure the latency of a small tool call by each door, beside the bare route; one call of each in turn."""
    comfy_url, bare_url = await bench.comfy_url(), await bench.bare_url()
    rest = {"tool": CALL["name"], "arguments": CALL["arguments"]}
    async with httpx.AsyncClient(timeout=60) as client:
        bare = Door("bare", f"{bare_url}/echo", rest, {})
        doors = [
            Door("rest_call", f"{comfy_url}/mcp/tool", rest, {}, 1 / 1.5),
            Door("rest_events_call", f"{comfy_url}/mcp/tool", rest, {"Accept": "text/event-stream"}),
            _stateless(f"{comfy_url}/mcp"),
            await _by_handshake(client, f"{comfy_url}/mcp"),
        ]
        for _ in range(bench.many(CALLS * (bench.runs + 1))):
            for door in (bare, *doors):
                started = time.perf_counter()
                answer = await client.post(door.url, json=door.body, headers=door.headers)
                door.taken_ms.append((time.perf_counter() - started) * 1000)
                answer.raise_for_status()
    measured: list[Row] = []
    for door in doors:
        for label, point in (("p50", 50), ("p99", 99)):
            value, yardstick = percentile(door.taken_ms, point), percentile(bare.taken_ms, point)
            name, goal = (door.name, door.goal) if label == "p50" else (f"{door.name}_{label}", None)
            measured.append(Row(name, value, f"ms {label}", "bare JSON route", yardstick, yardstick / value, goal))
    return measured


def _stateless(url: str) -> Door:
    meta = {
        "io.modelcontextprotocol/protocolVersion": STATELESS,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    headers = {**_headers(STATELESS), "Mcp-Method": "tools/call", "Mcp-Name": CALL["name"]}
    return Door("mcp_call", url, _request("tools/call", {**CALL, "_meta": meta}), headers, 1 / 2.5)


async def _by_handshake(client: httpx.AsyncClient, url: str) -> Door:
    """Shake hands as clients of older revisions do; every call then names the session."""
    headers = _headers(BY_HANDSHAKE)
    hello = {"protocolVersion": BY_HANDSHAKE, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    welcome = (await client.post(url, json=_request("initialize", hello), headers=headers)).raise_for_status()
    headers["Mcp-Session-Id"] = welcome.headers["Mcp-Session-Id"]
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    (await client.post(url, json=ready, headers=headers)).raise_for_status()
    return Door("mcp_2025_call", url, _request("tools/call", CALL), headers)


def _request(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def _headers(version: str) -> dict[str, str]:
    return {"MCP-Protocol-Version": version, "Accept": "application/json, text/event-stream"}
