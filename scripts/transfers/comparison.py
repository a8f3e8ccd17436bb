"""Which of the trainer's models ComfyUI has, told by their digests: names say little, and LoRAs of one rank are of one
size."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from mcp_toolserver.uploads.sender import CallTool
from transfers.trainer import Trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A model as list-exported-models has it, the name that ComfyUI has it under, and whether its own name is taken.

    `name_taken`: by a LoRA with other bytes, or with bytes that ComfyUI does not tell.
    """

    model: dict[str, Any]
    there_as: str | None
    name_taken: bool


class Comparison:
    """Compare the models of a trainer with the LoRAs of ComfyUI; only files of one size or name are read for that."""

    def __init__(self, trainer: Trainer, comfy: CallTool) -> None:
        self._trainer = trainer
        self._comfy = comfy
        self._digests: dict[str, str | None] = {}

    async def models(self) -> AsyncGenerator[Compared]:
        """Yield the finished models, the newest first."""
        models = await self._trainer.finished()
        sizes = await self._sizes() if models else {}
        for model in models:
            there_as = await self._there_as(model, sizes)
            own: str = model["filename"]
            yield Compared(model=model, there_as=there_as, name_taken=own in sizes and there_as != own)

    async def _sizes(self) -> dict[str, int | None]:
        sizes: dict[str, int | None] = {}
        cursor: str | None = None
        while True:
            page = await self._comfy("list-loras", {"limit": 1000, "cursor": cursor})
            sizes.update({lora["name"]: lora["size_bytes"] for lora in page["loras"]})
            cursor = page["next_cursor"]
            if cursor is None:
                return sizes

    async def _there_as(self, model: dict[str, Any], sizes: dict[str, int | None]) -> str | None:
        own: str = model["filename"]
        # Its own name first: that is where it is, mostly.
        names = [own] if sizes.get(own, -1) in (None, model["size_bytes"]) else []
        names += [name for name, size_bytes in sizes.items() if name != own and size_bytes == model["size_bytes"]]
        if not names:
            return None
        sha256 = model["sha256"] or (await self._trainer.told(model["model_path"])).sha256
        for name in names:
            if name not in self._digests:
                self._digests[name] = (await self._comfy("get-lora-info", {"lora_name": name}))["sha256"]
            if self._digests[name] == sha256:
                return name
        return None
