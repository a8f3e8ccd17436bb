"""What the tests of the engine share: the server, graphs, and a prompt followed to its end."""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_events import JobEvent, Step
from comfy_mcp.engines.comfyui_history import Ending
from comfy_mcp.engines.comfyui_http import fixed
from comfy_mcp.workflows import GenerationRequest, Graph, build

REAL_URL = os.environ.get("COMFYUI_URL")
ENDLESS_STEPS = 9000
"""So many that a prompt is still running when a test acts on it."""


@asynccontextmanager
async def connected(url: str, lost_after_s: float = 60.0) -> AsyncGenerator[ComfyUI]:
    """Give an adapter that runs."""
    comfyui = ComfyUI(fixed(url), lost_after_s=lost_after_s)
    async with comfyui.running():
        yield comfyui


async def picture(comfyui: ComfyUI, seed: int, **inputs: Any) -> Graph:
    """Return the graph of a small picture; `inputs` go into the sampler."""
    checkpoint = os.environ.get("COMFYUI_CHECKPOINT") or (await comfyui.models("checkpoints") or ("",))[0]
    request = GenerationRequest(
        prompt="a red cat", checkpoint=checkpoint, seed=seed, width=64, height=64, filename_prefix=f"engine_{uuid4()}"
    )
    graph = build(request, "flux").graph
    sampler = next(node for node in graph.values() if node["class_type"] == "KSampler")
    sampler["inputs"] |= {"steps": 2, **inputs}
    return graph


class Story:
    """Hear the events of one prompt, and call `on_step` at the first step of its sampler."""

    def __init__(self, on_step: Callable[[], None] | None = None) -> None:
        self.events: list[JobEvent] = []
        self._on_step = on_step

    async def __call__(self, event: JobEvent) -> None:
        self.events.append(event)
        if isinstance(event, Step) and self._on_step is not None:
            act, self._on_step = self._on_step, None
            act()


async def run(comfyui: ComfyUI, graph: Graph, story: Story | None = None) -> Ending:
    """Submit a graph and follow it to its end."""
    prompt_id = str(uuid4())
    with comfyui.watch(prompt_id) as watch:
        await comfyui.submit(graph, prompt_id)
        return await watch.ended(story or Story())


def data_dir(path: Path) -> list[str]:
    """Return the options of an embedded server over a folder."""
    return ["--data-dir", str(path)]
