"""The LoRAs of ComfyUI: list, inspect, install, delete; on this disk or, with less to see, through its routes."""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from anyio import from_thread, to_thread

from comfy_mcp.loras import folder as lora_folder
from comfy_mcp.loras.cache import Remembered
from comfy_mcp.loras.folder import Examined, LoraFile, supplied_path
from comfy_mcp.loras.info import NOT_ALL_KNOWN, LoraInfo, info_of
from comfy_mcp.loras.names import absent, accepted_name, taken
from comfy_mcp.loras.pages import Known, Page, Sort, page_of, wish_of
from comfy_mcp.loras.records import LoraRecords
from comfy_mcp.loras.remote import RemoteLoras, out_of_reach
from comfy_mcp.models.folders import Place
from lora_files.describe import describe_file
from lora_files.hashes import hashes_of
from lora_files.header import BadSafetensors, read_header
from mcp_toolserver.errors import Forbidden, InvalidArguments, NotFound, ToolError
from mcp_toolserver.files import publish_now, require_free_path, sha256_of_file, write_now
from mcp_toolserver.tools import Report, unheard

WORK_FOLDER = ".uploads"
"""The dot-directory in the loras folder, and so on its file system: neither ComfyUI nor the library looks into it."""

Places = Callable[[], Awaitable[Place]]
"""Return where the LoRAs lie on this disk."""

Replaced = Callable[[str], Awaitable[None]]
"""Be told that the LoRA of this name has other bytes now: ComfyUI keeps the old ones in memory."""

Listed = Callable[[str], Awaitable[bool | None]]
"""Tell whether ComfyUI lists the LoRA of this name, None where it does not answer."""


@dataclass(frozen=True, slots=True)
class LoraPage:
    """One page of a list: `total` counts all that match, `next_cursor` continues after this page."""

    loras: list[LoraInfo]
    total: int
    next_cursor: str | None
    warnings: tuple[str, ...] = ()


