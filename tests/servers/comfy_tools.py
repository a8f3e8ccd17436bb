"""comfy_mcp over an engine of its own, as the tests of its tools use it."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio
from PIL import Image

from comfy_mcp.app import build
from comfy_mcp.settings import ComfySettings
from mcp_toolserver.tools import Call, Toolbox, unheard
from tests.conftest import server_process

ENDLESS_STEPS = 9000
"""So many that a job is still running when a test acts on it."""


@dataclass(frozen=True, slots=True)
class EngineUnderTest:
    """An embedded engine in a process of its own, addressed as any ComfyUI."""

    url: str
    folder: Path

    def settings(self, data_dir: Path, **more: Any) -> ComfySettings:
        """Return settings for a server in front of it."""
        return ComfySettings.model_validate(
            {"port": 0, "data_dir": data_dir, "comfyui_api_url": self.url, "comfyui_dir": self.folder, **more}
        )


@dataclass(frozen=True, slots=True)
class Tools:
    """Call tools as a door would."""

    toolbox: Toolbox
    call: Call

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return await self.toolbox.call(tool, arguments, self.call)


@contextmanager
def engine_process(folder: Path) -> Generator[EngineUnderTest]:
    """Run an embedded engine."""
    with server_process("comfy_mcp.embedded", "--data-dir", str(folder)) as (_, url):
        yield EngineUnderTest(url, folder)


@asynccontextmanager
async def comfy_tools(settings: ComfySettings, call: Call | None = None) -> AsyncGenerator[Tools]:
    """Run a server without doors."""
    server = build(settings)
    async with server.lifespan():
        yield Tools(server.toolbox, call or Call(report=unheard, base_url="http://test"))


async def begin(tools: Tools, **arguments: Any) -> str:
    """Start a job and return its id without waiting for it."""
    return (await tools("execute-workflow", workflow=graph(**arguments), wait_s=0))["job_id"]


async def until_stepping(tools: Tools, job_id: str) -> None:
    """Return when a job samples."""
    stepping = anyio.Event()

    async def report(done: float, total: float | None = None, message: str | None = None) -> None:
        if message and "step" in message:
            stepping.set()

    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            await Tools(tools.toolbox, Call(report=report))("wait-job", job_id=job_id, wait_s=60)

        tasks.start_soon(wait)
        await stepping.wait()
        tasks.cancel_scope.cancel()


def graph(steps: int = 2, seed: int = 1, prefix: str = "test") -> dict[str, Any]:
    """Return a caller's own graph of a small picture."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tinyflux-base.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red cat", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["2", 0]}},
        "5": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "6": {
            "class_type": "KSampler",
            "inputs": {
                "seed": seed,
                "steps": steps,
                "cfg": 1.0,
                "sampler_name": "heunpp2",
                "scheduler": "simple",
                "denoise": 1.0,
                "model": ["1", 0],
                "positive": ["4", 0],
                "negative": ["3", 0],
                "latent_image": ["5", 0],
            },
        },
        "7": {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0], "vae": ["1", 2]}},
        "8": {"class_type": "SaveImage", "inputs": {"filename_prefix": prefix, "images": ["7", 0]}},
    }


def png(width: int = 48, height: int = 32, colour: str = "teal") -> bytes:
    """Return a picture of one colour."""
    buffer = BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()
