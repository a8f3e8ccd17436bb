"""The LoRAs of ComfyUI's loras folder: list, inspect, install, delete."""

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import orjson
from anyio import from_thread, to_thread

from comfy_mcp.loras import folder as lora_folder
from comfy_mcp.loras.cache import LoraCache, Remembered
from comfy_mcp.loras.folder import LoraFile, supplied_path
from comfy_mcp.loras.names import absent, accepted_name, taken
from lora_files.architectures import UNKNOWN
from lora_files.describe import LoraDescription
from lora_files.hashes import FileHashes, autov2_of, hashes_of
from lora_files.header import BadSafetensors, read_header
from mcp_toolserver.errors import Forbidden, InvalidArguments, NotFound, ToolError
from mcp_toolserver.files import publish, sync_directory, write_file_atomically
from mcp_toolserver.tools import Report, unheard

Sort = Literal["name", "modified", "size"]
Folders = Callable[[], Awaitable[Sequence[Path]]]
"""Return the loras folders on this disk, the one to write to first; empty where there is no access."""

Replaced = Callable[[str], Awaitable[None]]
"""Be told that the LoRA of this name has other bytes now: ComfyUI keeps the old ones in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraInfo:
    """A LoRA as it lies on disk: `description` or, where it cannot be read, `problem`.

    `supplied` is what the caller of an upload sent with it; `hashes` are there once they were computed; `notices` are
    what the caller should know of the call that answered with this.
    """

    name: str
    path: Path
    size_bytes: int
    modified: datetime
    description: LoraDescription | None
    problem: str | None
    supplied: Mapping[str, Any]
    hashes: FileHashes | None = None
    notices: tuple[str, ...] = ()

    @property
    def trigger_words(self) -> list[str]:
        """Return the words that call its subject."""
        return list(self.description.trigger_words) if self.description else []

    @property
    def architecture(self) -> str:
        """Return what kind of model it fits, or `unknown`."""
        return self.description.architecture if self.description else UNKNOWN


@dataclass(frozen=True, slots=True)
class LoraPage:
    """One page of a list: `total` counts all that match, `next_cursor` continues after this page."""

    loras: list[LoraInfo]
    total: int
    next_cursor: str | None


class LoraLibrary:
    """The LoRAs that ComfyUI's loaders see.

    `folders` is asked at each call, so that the engine may change under a running server. `cache_file` keeps what was
    read from one start to the next. `replaced` is told after a LoRA was overwritten.
    """

    def __init__(self, folders: Folders, *, cache_file: Path | None = None, replaced: Replaced | None = None) -> None:
        self._folders = folders
        self._cache = LoraCache(cache_file) if cache_file else None
        self._replaced = replaced
        self._known: dict[str, Remembered] | None = None
        # Scans run in threads, several at once.
        self._lock = Lock()

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
        not from this list, and Forbidden where there is no access to the folder.
        """
        after = _read_cursor(cursor, sort) if cursor else None
        words = query.lower().replace("\\", "/").split() if query else []
        folders = await self._reachable()

        def look() -> LoraPage:
            found = [
                (file, remembered)
                for file, remembered in self._scan(folders)
                if _matches(file, remembered.examined.description, architecture, words)
            ]
            found.sort(key=lambda pair: _place(pair[0], sort))
            rest = [pair for pair in found if after is None or _place(pair[0], sort) > after]
            page = [_info_of(file, remembered) for file, remembered in rest[:limit]]
            following = _write_cursor(sort, rest[limit - 1][0]) if len(rest) > limit else None
            return LoraPage(page, len(found), following)

        return await to_thread.run_sync(look)

    async def info(self, name: str, *, hashes: bool = True, report: Report = unheard) -> LoraInfo:
        """Return what is known of a LoRA; without `hashes` only its header is read.

        `report` hears how far the digests of a large file are. Raises NotFound with the closest names.
        """
        folders = await self._reachable()
        return await to_thread.run_sync(self._info, folders, name, report if hashes else None)

    async def path_of(self, name: str) -> Path:
        """Return where the LoRA of exactly this name lies; raises NotFound with the closest names."""
        folders = await self._reachable()
        return (await to_thread.run_sync(self._find, folders, name)).path

    async def folder(self) -> Path:
        """Return the folder that LoRAs are written to; raises Forbidden or NotFound where there is none."""
        return (await self._reachable())[0]

    async def accept(self, name: str, *, overwrite: bool) -> str:
        """Return the name that `install` would give; raises what it would raise, before any byte was sent."""
        accepted = accepted_name(name)
        target = await self._target(accepted)
        if not overwrite and await to_thread.run_sync(target.exists):
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
        """Check a finished file and give it its name in the loras folder; it appears there whole or not at all.

        `part` must lie on the file system of the folder and is moved away. `metadata` is kept beside the LoRA, and
        `sha256` (hex) is believed. Raises InvalidArguments for a file that is no safetensors or a name that cannot be,
        and Conflict when the name is taken and `overwrite` is false.
        """
        accepted = accepted_name(name)
        target = await self._target(accepted)
        await to_thread.run_sync(_require_lora, part, accepted)
        replaced = await to_thread.run_sync(target.exists)
        if replaced and not overwrite:
            raise taken(accepted)
        beside = supplied_path(target)
        # What was said of the old file does not hold for the new one; without it for a moment is better than wrong.
        await to_thread.run_sync(partial(beside.unlink, missing_ok=True))
        await publish(part, target, overwrite=overwrite)
        if metadata:
            await write_file_atomically(beside, orjson.dumps(dict(metadata), option=orjson.OPT_INDENT_2))
        notices = await self._tell_replaced(accepted) if replaced else ()
        info = await to_thread.run_sync(self._installed, await self._reachable(), accepted, sha256)
        return replace(info, notices=notices)

    async def delete(self, name: str) -> LoraInfo:
        """Delete a LoRA and what was supplied with it; returns what it was. Raises NotFound with the closest names."""
        folders = await self._reachable()

        def remove() -> LoraInfo:
            info = self._info(folders, name, None)
            info.path.unlink()
            supplied_path(info.path).unlink(missing_ok=True)
            sync_directory(info.path.parent)
            return info

        return await to_thread.run_sync(remove)

    async def _tell_replaced(self, name: str) -> tuple[str, ...]:
        if self._replaced is None:
            return ()
        try:
            await self._replaced(name)
        except ToolError as error:
            # The file is published: to fail now would be to say that it is not.
            return (f"ComfyUI may go on with the old weights of `{name}` until it is restarted. {error.message}",)
        return ()

    async def _reachable(self) -> Sequence[Path]:
        folders = await self._folders()
        if not folders:
            raise Forbidden(
                "This server has no access to ComfyUI's loras folder.",
                hint="Set COMFYUI_DIR to ComfyUI's folder on this machine, and start this server again.",
                details={"setting": "COMFYUI_DIR"},
            )
        if not await to_thread.run_sync(folders[0].is_dir):
            # To create it would be to fill a folder that ComfyUI does not look into.
            raise NotFound(
                f"The loras folder {folders[0]} does not exist.",
                hint="Check COMFYUI_DIR; ComfyUI creates the folder when it is installed.",
                details={"setting": "COMFYUI_DIR", "folder": str(folders[0])},
            )
        return folders

    async def _target(self, name: str) -> Path:
        return await self.folder() / name

    def _scan(self, folders: Sequence[Path]) -> Sequence[tuple[LoraFile, Remembered]]:
        with self._lock:
            files = {file.where: file for file in lora_folder.scan(folders).values()}
            known = self._remembered()
            changed = [at for at, file in files.items() if at not in known or known[at].stamp != file.stamp]
            for at in changed:
                known[at] = Remembered(files[at].stamp, lora_folder.examine(files[at]))
            gone = [at for at in known if at not in files]
            for at in gone:
                del known[at]
            if self._cache is not None:
                self._cache.store([(at, known[at]) for at in changed], gone)
            return [(file, known[at]) for at, file in files.items()]

    def _info(self, folders: Sequence[Path], name: str, hashing: Report | None) -> LoraInfo:
        file = self._find(folders, name)
        remembered = self._recall(file)
        if hashing is not None and remembered.autov3 is None:
            # Outside the lock: a file of gigabytes takes seconds, and nobody else shall wait for it.
            digests = hashes_of(
                file.path, lambda done: from_thread.run(hashing, done, file.size_bytes, "computing digests")
            )
            remembered = Remembered(file.stamp, remembered.examined, digests.sha256, digests.autov3)
            self._remember(file, remembered)
        return _info_of(file, remembered)

    def _installed(self, folders: Sequence[Path], name: str, sha256: str | None) -> LoraInfo:
        file = self._find(folders, name)
        remembered = Remembered(file.stamp, lora_folder.examine(file), sha256)
        self._remember(file, remembered)
        return _info_of(file, remembered)

    def _recall(self, file: LoraFile) -> Remembered:
        with self._lock:
            remembered = self._remembered().get(file.where)
        if remembered is None or remembered.stamp != file.stamp:
            remembered = Remembered(file.stamp, lora_folder.examine(file))
            self._remember(file, remembered)
        return remembered

    def _remember(self, file: LoraFile, remembered: Remembered) -> None:
        with self._lock:
            self._remembered()[file.where] = remembered
            if self._cache is not None:
                self._cache.store([(file.where, remembered)])

    def _remembered(self) -> dict[str, Remembered]:
        if self._known is None:
            self._known = self._cache.load() if self._cache is not None else {}
        return self._known

    def _find(self, folders: Sequence[Path], name: str) -> LoraFile:
        file = lora_folder.find(folders, name)
        if file is None:
            raise absent(name, list(lora_folder.scan(folders)))
        return file


