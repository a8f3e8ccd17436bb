"""The tools for the engine itself."""

from pydantic import Field

from comfy_mcp.system import System, SystemState
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool

_EMBEDDED = (
    "This is the embedded engine, a miniature model that renders 32 x 32 pixels and scales them; set COMFYUI_API_URL to"
    " render with ComfyUI."
)


class GetSystemInfo(Arguments):
    """Tell which engine renders, its version, devices, memory and queue."""


class FreeMemory(Arguments):
    """Make ComfyUI forget the models in its memory, and tell what that freed. A running job keeps its own until it
    ends."""


class DeviceInfo(Result):
    """A device that renders."""

    name: str = Field(description="name of the device")
    type: str = Field(description="cpu, cuda, mps, …")
    memory_total_bytes: int = Field(description="memory in bytes")
    memory_free_bytes: int = Field(description="free memory in bytes")


class SystemInfo(Result):
    """The engine as it is now."""

    engine: str = Field(description="comfyui or embedded")
    url: str = Field(description="address of the engine")
    version: str | None = Field(description="ComfyUI version that it speaks")
    ram_total_bytes: int = Field(description="main memory in bytes")
    ram_free_bytes: int = Field(description="free main memory in bytes")
    devices: list[DeviceInfo] = Field(description="devices that render")
    queue_running: int = Field(description="prompts that run")
    queue_pending: int = Field(description="prompts that wait")
    fallback: str = Field(description="what renders pictures while ComfyUI does not answer, or what it lacks for that")
    warnings: list[str] = Field(description="what the caller should know")


class FreedMemory(Result):
    """What freeing came to; ComfyUI's own answer says nothing, so its state is read before and after."""

    ram_free_before_bytes: int = Field(description="free main memory before, in bytes")
    ram_free_after_bytes: int = Field(description="free main memory after, in bytes")
    devices_before: list[DeviceInfo] = Field(description="devices before")
    devices_after: list[DeviceInfo] = Field(description="devices after")


def system_tools(system: System) -> list[AnyTool]:
    """Return the tools that look at the engine and free its memory."""

    async def info(args: GetSystemInfo, call: Call) -> SystemInfo:
        state = await system.state()
        embedded = state.selected.engine == "embedded"
        return SystemInfo(
            engine=state.selected.engine,
            url=state.selected.url,
            version=state.version,
            ram_total_bytes=state.ram_total_bytes,
            ram_free_bytes=state.ram_free_bytes,
            devices=_devices(state),
            queue_running=len(state.queue.running),
            queue_pending=len(state.queue.pending),
            fallback=state.fallback,
            warnings=[*([_EMBEDDED] if embedded else []), *state.doubts],
        )

    async def free(args: FreeMemory, call: Call) -> FreedMemory:
        before, after = await system.free()
        return FreedMemory(
            ram_free_before_bytes=before.ram_free_bytes,
            ram_free_after_bytes=after.ram_free_bytes,
            devices_before=_devices(before),
            devices_after=_devices(after),
        )

    return [
        Tool(name="get-system-info", args=GetSystemInfo, result=SystemInfo, effect=Effect.READ, run=info),
        Tool(name="free-memory", args=FreeMemory, result=FreedMemory, effect=Effect.WRITE, run=free),
    ]


def _devices(state: SystemState) -> list[DeviceInfo]:
    return [
        DeviceInfo(
            name=device.name,
            type=device.type,
            memory_total_bytes=device.memory_total_bytes,
            memory_free_bytes=device.memory_free_bytes,
        )
        for device in state.devices
    ]
