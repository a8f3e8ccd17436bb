"""Measure the servers against yardsticks in the same run: `python scripts/bench.py [--json] [--only NAME …]`.

Every row is a ratio, arranged so that larger is better: throughput over the yardstick's, or the yardstick's latency
over ours. The yardstick is a bare Starlette route in a process of its own, which parses the same request with the
standard library and does the same work without any of our checks. Absolute figures depend on the machine; ratios of
one run hardly do.
"""

import argparse
import asyncio
import base64
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

if find_spec("mcp_toolserver") is None:
    from checkout import prepare

    prepare()

import httpx
from rich.console import Console
from rich.table import Table

from mcp_toolserver.child_servers import running_server

KIB, MIB = 1024, 1024 * 1024
CALLS = 200


@dataclass(frozen=True)
class Row:
    """One measured figure beside its yardstick; `goal` is the least ratio that is wanted."""

    name: str
    value: float
    unit: str
    yardstick: str
    yardstick_value: float
    ratio: float
    goal: float

    @property
    def met(self) -> bool:
        """Tell whether the ratio reaches the goal."""
        return self.ratio >= self.goal


def bare_app(folder: str) -> Any:
    """Build the yardstick: one route that answers JSON, one that appends a base64 chunk to a file."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def echo(request: Request) -> Response:
        body: Any = json.loads(await request.body())
        return JSONResponse({"success": True, "tool": body["tool"], "result": {}})

    async def append(request: Request) -> Response:
        body: Any = json.loads(await request.body())
        arguments = body["arguments"]
        data = base64.b64decode(arguments["chunk"])
        with (Path(folder) / arguments["upload_id"]).open("ab") as part:
            part.write(data)
        return JSONResponse({"success": True, "result": {"received_bytes": len(data)}})

    return Starlette(routes=[Route("/echo", echo, methods=["POST"]), Route("/append", append, methods=["POST"])])


def serve_bare(folder: str) -> None:
    """Serve the yardstick on a free port, and say on stdout where."""
    import socket

    import uvicorn

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    config = uvicorn.Config(bare_app(folder), http="h11", ws="none", log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


@asynccontextmanager
async def bare_server(folder: str) -> AsyncGenerator[str]:
    """Run the yardstick in a process of its own; yields its address."""
    command = (sys.executable, __file__, "--serve-bare", folder)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["url"]
    finally:
        process.terminate()
        await process.wait()


async def chunk_rows(comfy_url: str, bare_url: str, size_bytes: int, runs: int) -> list[Row]:
    """Measure the chunk tools at three sizes of chunk, appending only, each beside the bare route."""
    rows: list[Row] = []
    async with httpx.AsyncClient(timeout=60) as client:
        for name, chunk_size, goal in (("256k", 256 * KIB, 1.2), ("1m", MIB, 1.2), ("4m", 4 * MIB, 1.2)):
            chunk = base64.b64encode(os.urandom(chunk_size)).decode()
            total = size_bytes // chunk_size

            async def ours(chunk: str = chunk, total: int = total, chunk_size: int = chunk_size) -> None:
                upload_id = str(uuid4())
                start = {"upload_id": upload_id, "filename": f"{upload_id}.safetensors", "chunk_size": chunk_size}
                await call(client, comfy_url, "upload-lora-chunked-start", start | {"total_size": total * chunk_size})
                for index in range(total):
                    arguments = {"upload_id": upload_id, "chunk": chunk, "chunk_index": index}
                    await call(client, comfy_url, "upload-lora-chunked-append", arguments)
                await call(client, comfy_url, "upload-lora-chunked-abort", {"upload_id": upload_id})

            async def bare(chunk: str = chunk, total: int = total) -> None:
                upload_id = str(uuid4())
                for index in range(total):
                    arguments = {"upload_id": upload_id, "chunk": chunk, "chunk_index": index}
                    body = json.dumps({"tool": "upload-lora-chunked-append", "arguments": arguments})
                    (await client.post(f"{bare_url}/append", content=body)).raise_for_status()

            our_seconds, bare_seconds = await alternate(ours, bare, runs)
            megabytes = total * chunk_size / 1e6
            value, yardstick = megabytes / our_seconds, megabytes / bare_seconds
            label = "bare route: json, base64, append, no fsync"
            rows.append(Row(f"chunks_{name}", value, "MB/s", label, yardstick, value / yardstick, goal))
    return rows


async def call_rows(comfy_url: str, bare_url: str, runs: int) -> list[Row]:
    """Measure the latency of a small tool call over REST and over MCP (2026-07-28), beside the bare route."""
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
        for _ in range(runs + 1):
            samples["bare"] = [*samples["bare"], *await latencies(f"{bare_url}/echo", rest_body)]
            samples["rest"] = [*samples["rest"], *await latencies(f"{comfy_url}/mcp/tool", rest_body)]
            samples["mcp"] = [*samples["mcp"], *await latencies(f"{comfy_url}/mcp", mcp_body, mcp_headers)]
    rows: list[Row] = []
    for door, goal in (("rest", 1 / 1.5), ("mcp", 1 / 2.5)):
        for label, point in (("p50", 50), ("p99", 99)):
            value, yardstick = percentile(samples[door], point), percentile(samples["bare"], point)
            name = f"{door}_call" if label == "p50" else f"{door}_call_{label}"
            rows.append(Row(name, value, f"ms {label}", "bare JSON route", yardstick, yardstick / value, goal))
    return rows


def percentile(samples: list[float], point: int) -> float:
    """Return the given percentile; the first tenth of the samples is warm-up and left out."""
    counted = samples[len(samples) // 10 :]
    return statistics.quantiles(counted, n=100)[point - 1]


async def alternate(
    ours: Callable[[], Awaitable[None]], yardstick: Callable[[], Awaitable[None]], runs: int
) -> tuple[float, float]:
    """Time two things in turn, A B A B …, after one uncounted pair; returns the medians in seconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs + 1):
        for work, taken in zip((ours, yardstick), times, strict=True):
            started = time.perf_counter()
            await work()
            taken.append(time.perf_counter() - started)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


