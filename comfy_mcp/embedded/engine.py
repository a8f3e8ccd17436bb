"""The parts of one embedded ComfyUI, and the task that works through its queue."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread

from comfy_mcp.embedded.events import EventHub
from comfy_mcp.embedded.execution import Executor
from comfy_mcp.embedded.folders import Folders
from comfy_mcp.embedded.nodes.catalogue import NODES
from comfy_mcp.embedded.queue import PromptQueue


@dataclass(frozen=True, slots=True)
class _FromWorker:
    """Hands the worker's events to the event loop, which keeps their order."""

    loop: asyncio.AbstractEventLoop
    hub: EventHub

    def event(self, name: str, data: dict[str, Any], client_id: str | None) -> None:
        self.loop.call_soon_threadsafe(self.hub.send, name, data, client_id)

    def preview(self, jpeg: bytes, metadata: dict[str, Any], client_id: str | None) -> None:
        self.loop.call_soon_threadsafe(self.hub.send_preview, jpeg, metadata, client_id)

    def running(self, node_id: str | None, client_id: str | None) -> None:
        self.loop.call_soon_threadsafe(self.hub.note_running, node_id, client_id)


@dataclass(slots=True)
class Engine:
    """One queue, one worker, and those who listen. Built inside a running event loop."""

    folders: Folders
    hub: EventHub = field(default_factory=EventHub)
    queue: PromptQueue = field(init=False)
    executor: Executor = field(init=False)
    _free_models: bool = False
    _free_results: bool = False

    def __post_init__(self) -> None:
        self.queue = PromptQueue(self.send_status)
        self.executor = Executor(self.folders, NODES, _FromWorker(asyncio.get_running_loop(), self.hub))

    def status(self) -> dict[str, Any]:
        """Return how many prompts are unfinished, as every status says it."""
        return {"exec_info": {"queue_remaining": self.queue.remaining}}

    def send_status(self) -> None:
        """Tell everybody how many prompts are unfinished."""
        self.hub.send("status", {"status": self.status()}, None)

    async def work(self) -> None:
        """Run prompts as they come, for ever."""
        while True:
            prompt = await self.queue.take()
            # An interrupt that came while nothing ran must not stop what comes next.
            self.executor.interrupted.clear()
            outcome = await anyio.to_thread.run_sync(self.executor.execute, prompt)
            self.hub.note_running(None, None)
            self.queue.finish(prompt, outcome)
            if prompt.client_id is not None:
                self.hub.send("executing", {"node": None, "prompt_id": prompt.prompt_id}, prompt.client_id)
            self._forget()

    def interrupt(self, prompt_id: str | None = None) -> bool:
        """Stop the running prompt between two steps: any, or only this one. Says whether it runs."""
        running = self.queue.running
        if running is None or prompt_id not in {None, running.prompt_id}:
            return False
        self.executor.interrupted.set()
        return True

    def free(self, *, models: bool, results: bool) -> None:
        """Forget loaded files and cached results: now, or as soon as the running prompt is done."""
        self._free_models |= models
        self._free_results |= results
        if self.queue.running is None:
            self._forget()

    def _forget(self) -> None:
        self.executor.forget(models=self._free_models, results=self._free_results or self._free_models)
        self._free_models = self._free_results = False