def _info_of(file: LoraFile, remembered: Remembered) -> LoraInfo:
    examined, sha256, autov3 = remembered.examined, remembered.sha256, remembered.autov3
    return LoraInfo(
        name=file.name,
        path=file.path,
        size_bytes=file.size_bytes,
        modified=file.modified,
        description=examined.description,
        problem=examined.problem,
        supplied=examined.supplied,
        hashes=FileHashes(sha256, autov2_of(sha256), autov3) if sha256 else None,
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


def _matches(
    file: LoraFile, description: LoraDescription | None, architecture: str | None, words: Sequence[str]
) -> bool:
    if architecture is not None and architecture != (description.architecture if description else UNKNOWN):
        return False
    text = "\n".join((file.name, *(description.trigger_words if description else ()))).lower() if words else ""
    return all(word in text for word in words)


def _place(file: LoraFile, sort: Sort) -> tuple[float, str]:
    if sort == "modified":
        return -file.modified_s, file.name
    return (-file.size_bytes if sort == "size" else 0), file.name


def _write_cursor(sort: Sort, last: LoraFile) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([sort, *_place(last, sort)])).decode().rstrip("=")


def _read_cursor(cursor: str, sort: Sort) -> tuple[float, str]:
    try:
        value: Any = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        written, place, name = value
        if written == sort:
            return float(place), str(name)
    except (binascii.Error, ValueError, TypeError):
        pass
    raise InvalidArguments(
        "`cursor` is not from this list.",
        hint="Send `next_cursor` of the page before, with the same `sort`; leave it out for the first page.",
        details={"field": "cursor", "value": cursor[:200]},
    )
