"""Tells the course of one run, in the order and the words of ComfyUI's WebSocket, and keeps what the history needs.

execution_start, execution_cached, (progress_state, executing, (progress_state, progress, preview)*, executed?,
progress_state)*, then one of execution_success, execution_error, execution_interrupted
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from comfy_mcp.embedded.queue import QueuedPrompt


class Announcer(Protocol):
    """Carries events from the worker's thread to whom they concern."""

    def event(self, name: str, data: dict[str, Any], client_id: str | None) -> None:
        """Send an event to a client, or to everybody when it is None."""
        ...

    def preview(self, jpeg: bytes, metadata: dict[str, Any], client_id: str | None) -> None:
        """Send a preview to a client, or to everybody when it is None."""
        ...

    def running(self, node_id: str | None, client_id: str | None) -> None:
        """Note which node runs, for a client that connects in mid-run."""
        ...


@dataclass(slots=True)
class Narration:
    """The messages of one run so far, and the progress of its nodes."""

    prompt: QueuedPrompt
    announcer: Announcer
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    _progress: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def started(self, cached: list[str]) -> None:
        """Tell that the run has begun, and which nodes it need not run."""
        self._tell("execution_start", {})
        self._tell("execution_cached", {"nodes": cached})

    def node_started(self, node_id: str) -> None:
        """Tell that a node works."""
        self.announcer.running(node_id, self.prompt.client_id)
        self._show_progress(node_id, 0.0, 1.0, "running")
        self._announce("executing", {"node": node_id, "display_node": node_id})

    def node_stepped(self, node_id: str, done: int, total: int, preview: Callable[[], bytes]) -> None:
        """Tell how far a node is, with a preview unless the prompt declined them."""
        self._show_progress(node_id, done, total, "running")
        data = {"value": done, "max": total, "prompt_id": self.prompt.prompt_id, "node": node_id}
        self.announcer.event("progress", data, self.prompt.client_id)
        if self.prompt.extra_data.get("preview_method") != "none":
            self.announcer.preview(preview(), self._identity(node_id), self.prompt.client_id)

    def node_shows(self, node_id: str, ui: Mapping[str, Any]) -> None:
        """Tell what an output node shows."""
        self._announce("executed", {"node": node_id, "display_node": node_id, "output": dict(ui)})

    def node_finished(self, node_id: str) -> None:
        """Tell that a node is at its end."""
        most = self._progress[node_id]["max"]
        self._show_progress(node_id, most, most, "finished")

    def succeeded(self) -> None:
        """Tell that every output is there."""
        self._tell("execution_success", {})

    def failed(self, where: Mapping[str, Any], error: Mapping[str, Any]) -> None:
        """Tell which node raised what."""
        self._tell("execution_error", {**where, **error})

    def interrupted(self, where: Mapping[str, Any]) -> None:
        """Tell which node was stopped."""
        self._tell("execution_interrupted", where, heard_without_client=True)

    def _identity(self, node_id: str) -> dict[str, Any]:
        return {
            "node_id": node_id,
            "prompt_id": self.prompt.prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }

    def _show_progress(self, node_id: str, value: float, most: float, state: str) -> None:
        self._progress[node_id] = {"value": value, "max": most, "state": state, **self._identity(node_id)}
        data = {"prompt_id": self.prompt.prompt_id, "nodes": dict(self._progress)}
        self.announcer.event("progress_state", data, self.prompt.client_id)

    def _announce(self, event: str, data: Mapping[str, Any], *, heard_without_client: bool = False) -> None:
        # For a prompt without a client id, ComfyUI sends progress to everybody, and the rest to nobody.
        if self.prompt.client_id is not None or heard_without_client:
            data = {**data, "prompt_id": self.prompt.prompt_id}
            self.announcer.event(event, data, self.prompt.client_id)

    def _tell(self, event: str, data: Mapping[str, Any], *, heard_without_client: bool = False) -> None:
        data = {"prompt_id": self.prompt.prompt_id, **data, "timestamp": now_ms()}
        self.messages.append((event, data))
        self._announce(event, data, heard_without_client=heard_without_client)


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)
