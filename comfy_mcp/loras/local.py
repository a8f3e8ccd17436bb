"""The LoRAs on this disk as they are known without ComfyUI, for what renders while it is away."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from anyio import to_thread

from comfy_mcp.loras import folder as lora_folder
from comfy_mcp.loras.folder import SAFE_EXTENSIONS, LoraFile
from comfy_mcp.loras.names import absent
from lora_files.architectures import UNKNOWN


class LocalLoras:
    """Look into folders, which are asked for at each call; pickle formats are left out."""

    def __init__(self, folders: Callable[[], Awaitable[tuple[Path, ...]]]) -> None:
        self._folders = folders

    async def names(self) -> tuple[str, ...]:
        """Return the names, as loaders take them."""
        found = await to_thread.run_sync(lora_folder.scan, await self._folders())
        return tuple(name for name in found if Path(name).suffix.lower() in SAFE_EXTENSIONS)

    async def path(self, name: str) -> Path:
        """Return where a LoRA lies; raises NotFound."""
        return Path((await self._file(name)).where)

    async def architecture(self, name: str) -> str:
        """Return the kind of model that a LoRA fits, or `unknown`; raises NotFound."""
        examined = await to_thread.run_sync(lora_folder.examine, await self._file(name))
        return examined.said.architecture if examined.said else UNKNOWN

    async def _file(self, name: str) -> LoraFile:
        file = await to_thread.run_sync(lora_folder.find, await self._folders(), name)
        if file is None:
            raise absent(name, await self.names())
        return file
