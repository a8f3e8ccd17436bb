"""Two servers for imports: aitk_mcp behind a road that a test watches, and a library that imports from it."""

import asyncio
import hashlib
import json
import os
import struct
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_http import fixed
from comfy_mcp.imports.imports import Imports
from comfy_mcp.imports.peer import AitkPeer
from comfy_mcp.loras.uploads import LoraUploads
from comfy_mcp.models.downloads import Downloads
from comfy_mcp.models.models import Models
from comfy_mcp.tools.imports import import_tools
from comfy_mcp.tools.uploads import upload_tools
from mcp_toolserver.outbound import Outbound, OutboundPolicy
from mcp_toolserver.retries import Patience
from mcp_toolserver.tools import Call, Report, Toolbox, unheard
from tests.fakes.model_road import ModelRoad
from tests.servers.aitk import settings_in
from tests.servers.loras import library_over, toolbox

T = TypeVar("T")
Serve = Callable[[ASGIApp], str]
QUICK = Patience(retries=2, first_wait_s=0.01, longest_wait_s=0.02)
CONFIG = "job: extension\nconfig:\n  name: cat\n  process:\n  - type: diffusion_trainer\n    trigger_word: tok\n"
RANK = 4


def lora_bytes(size_bytes: int, seed: int = 0) -> bytes:
    """Return a LoRA of about this size, with bytes that differ from place to place."""
    width = max(1, size_bytes // (4 * RANK))
    header: dict[str, object] = {"__metadata__": {"seed": str(seed)}}
    for index, (half, shape) in enumerate((("A", [RANK, width]), ("B", [width, RANK]))):
        start = index * 2 * RANK * width
        key = f"transformer.single_transformer_blocks.0.attn.to_q.lora_{half}.weight"
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [start, start + 2 * RANK * width]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + os.urandom(4 * RANK * width)


def save_model(outputs: Path, content: bytes, name: str = "cat") -> Path:
    """Leave a LoRA where a training does, by rename, with the config that it was trained by."""
    folder = outputs / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    part, path = folder / ".part", folder / f"{name}.safetensors"
    part.write_bytes(content)
    return part.replace(path)


@dataclass(frozen=True, slots=True)
class Pair:
    """The two sides: `model` is the trained file, `loras` the folder that it is to come to."""

    outputs: Path
    loras: Path
    road: ModelRoad
    url: str
    toolbox: Toolbox

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool as every door does."""
        return await self.heard(tool, unheard, arguments)

    async def heard(self, tool: str, report: Report, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call a tool, and hear how far it is."""
        return await self.toolbox.call(tool, arguments, Call(base_url="http://host:8189", report=report))

    async def bring(self, **arguments: Any) -> dict[str, Any]:
        """Import the model `cat`, or what the arguments say."""
        source = {} if "url" in arguments else {"model_path": "cat"}
        return await self.call("import-lora", **{**source, **arguments})

    def leftovers(self) -> list[str]:
        """Return what lies in the work folder beside the records of what was published."""
        return sorted(path.name for path in (self.loras / ".uploads").rglob("*") if path.suffix in (".import", ".part"))


def sha256(data: bytes) -> str:
    """Return the digest in hex."""
    return hashlib.sha256(data).hexdigest()


@asynccontextmanager
async def pair_of(folder: Path, serve: Serve, **given: Any) -> AsyncGenerator[Pair]:
    """Serve an aitk_mcp in a thread of its own, and run imports from it; `given` is for `importing`."""
    outputs, loras = folder / "aitk" / "output", folder / "loras"
    loras.mkdir()
    road = ModelRoad(create_app(settings_in(folder / "aitk")))
    url = serve(road)
    async with importing(loras, url, folder / "cache.sqlite", **given) as tools:
        yield Pair(outputs, loras, road, url, tools)


@asynccontextmanager
async def in_one_task(context: AbstractAsyncContextManager[T]) -> AsyncGenerator[T]:
    """Enter and leave a context in one task, as task groups want; a fixture ends in another than it began in."""
    entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def hold() -> None:
        async with context as value:
            entered.set_result(value)
            await over.wait()

    holding = asyncio.ensure_future(hold())
    await asyncio.wait((holding, entered), return_when=asyncio.FIRST_COMPLETED)
    try:
        yield entered.result()
    finally:
        over.set()
        await holding


@asynccontextmanager
async def importing(
    loras: Path,
    url: str,
    cache_file: Path,
    *,
    token: str | None = None,
    connections: int = 1,
    policy: OutboundPolicy | None = None,
    comfyui_url: str = "http://127.0.0.1:9",
) -> AsyncGenerator[Toolbox]:
    """Run imports into a folder from the aitk_mcp at `url`, and give the tools of that server.

    ComfyUI is asked only by imports from the web, whose `policy` may allow what no server's settings do.
    """
    library = library_over([loras], cache_file)
    comfyui = ComfyUI(fixed(comfyui_url))
    uploads = LoraUploads(library)
    peer = AitkPeer(url, SecretStr(token) if token else None, connections=connections)
    imports = Imports(peer, library, uploads, patience=QUICK)
    downloads = Downloads(
        Outbound(policy or OutboundPolicy(setting="COMFY_MCP_DOWNLOAD_HOSTS")),
        Models(comfyui),
        lambda kind: library,
    )
    async with comfyui.running(), imports.running(), downloads.running():
        yield Toolbox(
            [*toolbox(library).tools, *upload_tools(uploads), *import_tools(imports, peer, downloads, library)]
        )
