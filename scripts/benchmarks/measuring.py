"""Rows, medians, and the servers that a benchmark needs; each server starts when the first row asks for it."""

import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from benchmarks.bare import bare_server
from mcp_toolserver.child_servers import RunningServer, running_server

KIB, MIB = 1024, 1024 * 1024
_ENGINE_OPTIONS = {"comfy_mcp": "--backend", "aitk_mcp": "--trainer"}

# Fewer have no percentiles.
_FEWEST = 4

Work = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Row:
    """One measured figure beside its yardstick; `goal` is the least ratio that is wanted, None where none is set."""

    name: str
    value: float
    unit: str
    yardstick: str
    yardstick_value: float
    ratio: float
    goal: float | None

    @property
    def met(self) -> bool | None:
        """Tell whether the ratio reaches the goal; None where there is no goal."""
        return None if self.goal is None else self.ratio >= self.goal


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured: counted runs, the size of the file, and the folder with the npm packages of tus, if any.

    A sketch has a hundredth of what else has a size: it shows that everything runs, and its figures mean nothing.
    """

    runs: int
    size_bytes: int
    peer_tus: Path | None = None
    sketch: bool = False


class Bench:
    """One run of the benchmarks: how much to measure, a folder to work in, and the servers."""

    def __init__(self, stack: AsyncExitStack, folder: Path, extent: Extent) -> None:
        self.stack = stack
        self.folder = folder
        self.extent = extent
        self.runs = extent.runs
        self.size_bytes = extent.size_bytes
        self._addresses: dict[str, str] = {}

    async def comfy_url(self) -> str:
        """Return the address of comfy_mcp on the embedded engine."""
        return await self._server("comfy_mcp")

    async def aitk_url(self) -> str:
        """Return the address of aitk_mcp on the embedded trainer."""
        return await self._server("aitk_mcp")

    async def bare_url(self) -> str:
        """Return the address of the bare Starlette routes, which write into `folder`."""
        if "bare" not in self._addresses:
            self._addresses["bare"] = await self.stack.enter_async_context(bare_server(str(self.folder)))
        return self._addresses["bare"]

    def data_dir(self, server: str) -> Path:
        """Return the data folder of a server."""
        return self.folder / server

    def many(self, count: int) -> int:
        """Return how many there are to be of what there should be `count` of."""
        return max(_FEWEST, count // 100) if self.extent.sketch else count

    def leave_out(self, row: str, why: str) -> None:
        """Say on stderr that a row is missing."""
        print(f"{row} is left out: {why}", file=sys.stderr)

    @asynccontextmanager
    async def server(self, name: str, data_dir: Path, *options: str) -> AsyncGenerator[RunningServer]:
        """Run a server on what is embedded, for one measurement."""
        with data_dir.with_name(f"{data_dir.name}.log").open("wb") as log:
            command = ["--port", "0", "--data-dir", str(data_dir), _ENGINE_OPTIONS[name], "embedded", *options]
            async with running_server(name, command, log.fileno()) as running:
                yield running

    async def _server(self, name: str) -> str:
        if name not in self._addresses:
            running = await self.stack.enter_async_context(self.server(name, self.data_dir(name)))
            self._addresses[name] = running.url
        return self._addresses[name]


def in_thread(work: Callable[..., object], *arguments: object) -> Work:
    """Make of blocking work something to await."""
    return lambda: to_thread.run_sync(work, *arguments)


async def in_turn(runs: int, *works: Work, slices: int = 1) -> list[float]:
    """Time several things in rounds after one uncounted round; returns the median of each in seconds.

    What disturbs the machine for a while then disturbs all of them. Each round begins with another one, so that none
    always has the same thing before it. What takes long can be cut: a work then does a slice of it at each call, the
    slices of all works alternate, and a round counts their sums.
    """
    times: list[list[float]] = [[] for _ in works]
    for turn in range(runs + 1):
        taken = [0.0] * len(works)
        for part in range(slices):
            for place in range(len(works)):
                which = (turn + part + place) % len(works)
                started = time.perf_counter()
                await works[which]()
                taken[which] += time.perf_counter() - started
        for each, seconds in zip(times, taken, strict=True):
            each.append(seconds)
    return [statistics.median(counted[1:]) for counted in times]


async def alternate(ours: Work, yardstick: Work, runs: int) -> tuple[float, float]:
    """Time two things in turn, as `in_turn` does; returns the medians in seconds."""
    ours_s, yardstick_s = await in_turn(runs, ours, yardstick)
    return ours_s, yardstick_s


def percentile(samples: list[float], point: int) -> float:
    """Return the given percentile; the first tenth of the samples is warm-up and left out."""
    counted = samples[len(samples) // 10 :]
    return statistics.quantiles(counted, n=100, method="inclusive")[point - 1]
