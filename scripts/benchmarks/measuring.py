"""Rows, medians, and the servers that a benchmark needs; each server starts when the first row asks for it."""

import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bare import bare_server
from mcp_toolserver.child_servers import running_server

KIB, MIB = 1024, 1024 * 1024


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


class Bench:
    """One run of the benchmarks: how much to measure, a folder to work in, and the servers."""

    def __init__(self, stack: AsyncExitStack, folder: Path, *, runs: int, size_bytes: int) -> None:
        self.stack = stack
        self.folder = folder
        self.runs = runs
        self.size_bytes = size_bytes
        self._addresses: dict[str, str] = {}

    async def comfy_url(self) -> str:
        """Return the address of comfy_mcp on the embedded engine."""
        return await self._server("comfy_mcp", "--backend", "embedded")

    async def aitk_url(self) -> str:
        """Return the address of aitk_mcp on the embedded trainer."""
        return await self._server("aitk_mcp", "--trainer", "embedded")

    async def bare_url(self) -> str:
        """Return the address of the bare Starlette routes."""
        if "bare" not in self._addresses:
            self._addresses["bare"] = await self.stack.enter_async_context(bare_server(str(self.folder)))
        return self._addresses["bare"]

    def data_dir(self, server: str) -> Path:
        """Return the data folder of a server."""
        return self.folder / server

    async def _server(self, name: str, *arguments: str) -> str:
        if name not in self._addresses:
            log = self.stack.enter_context((self.folder / f"{name}.log").open("wb"))
            command = ["--port", "0", "--data-dir", str(self.data_dir(name)), *arguments]
            running = await self.stack.enter_async_context(running_server(name, command, log.fileno()))
            self._addresses[name] = running.url
        return self._addresses[name]


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


def percentile(samples: list[float], point: int) -> float:
    """Return the given percentile; the first tenth of the samples is warm-up and left out."""
    counted = samples[len(samples) // 10 :]
    return statistics.quantiles(counted, n=100)[point - 1]
