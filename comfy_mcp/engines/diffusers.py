"""Render with diffusers in this process, one job after another, where ComfyUI is out of reach.

diffusers_models     the models on this disk
diffusers_samplers   PURE: samplers and schedulers by their names in ComfyUI
diffusers_orders     PURE: what was asked for, as records and pictures keep it
diffusers_pipelines  what imports torch
diffusers_watch      from an order to its end
diffusers_files      the pictures on this disk
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio import from_thread, to_thread
from anyio.abc import TaskGroup

from comfy_mcp.engines.comfyui_events import Executed, Executing, Started, Step
from comfy_mcp.engines.comfyui_history import Ending, OutputFile
from comfy_mcp.engines.diffusers_files import find_input, head_of, keep_input, save_pictures
from comfy_mcp.engines.diffusers_models import DiffusersModel, models_in
from comfy_mcp.engines.diffusers_orders import NODE_CLASS, NODE_ID, PictureOrder, order_of
from comfy_mcp.engines.diffusers_pipelines import LoraWeights, Memory, PictureRequest, memory, render
from comfy_mcp.engines.diffusers_samplers import sampling_of
from comfy_mcp.engines.diffusers_watch import LostWatch, Rendering, Watch
from comfy_mcp.engines.port import Cancellation
from comfy_mcp.workflows.graphs import Graph
from mcp_toolserver.errors import NotFound, ToolError

log = logging.getLogger(__name__)

DIFFUSERS: Final = "diffusers"

_CANCEL_SETTLES_S = 10.0
_INPUT = "input"
_OUTPUT = "output"


class Diffusers:
    """The engine: models in `model_folders`, pictures and inputs under `home`.

    `lora_path` returns where a LoRA lies; `input_folders` are searched for input pictures after the own one.
    """

    def __init__(
        self,
        home: Path,
        model_folders: Sequence[Path],
        *,
        lora_path: Callable[[str], Awaitable[Path]],
        input_folders: Sequence[Path] = (),
    ) -> None:
        self._home = home
        self.model_folders = tuple(model_folders)
        self._lora_path = lora_path
        self._input_folders = (home / _INPUT, *input_folders)
        self._renderings: dict[str, Rendering] = {}
        self._turn = anyio.Lock()
        self._tasks: TaskGroup | None = None
        self._memory: Memory | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Render while the block runs; what is unfinished at its end is given up between two steps."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def models(self) -> tuple[DiffusersModel, ...]:
        """Return the models on this disk, best first."""
        return await to_thread.run_sync(models_in, self.model_folders)

    async def memory(self) -> Memory:
        """Return the memory that a rendering finds, which is not what is left while another one has its share."""
        if self._memory is None or not self._renderings:
            self._memory = await to_thread.run_sync(memory)
        return self._memory

    @contextmanager
    def watch(self, prompt_id: str, *, foreign: bool = False) -> Generator[Watch | LostWatch]:
        """Listen to one prompt while the block runs.

        A foreign one has failed: it ended with its server, and one that ended well before was recorded.
        """
        if foreign:
            yield LostWatch()
            return
        rendering = self._renderings[prompt_id] = Rendering(prompt_id)
        try:
            yield Watch(rendering)
        finally:
            del self._renderings[prompt_id]
            # Of what nobody follows any more, nothing would be told.
            rendering.stopping = True

    async def submit(self, graph: Graph, prompt_id: str) -> tuple[str, ...]:
        """Queue an order; raises NotFound for a model, LoRA or picture that is not there."""
        if self._tasks is None:
            raise RuntimeError("the engine is not running")
        order = order_of(graph)
        model, request = await self._request_of(order)
        self._tasks.start_soon(self._render, self._renderings[prompt_id], order, model, request)
        return ()

    async def cancel(self, prompt_id: str) -> Cancellation:
        """Stop one rendering between two steps, and return what really became of it."""
        rendering = self._renderings.get(prompt_id)
        if rendering is None:
            return "unknown"
        rendering.stopping = True
        if not rendering.begun and rendering.ending is None:
            rendering.end(Ending("cancelled"))
        with anyio.move_on_after(_CANCEL_SETTLES_S):
            await rendering.ended.wait()
        if rendering.ending is None:
            return "asked"
        return "cancelled" if rendering.ending.status == "cancelled" else "too_late"

    async def head(self, file: OutputFile, size_bytes: int) -> bytes:
        """Return the first bytes of a picture; empty where it is gone."""
        return await to_thread.run_sync(head_of, self._home / _OUTPUT / file.filename, size_bytes)

    async def local_path(self, file: OutputFile) -> Path | None:
        """Return where a picture lies."""
        return self._home / _OUTPUT / file.filename

    async def keep_input(self, filename: str, content: bytes, *, overwrite: bool) -> str:
        """Store a picture as `input_image`, and return its name: another one where this is taken by other bytes."""
        return await to_thread.run_sync(
            partial(keep_input, self._home / _INPUT, filename, content, overwrite=overwrite)
        )

    async def input_path(self, name: str, *, field: str) -> Path:
        """Return where an input picture lies; raises NotFound."""
        return await to_thread.run_sync(find_input, self._input_folders, name, field)

    async def _request_of(self, order: PictureOrder) -> tuple[DiffusersModel, PictureRequest]:
        model = next((model for model in await self.models() if model.name == order.model), None)
        if model is None:
            raise NotFound(f"The diffusers model `{order.model}` is no longer there.", details={"model": order.model})
        sampling, _ = sampling_of(model.family, order.sampler, order.scheduler)
        return model, PictureRequest(
            prompt=order.prompt,
            negative_prompt=order.negative_prompt,
            width=order.width,
            height=order.height,
            steps=order.steps,
            guidance=order.guidance,
            seed=order.seed,
            sampling=sampling,
            count=order.batch_size,
            loras=tuple([LoraWeights(await self._lora_path(lora.name), lora.strength) for lora in order.loras]),
            image=await self._input(order.input_image, "input_image"),
            mask=await self._input(order.mask, "mask"),
            denoise=order.denoise,
        )

    async def _input(self, name: str | None, field: str) -> Path | None:
        return None if name is None else await self.input_path(name, field=field)

    async def _render(
        self, rendering: Rendering, order: PictureOrder, model: DiffusersModel, request: PictureRequest
    ) -> None:
        prompt_id = rendering.prompt_id

        def stepped(step: int, steps: int) -> bool:
            if step:
                from_thread.run_sync(rendering.tell, Step(prompt_id, NODE_ID, step, steps))
            return not rendering.stopping

        # Two at once would need the memory of two models.
        async with self._turn:
            if rendering.ending is not None:
                return
            rendering.begun = True
            rendering.tell(Started(prompt_id))
            rendering.tell(Executing(prompt_id, NODE_ID))
            try:
                pictures = await to_thread.run_sync(render, model, request, stepped, abandon_on_cancel=True)
                if pictures is None:
                    rendering.end(Ending("cancelled"))
                    return
                files = await to_thread.run_sync(save_pictures, self._home / _OUTPUT, pictures, order)
            except Exception as error:
                log.exception("rendering with diffusers failed", extra={"job_id": prompt_id})
                rendering.end(_failure(error))
                return
        rendering.tell(Executed(prompt_id, NODE_ID, files))
        rendering.end(Ending("completed", files))


def _failure(error: Exception) -> Ending:
    kind = type(error).__name__
    words = error.as_text() if isinstance(error, ToolError) else " ".join(str(error).split())[:400]
    details = {"node_id": NODE_ID, "node_type": NODE_CLASS, "exception_type": kind}
    return Ending(
        "failed", error=f"{NODE_CLASS} failed: {kind}: {words.rstrip('.') or 'no reason given'}.", details=details
    )
