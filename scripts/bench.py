"""Measure the servers against yardsticks in the same run: `python scripts/bench.py [--json] [--only NAME …]`.

Every row is a ratio, arranged so that larger is better: throughput over the yardstick's, or the yardstick's latency
over ours. The yardstick does the same work in the plainest way (a bare Starlette route in a process of its own, `cp`,
`sha256sum`). Absolute figures depend on the machine; ratios of one run hardly do.
"""

import argparse
import asyncio
import json
import os
import platform
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

if find_spec("mcp_toolserver") is None:
    from checkout import prepare

    prepare()

from rich.console import Console
from rich.table import Table

from benchmarks import (
    calls,
    chunks,
    datasets,
    downloads,
    engine,
    graphs,
    loras,
    memory,
    peers,
    pulls,
    startup,
    training,
    transfers,
)
from benchmarks.measuring import MIB, Bench, Extent, Row

SUITES: Mapping[str, Callable[[Bench], Awaitable[list[Row]]]] = {
    "startup": startup.rows,
    "calls": calls.rows,
    "chunks": chunks.rows,
    "transfers": transfers.rows,
    "peers": peers.rows,
    "downloads": downloads.rows,
    "pulls": pulls.rows,
    "memory": memory.rows,
    "datasets": datasets.rows,
    "training": training.rows,
    "engine": engine.rows,
    "graphs": graphs.rows,
    "loras": loras.rows,
}


async def measure(names: list[str], extent: Extent) -> list[Row]:
    """Measure what was asked for, one subject after the other, always in the same order."""
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loraloop-bench-")))
        bench = Bench(stack, folder, extent)
        for name, suite in SUITES.items():
            if name in names:
                rows += await suite(bench)
    return rows


def main() -> None:
    """Print the table, and with --json one line of JSON after it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(SUITES), default=list(SUITES))
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each measurement (5)")
    parser.add_argument("--size-mib", type=int, default=64, help="size of the uploaded file in MiB (64)")
    parser.add_argument(
        "--peer-tus",
        type=lambda text: Path(text).absolute(),
        metavar="DIR",
        help="compare with @tus/server: DIR has its package, @tus/file-store and tus-js-client in node_modules",
    )
    parser.add_argument("--sketch", action="store_true", help="a hundredth of each: shows that it runs, nothing more")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    if options.runs < 1 or options.size_mib < 1:
        parser.error("--runs and --size-mib must be at least 1")
    load = os.getloadavg()[0]
    extent = Extent(
        runs=options.runs, size_bytes=options.size_mib * MIB, peer_tus=options.peer_tus, sketch=options.sketch
    )
    rows = asyncio.run(measure(options.only, extent))
    table = Table("row", "value", "yardstick", "ratio", "goal", "met")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:.2f} {row.unit}",
            f"{row.yardstick_value:.2f} ({row.yardstick})",
            f"{row.ratio:.2f}",
            "" if row.goal is None else f"{row.goal:.2f}",
            {True: "yes", False: "no", None: ""}[row.met],
        )
    Console(stderr=options.json).print(table)
    if options.json:
        machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load {load:.1f}"
        print(json.dumps({"machine": machine, "rows": [asdict(row) | {"met": row.met} for row in rows]}))


if __name__ == "__main__":
    main()
