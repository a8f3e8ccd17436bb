"""The folder of one kind of model on this disk: what may come in, under which name, and what goes."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anyio import to_thread

from comfy_mcp.models.folders import Place
from lora_files.header import BadSafetensors, SafetensorsHeader, read_header
from lora_files.networks import network_of
from mcp_toolserver.errors import Conflict, Forbidden, InvalidArguments, NotFound, ToolError, closest
from mcp_toolserver.files import leave_no_empty_folder, publish, safe_relative

WORK_FOLDER = ".downloads"
"""The dot-directory for what has not come whole; ComfyUI lists no `.part` in it."""

_HOLD_MODELS = frozenset({"checkpoints", "diffusion_models"})


class Placed(Protocol):
    """A file that was given its name: what loaders take, and what the caller should know."""

    @property
    def name(self) -> str:
        """Return the name that loaders take."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """Return what the caller should know."""
        ...


class Shelf(Protocol):
    """Where one kind of model goes; the library of LoRAs is one, and every plain folder."""

    async def work_folder(self) -> Path:
        """Return where a file is kept until it is whole."""
        ...

    async def accept(self, name: str, *, overwrite: bool, size_bytes: int = 0) -> str:
        """Return the name that a file will have; raises what `install` would raise."""
        ...

    async def install(self, part: Path, name: str, *, overwrite: bool = False, sha256: str | None = None) -> Placed:
        """Give a whole file its name."""
        ...


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """A model that was given its name."""

    name: str
    notices: tuple[str, ...] = ()


class ModelShelf:
    """The folders of one kind of model, and the names that ComfyUI lists there."""

    def __init__(
        self,
        kind: str,
        places: Callable[[], Awaitable[Place]],
        listed: Callable[[], Awaitable[Sequence[str]]],
    ) -> None:
        self._kind = kind
        self._places = places
        self._listed = listed

    async def work_folder(self) -> Path:
        """Return where a file is kept until it is whole; raises Forbidden without a folder here."""
        return (await self._folders())[0] / WORK_FOLDER

    async def accept(self, name: str, *, overwrite: bool, size_bytes: int = 0) -> str:
        """Return the name that a file will have; raises InvalidArguments, Conflict or Forbidden."""
        accepted = accepted_model(name)
        folders = await self._folders()
        if not overwrite and await to_thread.run_sync((folders[0] / accepted).exists):
            raise _taken(self._kind, accepted)
        return accepted

    async def install(
        self, part: Path, name: str, *, overwrite: bool = False, sha256: str | None = None
    ) -> PlacedModel:
        """Check a whole file and give it its name; `part` is moved away."""
        place = await self._places()
        folders = await self._folders()

        def check() -> None:
            try:
                require_kind(read_header(part), self._kind)
            except BadSafetensors as error:
                raise unusable(name, error) from None

        await to_thread.run_sync(check)
        await publish(part, folders[0] / name, overwrite=overwrite)
        try:
            unlisted = name not in {each.replace("\\", "/") for each in await self._listed()}
        except ToolError:
            return PlacedModel(name, (*place.warnings, "ComfyUI did not answer: whether it lists the file is unknown."))
        words = f"ComfyUI does not list `{name}`: it looks into other folders. Set COMFYUI_DIR to its own folder."
        return PlacedModel(name, (*place.warnings, words) if unlisted else place.warnings)

    async def delete(self, name: str) -> int:
        """Delete a model for good and return its size in bytes; raises NotFound with the closest names."""
        folders = await self._folders()
        wanted = safe_relative(name).as_posix()

        def remove() -> int | None:
            for folder in folders:
                path = folder / wanted
                if path.is_file():
                    size_bytes = path.stat().st_size
                    path.unlink()
                    leave_no_empty_folder(path.parent, folders)
                    return size_bytes
            return None

        size_bytes = await to_thread.run_sync(remove)
        if size_bytes is None:
            names = await self._listed()
            matches = closest(name, names)
            raise NotFound(
                f"There is no `{name}` among the {self._kind}.",
                hint=f"Did you mean `{matches[0]}`?" if matches else "`list-models` has the names that there are.",
                details={"field": "filename", "value": name, "closest_matches": matches},
            )
        return size_bytes

    async def _folders(self) -> tuple[Path, ...]:
        folders = (await self._places()).folders
        if not folders or not await to_thread.run_sync(folders[0].is_dir):
            raise Forbidden(
                f"This server has no access to ComfyUI's folder of {self._kind}.",
                hint="Set COMFYUI_DIR to ComfyUI's folder on this machine, and start this server again.",
                details={"setting": "COMFYUI_DIR", "folders": [str(folder) for folder in folders]},
            )
        return folders


def accepted_model(name: str) -> str:
    """Return the name that a model will have; raises InvalidArguments for a format that can run code, or a bad name."""
    path = safe_relative(name)
    if path.suffix.lower() == ".safetensors":
        return path.as_posix()
    better = f"{path.with_suffix('').as_posix()}.safetensors"
    raise InvalidArguments(
        f"`filename` is {name[:200]!r}: only .safetensors files are taken, since other formats of models can run code.",
        hint=f"Find the model as .safetensors, and name it such as `{better}`.",
        details={"field": "filename", "value": name[:200], "closest_matches": [better]},
    )


def require_kind(header: SafetensorsHeader, kind: str) -> None:
    """Raise InvalidArguments for a LoRA among the models, and for a model among the LoRAs."""
    is_lora = bool(network_of(header).layers)
    if is_lora == (kind == "loras") or (not is_lora and kind not in {"loras", *_HOLD_MODELS}):
        return
    what, right = ("a LoRA", "loras") if is_lora else ("no LoRA", "checkpoints")
    raise InvalidArguments(
        f"The file is {what}, and `type` is `{kind}`.",
        hint=f"Call again with `type` = `{right}`.",
        details={"field": "type", "value": kind, "closest_matches": [right]},
    )


def unusable(name: str, error: BadSafetensors) -> InvalidArguments:
    """Say that a file cannot be loaded."""
    page = " The address of a page is not that of its file: often `/resolve/` stands there in place of `/blob/`."
    return InvalidArguments(
        f"`{name}` is no usable safetensors file. {error}",
        hint="Check the file where it comes from." + (page if error.reason == "html" else ""),
        details={"filename": name, "reason": error.reason},
    )


def _taken(kind: str, name: str) -> Conflict:
    return Conflict(
        f"There is a `{name}` among the {kind} already.",
        hint="Send `overwrite: true` to replace it, or choose another `filename`.",
        details={"filename": name, "type": kind},
    )
