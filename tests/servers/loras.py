"""A library of LoRAs over real folders, its tools, and the files that the tests put there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_http import fixed
from comfy_mcp.engines.selection import Selected
from comfy_mcp.loras.checks import LoraChecks
from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.models.folders import ModelFolders, Place
from comfy_mcp.models.models import Models
from comfy_mcp.tools.loras import lora_tools
from mcp_toolserver.tools import Call, Toolbox
from tests.unit.lora_files.files import AI_TOOLKIT_METADATA, FLUX_AI_TOOLKIT, pairs, write

SD15 = {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (320, 768)}
TINY = {"transformer.single_transformer_blocks.0.attn.to_q": (96, 96)}


def library_over(folders: Sequence[Path], cache_file: Path | None = None) -> LoraLibrary:
    """Return a library over fixed folders."""

    async def answer() -> Place:
        return Place(tuple(folders))

    return LoraLibrary(answer, cache_file=cache_file)


def toolbox(library: LoraLibrary, *, max_base64_bytes: int = 10_000_000) -> Toolbox:
    """Return the LoRA tools over a library, with no ComfyUI to ask."""
    nowhere = ComfyUI(fixed("http://127.0.0.1:9"))
    checks = checks_over(library, nowhere, Path())
    return Toolbox(lora_tools(library, checks, max_base64_bytes=max_base64_bytes))


def checks_over(library: LoraLibrary, comfyui: ComfyUI, embedded_dir: Path) -> LoraChecks:
    """Return the checks over a library and a ComfyUI whose models lie in `embedded_dir`."""

    async def selected() -> Selected:
        return Selected(engine="embedded", url=await comfyui.address())

    folders = ModelFolders(comfyui, selected, comfyui_dir=None, embedded_dir=embedded_dir)
    return LoraChecks(library, Models(comfyui, folders.header), folders)


async def call(library: LoraLibrary, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool as every door does."""
    return await toolbox(library).call(tool, arguments, Call(base_url="http://host:8189"))


def flux(path: Path) -> Path:
    """Write a FLUX LoRA as AI Toolkit writes it."""
    return write(path, pairs(FLUX_AI_TOOLKIT, rank=16), AI_TOOLKIT_METADATA)
