"""The state of the engine: version, devices, memory, queue."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_history import QueueState
from comfy_mcp.engines.selection import Selected
from comfy_mcp.workflows.graphs import is_list, is_object
from mcp_toolserver.app import BackendState
from mcp_toolserver.errors import BackendUnavailable, ToolError


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that renders; sizes in bytes."""

    name: str
    type: str
    memory_total_bytes: int
    memory_free_bytes: int


@dataclass(frozen=True, kw_only=True)
class SystemState:
    """The engine as it is now; sizes in bytes."""

    selected: Selected
    version: str | None
    ram_total_bytes: int
    ram_free_bytes: int
    devices: tuple[Device, ...]
    queue: QueueState
    doubts: tuple[str, ...]
    fallback: str


class System:
    """Look at the engine and free its memory.

    `doubts` tells what is wrong between the settings and the engine, and `fallback` what renders while it is away.
    """

    def __init__(
        self,
        comfyui: ComfyUI,
        selected: Callable[[], Awaitable[Selected]],
        doubts: Callable[[], Awaitable[Sequence[str]]],
        fallback: Callable[[], Awaitable[str]],
    ) -> None:
        self._comfyui = comfyui
        self._selected = selected
        self._doubts = doubts
        self._fallback = fallback

    async def state(self) -> SystemState:
        """Return what the engine says of itself; raises BackendUnavailable, which tells what renders instead."""
        selected = await self._selected()
        fallback = await self._fallback()
        try:
            stats = await self._comfyui.system_stats()
        except BackendUnavailable as error:
            error.hint = f"{error.hint or ''} {fallback}".strip()
            raise
        system = _object(stats.get("system"))
        rows = stats.get("devices")
        return SystemState(
            selected=selected,
            version=_version(stats),
            ram_total_bytes=_number(system, "ram_total"),
            ram_free_bytes=_number(system, "ram_free"),
            devices=tuple(_device(row) for row in rows if is_object(row)) if is_list(rows) else (),
            queue=await self._comfyui.queue(),
            doubts=tuple(await self._doubts()),
            fallback=fallback,
        )

    async def free(self) -> tuple[SystemState, SystemState]:
        """Make the engine forget its models; returns its state before and after, since its answer says nothing."""
        before = await self.state()
        await self._comfyui.free()
        return before, await self.state()

    async def backend(self) -> BackendState:
        """Return the state for /health; never raises for an engine that does not answer."""
        try:
            selected = await self._selected()
        except ToolError as error:
            return BackendState(state="unavailable", engine="embedded", detail=error.as_text())
        try:
            stats = await self._comfyui.system_stats()
            doubts = await self._doubts()
        except ToolError as error:
            told = f"{error.as_text()} {await self._fallback()}"
            return BackendState(state="unavailable", engine=selected.engine, url=selected.url, detail=told)
        return BackendState(
            state="ok",
            engine=selected.engine,
            version=_version(stats),
            url=selected.url,
            detail=" ".join(doubts) or None,
        )


def _device(row: Mapping[str, Any]) -> Device:
    return Device(
        name=str(row.get("name", "")),
        type=str(row.get("type", "")),
        memory_total_bytes=_number(row, "vram_total"),
        memory_free_bytes=_number(row, "vram_free"),
    )


def _version(stats: Mapping[str, Any]) -> str | None:
    version = _object(stats.get("system")).get("comfyui_version")
    return version if isinstance(version, str) else None


def _object(value: object) -> Mapping[str, Any]:
    return value if is_object(value) else {}


def _number(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    return int(value) if isinstance(value, int | float) else 0
