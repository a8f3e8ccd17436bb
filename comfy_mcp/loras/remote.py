"""The LoRAs of a ComfyUI whose disk is out of reach, through its own routes."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import anyio

from comfy_mcp.engines.comfyui import ComfyUI, ModelRow
from comfy_mcp.loras.cache import Remembered
from comfy_mcp.loras.folder import Examined, LoraFile, pickle_problem
from comfy_mcp.models.models import LORAS
from lora_files.describe import describe_metadata
from mcp_toolserver.errors import Conflict, Forbidden, TooLarge, ToolError

_AT_ONCE = 8
_FORM_BYTES = 2048
"""More than what surrounds a file in a form."""


class RemoteLoras:
    """List, read and send LoRAs by ComfyUI's routes, which show less of a file than its bytes do."""

    def __init__(self, comfyui: ComfyUI) -> None:
        self._comfyui = comfyui

    async def files(self) -> dict[str, LoraFile]:
        """Return the LoRAs by the names that loaders take, in their order; dot-files and dot-folders are left out.

        Sizes and times are None on a server that does not tell them, and then nothing is remembered of a file.
        """
        names = await self._comfyui.models(LORAS) or ()
        rows = await self._rows()
        address = await self._comfyui.address()
        return {name: _file(name, address, rows.get(_plain(name))) for name in sorted(names) if _is_shown(name)}

    async def examine(self, files: Iterable[LoraFile]) -> dict[str, Remembered]:
        """Return what the metadata of each file says, by where it lies."""
        read: dict[str, Remembered] = {}
        limiter = anyio.CapacityLimiter(_AT_ONCE)

        async def look(file: LoraFile) -> None:
            async with limiter:
                problem = pickle_problem(file.name)
                metadata = None if problem else await self._comfyui.model_metadata(LORAS, file.name)
            said = None if problem else describe_metadata(metadata or {})
            read[file.where] = Remembered(file.stamp, Examined(said, problem, {}))

        async with anyio.create_task_group() as tasks:
            for file in files:
                tasks.start_soon(look, file)
        return read

    async def require_way(self, name: str, size_bytes: int) -> None:
        """Raise TooLarge for a file that no route of the server takes."""
        routes = await self._comfyui.upload_routes()
        if not routes.assets and size_bytes + _FORM_BYTES > routes.limit_bytes:
            raise TooLarge(
                f"`{name}` has {size_bytes} bytes, and the ComfyUI on the other machine takes {routes.limit_bytes} in "
                "one request.",
                hint="Start ComfyUI with --max-upload-size (in MB) or --enable-assets, or run this server where it "
                "reaches ComfyUI's folder and set COMFYUI_DIR.",
                details={"size_bytes": size_bytes, "limit_bytes": routes.limit_bytes, "setting": "COMFYUI_DIR"},
            )

    async def send(self, part: Path, name: str, *, overwrite: bool) -> str:
        """Send a file and return the name that loaders take.

        Raises Conflict where the file was stored and loaders still take an older one of the same name: the routes
        write to ComfyUI's output folder, and its models folder comes first.
        """
        before = (await self._rows()).get(name)
        stored = await self._comfyui.upload_lora(part, name, overwrite=overwrite)
        after = (await self._rows()).get(stored)
        if stored == name and before is not None and before == after:
            raise Conflict(
                f"ComfyUI stored the new `{name}` in its output folder, and goes on loading the older file of that name"
                " from its models folder.",
                hint="Send it under another `filename`, or delete the older file on ComfyUI's machine.",
                details={"filename": name, "size_bytes": before.size_bytes, "folder_index": before.folder_index},
            )
        return stored

    async def _rows(self) -> dict[str, ModelRow]:
        found: dict[str, ModelRow] = {}
        for row in sorted(await self._comfyui.model_rows(LORAS) or (), key=lambda each: each.folder_index):
            # Of two files with one name, loaders take that of the first folder.
            found.setdefault(_plain(row.name), row)
        return found


def out_of_reach(name: str, what: str) -> Forbidden:
    """Say that something cannot be done with a LoRA on another machine."""
    return Forbidden(
        f"`{name}` lies on ComfyUI's machine, and ComfyUI has no route to {what} it.",
        hint="Do it there, or run this server where it reaches ComfyUI's folder and set COMFYUI_DIR.",
        details={"lora_name": name, "setting": "COMFYUI_DIR"},
    )


async def listed_by(comfyui: ComfyUI, name: str) -> bool | None:
    """Return whether ComfyUI lists a LoRA, or None where it does not answer."""
    try:
        names = await comfyui.models(LORAS)
    except ToolError:
        return None
    return names is not None and any(_plain(each) == name for each in names)


def _file(name: str, address: str, row: ModelRow | None) -> LoraFile:
    stamp = f"{row.size_bytes}:{row.modified_s}:{row.folder_index}" if row else ""
    return LoraFile(
        name,
        f"{address}#{name}",
        row.size_bytes if row else None,
        row.modified_s if row else None,
        stamp,
        remote=True,
    )


def _plain(name: str) -> str:
    # On Windows some of the lists have one separator, and some the other.
    return name.replace("\\", "/")


def _is_shown(name: str) -> bool:
    return not any(part.startswith(".") for part in PurePosixPath(_plain(name)).parts)
