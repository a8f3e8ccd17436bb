"""Find the models folders of the running engine on this machine's own disk."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from anyio import to_thread

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_http import is_loopback
from comfy_mcp.engines.selection import Selected
from lora_files.header import BadSafetensors, SafetensorsHeader, read_header


class ModelFolders:
    """Know where the models lie: under COMFYUI_DIR, with the embedded engine, or where a local ComfyUI says."""

    def __init__(
        self,
        comfyui: ComfyUI,
        selected: Callable[[], Awaitable[Selected]],
        *,
        comfyui_dir: Path | None,
        embedded_dir: Path,
    ) -> None:
        self._comfyui = comfyui
        self._selected = selected
        self._comfyui_dir = comfyui_dir
        self._embedded_dir = embedded_dir

    async def of(self, kind: str) -> tuple[Path, ...]:
        """Return the folders of one kind of model, the one to write to first; empty where none is on this disk."""
        selected = await self._selected()
        if selected.engine == "embedded":
            return (self._embedded_dir / "models" / kind,)
        if self._comfyui_dir is not None:
            return await to_thread.run_sync(_under, self._comfyui_dir, kind)
        if not is_loopback(selected.url):
            return ()
        told = [Path(path) for path in (await self._comfyui.folder_paths()).get(kind, ())]
        listed = await self._comfyui.models(kind) or ()
        return await to_thread.run_sync(_really_there, told, listed)

    async def header(self, kind: str, name: str) -> SafetensorsHeader | None:
        """Return the header of a model that lies on this disk, or None where it does not or is no safetensors file."""
        folders = await self.of(kind)
        return await to_thread.run_sync(_header, folders, name) if folders else None


def _under(comfyui_dir: Path, kind: str) -> tuple[Path, ...]:
    # ComfyUI lists what its own nodes saved beside what was put there.
    saved = comfyui_dir / "output" / kind
    return (comfyui_dir / "models" / kind, *([saved] if saved.is_dir() else []))


def _really_there(told: list[Path], listed: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the folders that exist here, unless files that ComfyUI lists are missing: then it is in a container.

    A forwarded port makes another machine look like this one, and the same path may exist on both.
    """
    folders = tuple(path for path in told if path.is_dir())
    return folders if all(any((folder / name).exists() for folder in folders) for name in listed) else ()


def _header(folders: tuple[Path, ...], name: str) -> SafetensorsHeader | None:
    for folder in folders:
        path = folder / name
        if path.is_file():
            try:
                return read_header(path)
            except (BadSafetensors, OSError):
                return None
    return None
