"""Start-up: how long it takes until a server listens."""

import statistics
import subprocess
import sys
import time
from functools import partial

from anyio import to_thread

from benchmarks.measuring import Bench, Row

SERVERS = ("comfy_mcp", "aitk_mcp")
IMPORTS = "import starlette, uvicorn, mcp"


async def rows(bench: Bench) -> list[Row]:
    """Measure both servers from the start of the process to their line that they listen, beside importing the least."""
    taken: dict[str, list[float]] = {name: [] for name in ("imports", *SERVERS)}
    for turn in range(bench.runs + 1):
        started = time.perf_counter()
        await to_thread.run_sync(partial(subprocess.run, [sys.executable, "-c", IMPORTS], check=True))
        taken["imports"].append(time.perf_counter() - started)
        for name in SERVERS:
            started = time.perf_counter()
            async with bench.server(name, bench.folder / f"{name}_{turn}"):
                taken[name].append(time.perf_counter() - started)
    median = {name: statistics.median(samples[1:]) for name, samples in taken.items()}
    imports_s = median["imports"]
    return [
        Row(f"startup_{name}", median[name], "s", f'python -c "{IMPORTS}"', imports_s, imports_s / median[name], None)
        for name in SERVERS
    ]
