"""What jobs and pictures need of whatever renders: ComfyUI, or diffusers in this process."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

from comfy_mcp.engines.comfyui_events import JobEvent
from comfy_mcp.engines.comfyui_history import Ending, OutputFile
from comfy_mcp.workflows.graphs import Graph

Heard = Callable[[JobEvent], Awaitable[None]]
"""Hear of what happens to a prompt before its end."""

Cancellation = Literal["cancelled", "too_late", "unknown", "asked"]
"""What became of a cancel: done; the prompt had ended; nobody knows it; it has not obeyed yet."""


class Watching(Protocol):
    """Listen to one prompt."""

    @property
    def doubt(self) -> str | None:
        """Return why what was heard last may no longer be so, in words for people, or None."""
        ...

    async def ended(self, heard: Heard) -> Ending:
        """Pass on what is heard until the prompt has ended, and return how; never raises for an engine that is gone."""
        ...


class Engine(Protocol):
    """Render graphs under ids of ours (canonical lower-case UUIDs), one after another."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Keep open, while the block runs, what rendering needs."""
        ...

    def watch(self, prompt_id: str, *, foreign: bool = False) -> AbstractContextManager[Watching]:
        """Listen to one prompt while the block runs; begin before it is submitted, so that nothing is missed.

        `foreign` is a prompt that a server submitted which is gone.
        """
        ...

    async def submit(self, graph: Graph, prompt_id: str) -> tuple[str, ...]:
        """Queue a graph and return warnings; a ToolError means that nothing was queued."""
        ...

    async def cancel(self, prompt_id: str) -> Cancellation:
        """Cancel one prompt and no other, and return what really became of it."""
        ...

    async def head(self, file: OutputFile, size_bytes: int) -> bytes:
        """Return the first bytes of a file that a prompt wrote; empty where the engine no longer has it."""
        ...

    async def local_path(self, file: OutputFile) -> Path | None:
        """Return where a file that a prompt wrote lies on this disk, or None where it must be asked for by HTTP."""
        ...