async def call(client: httpx.AsyncClient, url: str, tool: str, arguments: dict[str, Any]) -> Any:
    """Call a tool over REST; raises RuntimeError with the server's words when it refuses."""
    answer = await client.post(f"{url}/mcp/tool", content=json.dumps({"tool": tool, "arguments": arguments}))
    body: Any = answer.json()
    if not body["success"]:
        raise RuntimeError(body["error"]["message"])
    return body["result"]


async def measure(options: argparse.Namespace) -> list[Row]:
    """Start the server and the yardstick, and measure what was asked for."""
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory(prefix="loraloop-bench-"))
        log = stack.enter_context((Path(data) / "server.log").open("wb"))
        arguments = ["--port", "0", "--data-dir", f"{data}/comfy", "--backend", "embedded"]
        comfy = await stack.enter_async_context(running_server("comfy_mcp", arguments, log.fileno()))
        bare = await stack.enter_async_context(bare_server(data))
        if "calls" in options.only:
            rows += await call_rows(comfy.url, bare, options.runs)
        if "chunks" in options.only:
            rows += await chunk_rows(comfy.url, bare, options.size_mib * MIB, options.runs)
    return rows


def main() -> None:
    """Print the table, and with --json one line of JSON after it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=("calls", "chunks"), default=["calls", "chunks"])
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each measurement (5)")
    parser.add_argument("--size-mib", type=int, default=64, help="size of the uploaded file in MiB (64)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--serve-bare", metavar="DIR", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_bare:
        serve_bare(options.serve_bare)
        return
    rows = asyncio.run(measure(options))
    table = Table("row", "value", "yardstick", "ratio", "goal", "met")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:.2f} {row.unit}",
            f"{row.yardstick_value:.2f} ({row.yardstick})",
            f"{row.ratio:.2f}",
            f"{row.goal:.2f}",
            "yes" if row.met else "no",
        )
    Console(stderr=options.json).print(table)
    if options.json:
        machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
        print(json.dumps({"machine": machine, "rows": [asdict(row) | {"met": row.met} for row in rows]}))


if __name__ == "__main__":
    main()
