"""Serve ComfyUI as MCP tools: LoRAs in, pictures out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_mcp.service import GenerationService

__all__ = ["GenerationService"]


def __getattr__(name: str) -> object:
    # Who imports a part of this package does not pay for all of it.
    if name in __all__:
        from comfy_mcp import service

        return getattr(service, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
