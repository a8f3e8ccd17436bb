"""The tool that shows the trainer's machine."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from aitk_mcp.system import SystemStats, read_stats
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool


class GetSystemStats(Arguments):
    """Show the trainer's machine: processors, memory, GPUs, and the room on the disks of datasets and outputs."""


class MemoryStats(Result):
    """Main memory."""

    total_bytes: int = Field(description="All of it.")
    available_bytes: int = Field(description="What new programs can use without swapping.")


class DiskStats(Result):
    """The disk below a folder."""

    used_for: str = Field(description="What the folder holds.")
    path: str = Field(description="The folder.")
    total_bytes: int = Field(description="Size of the disk.")
    free_bytes: int = Field(description="Room that is left.")


class GpuStats(Result):
    """One NVIDIA GPU; null where nvidia-smi tells nothing."""

    index: int = Field(description="Its number, as `gpu_ids` takes it.")
    name: str = Field(description="Its name.")
    driver_version: str | None = Field(description="Version of the driver.")
    temperature_c: float | None = Field(description="Temperature in degrees Celsius.")
    utilization_percent: float | None = Field(description="Share of time that it computed.")
    memory_total_bytes: int | None = Field(description="Its memory.")
    memory_used_bytes: int | None = Field(description="Memory in use.")
    memory_free_bytes: int | None = Field(description="Memory that is free.")
    power_draw_w: float | None = Field(description="Power that it draws in watts.")
    power_limit_w: float | None = Field(description="Most power that it may draw.")


class MachineStats(Result):
    """The trainer's machine at this moment."""

    engine: str = Field(description="What trains here: cli (AI Toolkit) or embedded.")
    hostname: str = Field(description="Name of the machine.")
    system: str = Field(description="Operating system.")
    cpu_count: int = Field(description="Number of processors.")
    load_1m: float | None = Field(description="Processes that wanted a processor, over the last minute.")
    memory: MemoryStats | None = Field(description="Main memory; null where it is not known.")
    disks: list[DiskStats] = Field(
        description="The disks that matter here; none where AI Toolkit's are another machine's."
    )
    gpus: list[GpuStats] = Field(description="The GPUs.")
    gpu_problem: str | None = Field(description="Why no GPU is shown; null where there are some.")


def system_tools(
    engine: str, folders: Mapping[str, Path], read: Callable[[Sequence[Path]], Awaitable[SystemStats]] = read_stats
) -> list[AnyTool]:
    """Return the tool; `folders` are those whose disks matter, by what they hold, and `read` asks their machine."""

    async def stats(args: GetSystemStats, call: Call) -> MachineStats:
        found = await read(list(folders.values()))
        by_path = {disk.path: disk for disk in found.disks}
        return MachineStats(
            engine=engine,
            hostname=found.hostname,
            system=found.system,
            cpu_count=found.cpu_count,
            load_1m=found.load_1m,
            memory=MemoryStats(total_bytes=found.memory.total_bytes, available_bytes=found.memory.available_bytes)
            if found.memory
            else None,
            disks=[
                DiskStats(
                    used_for=used_for,
                    path=str(path),
                    total_bytes=by_path[path].total_bytes,
                    free_bytes=by_path[path].free_bytes,
                )
                for used_for, path in folders.items()
                if path in by_path
            ],
            gpus=[GpuStats(**vars(gpu)) for gpu in found.gpus],
            gpu_problem=found.gpu_problem,
        )

    return [Tool(name="get-system-stats", args=GetSystemStats, result=MachineStats, effect=Effect.READ, run=stats)]
