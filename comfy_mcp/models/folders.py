"""Find the models folders of the running engine on this machine's own disk, and tell where it reads others."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from anyio import to_thread

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_http import is_loopback
from comfy_mcp.engines.selection import Selected
from comfy_mcp.models.headers import Headers
from comfy_mcp.models.layout import EXTRA_PATHS, layout_of
from comfy_mcp.models.models import LORAS
from lora_files.header import BadSafetensors, SafetensorsHeader
from mcp_toolserver.errors import ToolError

# ComfyUI learns its folders at its start: it need not be asked at each call, and is asked again soon after a restart.
_TOLD_FOR_S = 20.0
# Names enough to tell one folder from another; comparing ten thousand would take longer than listing them.
_COMPARED_NAMES = 200


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one kind of model on this disk, the one to write to first; empty where there is no access.

    `warnings` say what is wrong between the settings and what the running ComfyUI reads.
    """

    folders: tuple[Path, ...]
    warnings: tuple[str, ...] = ()


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
        self._headers = Headers()
        self._told: dict[tuple[str, str], tuple[float, Place]] = {}

    async def of(self, kind: str) -> tuple[Path, ...]:
        """Return the folders of one kind of model, the one to write to first; empty where none is on this disk."""
        return (await self.place(kind)).folders

    async def place(self, kind: str) -> Place:
        """Return the folders of one kind of model, and what is wrong with them."""
        selected = await self._selected()
        is_own = selected.engine == "embedded"
        if not is_own and self._comfyui_dir is None and not is_loopback(selected.url):
            return Place(())
        until_s, known = self._told.get((selected.url, kind), (0.0, Place(())))
        if monotonic() >= until_s:
            if is_own:
                known = Place(await to_thread.run_sync(_own_folders, self._embedded_dir, kind))
            else:
                known = await self._compared(kind, selected.url)
            self._told[selected.url, kind] = (monotonic() + _TOLD_FOR_S, known)
        return known

    async def on_disk(self, kind: str) -> tuple[Path, ...]:
        """Return the folders of one kind of model as far as they are known without asking ComfyUI."""
        told = [place.folders for (_, known_kind), (_, place) in self._told.items() if known_kind == kind]
        if self._comfyui_dir is None and told:
            return told[-1]
        return await to_thread.run_sync(_own_folders, self._comfyui_dir or self._embedded_dir, kind)

    async def doubts(self) -> tuple[str, ...]:
        """Return what is wrong between the settings and the folders that the running ComfyUI reads."""
        return (await self.place(LORAS)).warnings

    async def header(self, kind: str, name: str) -> SafetensorsHeader | None:
        """Return the header of a model that lies on this disk, or None where it does not or is no safetensors file."""
        folders = await self.of(kind)
        return await to_thread.run_sync(self._header, folders, name) if folders else None

    async def header_at(self, path: Path) -> SafetensorsHeader:
        """Return the header of a file on this disk; raises BadSafetensors, and OSError as open() does."""
        return await to_thread.run_sync(self._headers.read, path)

    async def problem(self, kind: str, name: str) -> str | None:
        """Say why no loader can read a model, or None where nothing is known against it."""
        return (await self.problems(kind, [name])).get(name)

    async def problems(self, kind: str, names: Sequence[str]) -> Mapping[str, str]:
        """Say why no loader can read models of one kind, by name; those without a known problem are left out."""
        folders = await self.of(kind)
        return await to_thread.run_sync(self._problems, folders, names) if folders and names else {}

    def _header(self, folders: tuple[Path, ...], name: str) -> SafetensorsHeader | None:
        path = _file(folders, name)
        try:
            return self._headers.read(path) if path else None
        except (BadSafetensors, OSError):
            return None

    def _problems(self, folders: tuple[Path, ...], names: Sequence[str]) -> Mapping[str, str]:
        found = {name: self._headers.problem(path) for name in names if (path := _file(folders, name))}
        return {name: problem for name, problem in found.items() if problem is not None}

    async def _compared(self, kind: str, url: str) -> Place:
        if self._comfyui_dir is None:
            told = [Path(path) for path in (await self._comfyui.folder_paths()).get(kind, ())]
            listed = await self._comfyui.models(kind) or ()
            return Place(await to_thread.run_sync(_really_there, told, listed))
        layout = await to_thread.run_sync(layout_of, self._comfyui_dir, kind)
        own = await to_thread.run_sync(_existing_first, layout.folders)
        problems = (layout.problem,) if layout.problem else ()
        try:
            told = [Path(path) for path in (await self._comfyui.folder_paths()).get(kind, ())]
            listed = await self._comfyui.models(kind) or ()
        except ToolError:
            # It can be compared once it runs; the folders are there in any case.
            return Place(own, problems)
        same = await to_thread.run_sync(_same_folders, told, layout.folders)
        if same or not told:
            return Place(same or own, problems)
        missing = await to_thread.run_sync(_missing, own, listed)
        if listed and missing is None:
            # In a container the same folder has another name, and holds the same files.
            return Place(own, problems)
        words = await to_thread.run_sync(_not_read, self._comfyui_dir, url, kind, told, missing)
        return Place(own, (*problems, words))


def _not_read(comfyui_dir: Path, url: str, kind: str, told: Sequence[Path], missing: str | None) -> str:
    lists = f", and lists `{missing}`, which is not here" if missing else ""
    # An empty folder in a container cannot be told from this one.
    certain = missing is not None or any(path.is_dir() for path in told)
    reads = ", ".join(str(path) for path in told)
    return (
        f"The ComfyUI at {url} {'does not' if certain else 'may not'} read COMFYUI_DIR ({comfyui_dir}): for {kind} it "
        f"reads {reads}{lists}. Set COMFYUI_DIR to its own folder, or add this one to its "
        f"{EXTRA_PATHS}."
    )


def _own_folders(comfyui_dir: Path, kind: str) -> tuple[Path, ...]:
    return _existing_first(layout_of(comfyui_dir, kind).folders)


def _same_folders(told: Sequence[Path], own: Sequence[Path]) -> tuple[Path, ...]:
    """Return ComfyUI's folders that are here, in its order, where at least one of them is one of our own."""
    real = {path.resolve() for path in own}
    here = tuple(path for path in told if path.is_dir())
    return here if any(path.resolve() in real for path in here) else ()


def _existing_first(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Return the folders that exist, or all of them where none does, so that an error can name the first."""
    return tuple(path for path in folders if path.is_dir()) or tuple(folders)


def _missing(folders: Sequence[Path], listed: Sequence[str]) -> str | None:
    names = listed[:_COMPARED_NAMES]
    return next((name for name in names if not any((folder / name).exists() for folder in folders)), None)


def _really_there(told: list[Path], listed: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the folders that exist here, unless files that ComfyUI lists are missing: then it is in a container.

    A forwarded port makes another machine look like this one, and the same path may exist on both.
    """
    folders = tuple(path for path in told if path.is_dir())
    return folders if all(any((folder / name).exists() for folder in folders) for name in listed) else ()


def _file(folders: tuple[Path, ...], name: str) -> Path | None:
    return next((path for folder in folders if (path := folder / name).is_file()), None)
