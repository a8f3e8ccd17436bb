"""A LoRA as callers are told of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from comfy_mcp.loras.cache import Remembered
from comfy_mcp.loras.folder import LoraFile
from lora_files.architectures import UNKNOWN
from lora_files.describe import LoraDescription, LoraSaid
from lora_files.hashes import FileHashes, autov2_of

NOT_ALL_KNOWN = (
    "These LoRAs lie on ComfyUI's machine, and ComfyUI shows nothing of a file but its metadata: what is null is not"
    " known. Set COMFYUI_DIR where this server can reach ComfyUI's folder."
)
_BY_METADATA = (
    "Its rank, layers, loader and sha256 are not known: it lies on ComfyUI's machine, and ComfyUI shows nothing of a"
    " file but its metadata. Set COMFYUI_DIR where this server can reach ComfyUI's folder."
)
_NOTHING_SAID = (
    "ComfyUI shows no metadata of it: it has none, or a header over 1 MiB, or an extension in upper case, or it is"
    " broken."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraInfo:
    """A LoRA: what its file, or its metadata alone, says (`said`) or, where it cannot be read, `problem`.

    `path` is None for a LoRA on another machine, whose size and time may be unknown too. `supplied` is what the caller
    of an upload sent with it; `hashes` are there once they were computed; `notices` are what the caller should know of
    the call that answered with this. `listed` is whether ComfyUI lists it, None where nobody asked or answered.
    """

    name: str
    path: Path | None
    size_bytes: int | None
    modified: datetime | None
    said: LoraSaid | None
    problem: str | None
    supplied: Mapping[str, Any]
    hashes: FileHashes | None = None
    notices: tuple[str, ...] = ()
    listed: bool | None = None

    @property
    def description(self) -> LoraDescription | None:
        """Return what the whole header says, where it could be read."""
        return self.said if isinstance(self.said, LoraDescription) else None

    @property
    def by_metadata(self) -> bool:
        """Tell whether nothing but its metadata could be read."""
        return self.said is not None and self.description is None

    @property
    def trigger_words(self) -> list[str]:
        """Return the words that call its subject."""
        return list(self.said.trigger_words) if self.said else []

    @property
    def architecture(self) -> str:
        """Return what kind of model it fits, or `unknown`."""
        return self.said.architecture if self.said else UNKNOWN


def info_of(file: LoraFile, remembered: Remembered) -> LoraInfo:
    """Return what is known of a file."""
    examined, sha256, autov3 = remembered.examined, remembered.sha256, remembered.autov3
    info = LoraInfo(
        name=file.name,
        path=file.path,
        size_bytes=file.size_bytes,
        modified=None if file.modified_s is None else datetime.fromtimestamp(file.modified_s, UTC),
        said=examined.said,
        problem=examined.problem,
        supplied=examined.supplied,
        # Where no header can be read, nothing says where the tensors begin that AutoV3 is of.
        hashes=FileHashes(sha256, autov2_of(sha256), autov3 if examined.said else None) if sha256 else None,
    )
    if not info.by_metadata:
        return info
    silent = examined.said is not None and not examined.said.metadata
    return replace(info, notices=(_BY_METADATA, _NOTHING_SAID) if silent else (_BY_METADATA,))
