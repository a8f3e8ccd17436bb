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

from benchmarks import calls, chunks, datasets, engine, graphs, loras, training, transfers
from benchmarks.measuring import MIB, Bench, Row

SUITES: Mapping[str, Callable[[Bench], Awaitable[list[Row]]]] = {
    "calls": calls.rows,
    "chunks": chunks.rows,
    "transfers": transfers.rows,
    "datasets": datasets.rows,
    "training": training.rows,
    "engine": engine.rows,
    "graphs": graphs.rows,
    "loras": loras.rows,
}


async def measure(names: list[str], runs: int, size_bytes: int) -> list[Row]:
    """Measure what was asked for, one subject after the other."""
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loraloop-bench-")))
        bench = Bench(stack, folder, runs=runs, size_bytes=size_bytes)
        for name in names:
            rows += await SUITES[name](bench)
    return rows


def main() -> None:
    """Print the table, and with --json one line of JSON after it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(SUITES), default=list(SUITES))
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each measurement (5)")
    parser.add_argument("--size-mib", type=int, default=64, help="size of the uploaded file in MiB (64)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    rows = asyncio.run(measure(options.only, options.runs, options.size_mib * MIB))
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
        machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
        print(json.dumps({"machine": machine, "rows": [asdict(row) | {"met": row.met} for row in rows]}))


if __name__ == "__main__":
    main()
