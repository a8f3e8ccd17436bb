"""Where trained LoRAs lie: a folder of this machine, or the disk behind AI Toolkit's API."""

from pathlib import Path
from typing import Any, Protocol

from aitk_mcp.models.models import Model
from mcp_toolserver.tools import Report, unheard


class ModelHome(Protocol):
    """The LoRAs of a trainer."""

    @property
    def outputs(self) -> Path:
        """Return the outputs folder, on the trainer's machine."""
        ...

    async def all(self) -> list[Model]:
        """Return every LoRA, the newest first; the two of a pair stand together."""
        ...

    async def find(self, model_path: str) -> Model:
        """Return a LoRA by its path, with or without `.safetensors`, or by the name of its job.

        Raises NotFound with the closest paths, and InvalidArguments for a path that leads elsewhere.
        """
        ...

    async def sha256(self, model: Model, report: Report = unheard) -> str:
        """Return the digest of a LoRA in hex; it is computed once for each state of the file."""
        ...

    async def read(self, model: Model) -> bytes:
        """Return the bytes of a LoRA."""
        ...

    async def training_config(self, model: Model) -> dict[str, Any] | None:
        """Return the config document that the trainer kept beside a LoRA, or None where there is none to read."""
        ...

    async def export(self, source: Model, name: str, *, overwrite: bool) -> Model:
        """Copy a LoRA to `_exported/<name>.safetensors`, byte for byte; the same export again answers the same.

        Raises Conflict where another file bears the name and `overwrite` is false.
        """
        ...

    async def delete(self, model: Model) -> None:
        """Delete a LoRA from the disk; raises NotFound where it is gone already."""
        ...
