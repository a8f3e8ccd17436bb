"""What the trainer's machine has to offer: processors, memory, disk and GPUs, seen here or told by AI Toolkit."""

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio import to_thread

from aitk_mcp.documents import list_of, mapping_of
from aitk_mcp.trainers.ui_http import UiHttp

_GPU_FIELDS = (
    "index,name,driver_version,temperature.gpu,utilization.gpu,memory.total,memory.used,memory.free,"
    "power.draw,power.limit"
)
_GPU_PATIENCE_S = 10.0
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as nvidia-smi shows it; None where it shows nothing."""

    index: int
    name: str
    driver_version: str | None
    temperature_c: float | None
    utilization_percent: float | None
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    memory_free_bytes: int | None
    power_draw_w: float | None
    power_limit_w: float | None


@dataclass(frozen=True)
class Disk:
    """The disk below a folder."""

    path: Path
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Memory:
    """Main memory; `available_bytes` is what new programs can use without swapping."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class SystemStats:
    """A machine at one moment; `load_1m` is the number of processes that want a processor."""

    hostname: str
    system: str
    cpu_count: int
    load_1m: float | None
    memory: Memory | None
    disks: tuple[Disk, ...]
    gpus: tuple[Gpu, ...]
    gpu_problem: str | None


async def read_stats(folders: Sequence[Path]) -> SystemStats:
    """Read the machine's state, with the disk of each folder."""
    gpus, problem = await _gpus()
    return await to_thread.run_sync(_stats, folders, gpus, problem)


async def read_ui_stats(http: UiHttp) -> SystemStats:
    """Ask AI Toolkit's server for the state of its machine; it tells nothing of its disks."""
    cpu, gpu = mapping_of(await http.get("/api/cpu")), mapping_of(await http.get("/api/gpu"))
    try:
        return SystemStats(
            hostname=urlsplit(http.url).hostname or http.url,
            system=str(cpu["name"]),
            cpu_count=int(cpu["cores"]),
            load_1m=None,
            memory=Memory(int(cpu["totalMemory"] * _MIB), int(cpu["availableMemory"] * _MIB)),
            disks=(),
            gpus=tuple(_ui_gpu(mapping_of(entry)) for entry in list_of(gpu["gpus"])),
            gpu_problem=str(gpu["error"]) if gpu.get("error") else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise http.strange("/api/gpu", f"it describes no machine ({type(error).__name__}: {error})") from error


def _ui_gpu(entry: Mapping[str, Any]) -> Gpu:
    memory, power = mapping_of(entry.get("memory")), mapping_of(entry.get("power"))
    return Gpu(
        index=int(entry["index"]),
        name=str(entry["name"]),
        driver_version=entry.get("driverVersion"),
        temperature_c=entry.get("temperature"),
        utilization_percent=mapping_of(entry.get("utilization")).get("gpu"),
        memory_total_bytes=_mib(memory.get("total")),
        memory_used_bytes=_mib(memory.get("used")),
        memory_free_bytes=_mib(memory.get("free")),
        power_draw_w=power.get("draw"),
        power_limit_w=power.get("limit"),
    )


async def _gpus() -> tuple[list[Gpu], str | None]:
    program = await to_thread.run_sync(shutil.which, "nvidia-smi")
    if program is None:
        return [], "There is no nvidia-smi on this machine."
    command = [program, f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        with anyio.fail_after(_GPU_PATIENCE_S):
            answer = await anyio.run_process(command, check=False)
    except TimeoutError:
        return [], f"nvidia-smi did not answer within {_GPU_PATIENCE_S:g} s."
    except OSError as error:
        return [], f"nvidia-smi cannot be run: {error.strerror}."
    text = answer.stdout.decode(errors="replace")
    if answer.returncode:
        return [], (text or answer.stderr.decode(errors="replace")).strip() or "nvidia-smi failed."
    return read_gpus(text), None


def read_gpus(text: str) -> list[Gpu]:
    """Read the lines that nvidia-smi prints for the queried fields: numbers without units, `[N/A]` for none."""
    gpus: list[Gpu] = []
    for line in text.splitlines():
        index, name, driver, *numbers = (field.strip() for field in line.split(","))
        temperature, utilization, total, used, free, draw, limit = (_number(number) for number in numbers)
        gpus.append(
            Gpu(int(index), name, driver, temperature, utilization, _mib(total), _mib(used), _mib(free), draw, limit)
        )
    return gpus


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _mib(number: float | None) -> int | None:
    return None if number is None else int(number) * _MIB


def _stats(folders: Sequence[Path], gpus: Sequence[Gpu], gpu_problem: str | None) -> SystemStats:
    return SystemStats(
        hostname=platform.node(),
        system=f"{platform.system()} {platform.release()}",
        cpu_count=os.cpu_count() or 1,
        load_1m=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        memory=_memory(),
        disks=tuple(_disk(folder) for folder in dict.fromkeys(folders)),
        gpus=tuple(gpus),
        gpu_problem=gpu_problem,
    )


def _memory() -> Memory | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = {name: int(rest.split()[0]) for name, rest in (line.split(":", 1) for line in lines)}
        return Memory(kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024)
    except (FileNotFoundError, KeyError):
        # Not Linux: there is no number for what is available in the standard library.
        return None


def _disk(folder: Path) -> Disk:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    usage = shutil.disk_usage(existing)
    return Disk(folder, usage.total, usage.free)