class LoraLibrary:
    """The LoRAs that ComfyUI's loaders see.

    `places` is asked at each call, so that the engine may change under a running server. Without a folder there, the
    LoRAs are `remote`, and what arrives is received in `staging`. `cache_file` keeps what was read from one start to
    the next. `replaced` is told after a LoRA was overwritten, and `listed` is asked after one was installed.
    """

    def __init__(
        self,
        places: Places,
        *,
        remote: RemoteLoras | None = None,
        staging: Path | None = None,
        cache_file: Path | None = None,
        replaced: Replaced | None = None,
        listed: Listed | None = None,
    ) -> None:
        self._places = places
        self._remote = remote
        self._staging = staging
        self._records = LoraRecords(cache_file)
        self._replaced = replaced
        self._listed = listed

    async def list(
        self,
        *,
        query: str | None = None,
        architecture: str | None = None,
        sort: Sort = "name",
        limit: int = 100,
        cursor: str | None = None,
    ) -> LoraPage:
        """Return a page of the LoRAs whose name or trigger words hold every word of `query`.

        `sort` by `modified` has the newest first, by `size` the largest. Raises InvalidArguments for a cursor that is
        not from this list, and Forbidden or NotFound where there is no access to the folder.
        """
        wish = wish_of(query, architecture, sort, limit, cursor)
        place = await self._reachable()
        if place.folders:
            page = await to_thread.run_sync(lambda: page_of(self._records.scan(place.folders), wish))
        else:
            files = list((await self._elsewhere().files()).values())
            known = await self._by_metadata(files) if wish.reads_files else [(file, None) for file in files]
            page = page_of(known, wish)
            if not wish.reads_files:
                page = Page(await self._by_metadata([file for file, _ in page.files]), page.total, page.next_cursor)
        loras = [info_of(file, remembered) for file, remembered in page.files if remembered is not None]
        unknown = (NOT_ALL_KNOWN,) if any(lora.by_metadata for lora in loras) else ()
        return LoraPage(loras, page.total, page.next_cursor, (*place.warnings, *unknown))

    async def info(self, name: str, *, hashes: bool = True, report: Report = unheard) -> LoraInfo:
        """Return what is known of a LoRA; without `hashes` only its header is read.

        `report` hears how far the digests of a large file are. Raises NotFound with the closest names.
        """
        place = await self._reachable()
        if place.folders:
            return await to_thread.run_sync(self._info, place.folders, name, report if hashes else None)
        files = await self._elsewhere().files()
        if name not in files:
            raise absent(name, list(files))
        return await self._info_elsewhere(files[name])

    async def find(self, name: str) -> LoraInfo | None:
        """Return what the header tells of a LoRA, or None where none has this name, at any number of others."""
        folders = (await self._reachable()).folders
        if folders:
            return await to_thread.run_sync(self._found, folders, name)
        files = await self._elsewhere().files()
        return await self._info_elsewhere(files[name]) if name in files else None

    async def having(self, sha256: str) -> LoraInfo | None:
        """Return the LoRA with these bytes that went to another machine, where it may have got another name."""
        if (await self._places()).folders:
            return None
        files = list((await self._elsewhere().files()).values())
        known = await to_thread.run_sync(self._records.recall_all, files)
        found = [file for file in files if file.where in known and known[file.where].sha256 == sha256]
        return info_of(found[0], known[found[0].where]) if found else None

    async def work_folder(self) -> Path:
        """Return where what arrives is kept until it is whole; raises Forbidden or NotFound where nothing can be sent.

        It is on the file system of the loras folder, where that is on this disk.
        """
        folders = (await self._reachable()).folders
        if folders:
            return folders[0] / WORK_FOLDER
        if self._staging is None:
            raise _no_access()
        return self._staging

    async def accept(self, name: str, *, overwrite: bool, size_bytes: int = 0) -> str:
        """Return the name that `install` would ask for; raises what it would raise, before any byte was sent."""
        accepted = accepted_name(name)
        folders = (await self._reachable()).folders
        if folders:
            exists = await to_thread.run_sync(_is_taken, folders[0] / accepted)
        else:
            await self._elsewhere().require_way(accepted, size_bytes)
            exists = accepted in await self._elsewhere().files()
        if exists and not overwrite:
            raise taken(accepted)
        return accepted

    async def install(
        self,
        part: Path,
        name: str,
        *,
        overwrite: bool = False,
        metadata: Mapping[str, Any] | None = None,
        sha256: str | None = None,
    ) -> LoraInfo:
        """Check a finished file and give it its name among ComfyUI's LoRAs; it appears there whole or not at all.

        On this disk `part` must lie on the file system of the folder, and is moved away; to another machine it is
        sent, where it may get another name. `metadata` is kept beside the LoRA, and `sha256` (hex) is believed. Raises
        InvalidArguments for a file that is no safetensors or a name that cannot be, Conflict when the name is taken
        and `overwrite` is false, and TooLarge for what ComfyUI's routes do not take.
        """
        accepted = accepted_name(name)
        place = await self._reachable()
        if place.folders:
            info, replaced = await self._publish(part, place.folders, accepted, overwrite, metadata, sha256)
        else:
            info, replaced = await self._send(part, accepted, overwrite, metadata, sha256)
        notices = (*info.notices, *(await self._tell_replaced(info.name) if replaced else ()), *place.warnings)
        return await self.with_listing(replace(info, notices=notices))

    async def with_listing(self, info: LoraInfo) -> LoraInfo:
        """Return a LoRA with whether ComfyUI lists it, and what to do where it does not."""
        if self._listed is None:
            return info
        listed = await self._listed(info.name)
        if listed is None:
            words = "ComfyUI did not answer: whether it lists the LoRA is seen once it runs, by `list-models`."
        else:
            words = (
                f"ComfyUI does not list `{info.name}`, so that no workflow can use it: it looks into other folders. Set"
                " COMFYUI_DIR to the folder of the ComfyUI that runs, and send it again."
            )
        return replace(info, listed=listed, notices=info.notices if listed else (*info.notices, words))

    async def delete(self, name: str) -> LoraInfo:
        """Delete a LoRA, what was supplied with it, and the sub-folders that this empties; returns what it was.

        Raises NotFound with the closest names, and Forbidden for one on another machine.
        """
        folders = (await self._reachable()).folders
        if not folders:
            raise out_of_reach((await self.info(name)).name, "delete")

        def remove() -> LoraInfo:
            info = self._info(folders, name, None)
            path = self._find(folders, name).path
            assert path is not None
            lora_folder.take_away(path, folders)
            return info

        return await to_thread.run_sync(remove)

    async def _publish(
        self,
        part: Path,
        folders: Sequence[Path],
        name: str,
        overwrite: bool,
        metadata: Mapping[str, Any] | None,
        sha256: str | None,
    ) -> tuple[LoraInfo, bool]:
        target = folders[0] / name
        beside = supplied_path(target)

        def publish() -> tuple[LoraInfo, bool]:
            _require_lora(part, name)
            replaced = _is_taken(target)
            if replaced and not overwrite:
                raise taken(name)
            # What was said of the old file does not hold for the new one; without it for a moment is better than wrong.
            beside.unlink(missing_ok=True)
            publish_now(part, target, overwrite=overwrite)
            if metadata:
                write_now(beside, orjson.dumps(dict(metadata), option=orjson.OPT_INDENT_2))
            file = self._find(folders, name)
            remembered = Remembered(file.stamp, lora_folder.examine(file), sha256)
            self._records.remember({file.where: remembered})
            return info_of(file, remembered), replaced

        return await to_thread.run_sync(publish)

    async def _send(
        self, part: Path, name: str, overwrite: bool, metadata: Mapping[str, Any] | None, sha256: str | None
    ) -> tuple[LoraInfo, bool]:
        await to_thread.run_sync(_require_lora, part, name)
        remote = self._elsewhere()
        before = await remote.files()
        if name in before and not overwrite:
            raise taken(name)
        said = await to_thread.run_sync(describe_file, part)
        # There it cannot be read again.
        sha256 = sha256 or await sha256_of_file(part)
        stored = await remote.send(part, name, overwrite=overwrite)
        file = (await remote.files()).get(stored) or LoraFile(stored, "", None, None, "", remote=True)
        # Its bytes were here, so that more is known of it than ComfyUI would show.
        remembered = Remembered(file.stamp, Examined(said, None, dict(metadata or {})), sha256)
        if file.stamp:
            await to_thread.run_sync(self._records.remember, {file.where: remembered})
        info = info_of(file, remembered)
        if stored != name:
            info = replace(info, notices=(*info.notices, f"ComfyUI stored `{name}` as `{stored}`: use that name."))
        return info, stored in before

    async def _tell_replaced(self, name: str) -> tuple[str, ...]:
        if self._replaced is None:
            return ()
        try:
            await self._replaced(name)
        except ToolError as error:
            # The file is published: to fail now would be to say that it is not.
            return (f"ComfyUI may go on with the old weights of `{name}` until it is restarted. {error.message}",)
        return ()

    async def _reachable(self) -> Place:
        place = await self._places()
        if not place.folders and self._remote is None:
            raise _no_access()
        if place.folders and not await to_thread.run_sync(place.folders[0].is_dir):
            # To create it would be to fill a folder that ComfyUI does not look into.
            raise NotFound(
                f"The loras folder {place.folders[0]} does not exist.",
                hint="Check COMFYUI_DIR; ComfyUI creates the folder when it is installed.",
                details={"setting": "COMFYUI_DIR", "folder": str(place.folders[0])},
            )
        return place

    def _elsewhere(self) -> RemoteLoras:
        if self._remote is None:
            raise _no_access()
        return self._remote

    async def _by_metadata(self, files: Sequence[LoraFile]) -> Sequence[Known]:
        known = await to_thread.run_sync(self._records.recall_all, files)
        read = await self._elsewhere().examine(file for file in files if file.where not in known)
        await to_thread.run_sync(self._records.remember, read)
        return [(file, read.get(file.where) or known[file.where]) for file in files]

    async def _info_elsewhere(self, file: LoraFile) -> LoraInfo:
        [(file, remembered)] = await self._by_metadata([file])
        assert remembered is not None
        return info_of(file, remembered)

    def _info(self, folders: Sequence[Path], name: str, hashing: Report | None) -> LoraInfo:
        file = self._find(folders, name)
        remembered = self._records.read(file)
        if hashing is not None and remembered.autov3 is None:
            # Outside the lock: a file of gigabytes takes seconds, and nobody else shall wait for it.
            size_bytes = file.size_bytes
            digests = hashes_of(
                Path(file.where), lambda done: from_thread.run(hashing, done, size_bytes, "computing digests")
            )
            remembered = Remembered(file.stamp, remembered.examined, digests.sha256, digests.autov3)
            self._records.remember({file.where: remembered})
        return info_of(file, remembered)

    def _found(self, folders: Sequence[Path], name: str) -> LoraInfo | None:
        file = lora_folder.find(folders, name)
        return info_of(file, self._records.read(file)) if file else None

    def _find(self, folders: Sequence[Path], name: str) -> LoraFile:
        file = lora_folder.find(folders, name)
        if file is None:
            raise absent(name, list(lora_folder.scan(folders)))
        return file


def _is_taken(target: Path) -> bool:
    """Return whether a file has this name, or a link that leads nowhere; raises Conflict where no file can have it."""
    require_free_path(target)
    return os.path.lexists(target)


def _no_access() -> Forbidden:
    return Forbidden(
        "This server has no access to ComfyUI's loras folder.",
        hint="Set COMFYUI_DIR to ComfyUI's folder on this machine, and start this server again.",
        details={"setting": "COMFYUI_DIR"},
    )


def _require_lora(part: Path, name: str) -> None:
    try:
        read_header(part)
    except BadSafetensors as error:
        raise InvalidArguments(
            f"`{name}` is no usable safetensors file. {error}",
            hint="Check the file where it came from (its size and sha256), and send it again.",
            details={"filename": name, "reason": error.reason},
        ) from None
