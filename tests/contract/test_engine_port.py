"""What jobs may expect of every engine of a prompt that it does not know, and of files that are gone."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from comfy_mcp.engines.comfyui_events import JobEvent
from comfy_mcp.engines.comfyui_history import OutputFile
from comfy_mcp.engines.diffusers import Diffusers
from comfy_mcp.engines.diffusers_orders import PictureOrder
from comfy_mcp.engines.port import Engine
from mcp_toolserver.errors import ToolError
from tests.contract.engine_room import connected
from tests.servers.comfy_tools import engine_process, graph

LOST = OutputFile("1", "no-such.png", "", "output", animated=False)


async def unheard(event: JobEvent) -> None:
    raise AssertionError(event)


async def no_lora(name: str) -> Path:
    raise AssertionError(name)


@asynccontextmanager
async def running(name: str, folder: Path) -> AsyncGenerator[Engine]:
    """Run an engine of its own."""
    if name == "comfyui":
        with engine_process(folder) as process:
            async with connected(process.url) as comfyui:
                yield comfyui
    else:
        diffusers = Diffusers(folder, [folder / "models"], lora_path=no_lora)
        async with diffusers.running():
            yield diffusers


@pytest.mark.parametrize("name", ["comfyui", "diffusers"])
async def test_every_engine_tells_the_truth_about_what_it_does_not_know(tmp_path: Path, name: str) -> None:
    unknown = str(uuid4())
    async with running(name, tmp_path) as engine:
        with engine.watch(unknown, foreign=True) as watch:
            ending = await watch.ended(unheard)
        assert ending.status == "failed"
        assert ending.error
        assert await engine.cancel(unknown) == "unknown"
        assert await engine.head(LOST, 24) == b""


@pytest.mark.parametrize("name", ["comfyui", "diffusers"])
async def test_every_engine_refuses_a_model_that_is_not_there(tmp_path: Path, name: str) -> None:
    order = PictureOrder(
        model="no-such",
        prompt="a cat",
        negative_prompt="",
        steps=2,
        guidance=5.0,
        sampler="euler",
        scheduler="normal",
        seed=1,
        batch_size=1,
        filename_prefix="a",
    )
    wanted = order.as_graph()
    if name == "comfyui":
        wanted = graph()
        wanted["1"]["inputs"]["ckpt_name"] = "no-such"
    prompt_id = str(uuid4())
    async with running(name, tmp_path) as engine:
        with engine.watch(prompt_id), pytest.raises(ToolError, match="no-such"):
            await engine.submit(wanted, prompt_id)
