"""Who hears what: one open WebSocket per client id, and the frames that go over it."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from comfy_mcp.embedded.answers import dump_json

Frame = tuple[str, dict[str, Any]] | bytes

# A client that reads slower than pictures are made misses some of them, and nothing else.
MOST_WAITING_FRAMES = 256

PREVIEW_IMAGE = 1
PREVIEW_IMAGE_WITH_METADATA = 4
JPEG = 1


@dataclass(slots=True)
class Listener:
    """One WebSocket's outgoing line, and what its client said that it understands."""

    frames: MemoryObjectSendStream[Frame]
    features: dict[str, Any] = field(default_factory=dict[str, Any])

    def send(self, frame: Frame | None) -> None:
        """Put a frame, if it is one, in line; a socket that has just gone away misses it."""
        if frame is None:
            return
        try:
            self.frames.send_nowait(frame)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return


@dataclass(slots=True)
class EventHub:
    """Sends events to one client id, or to every socket. Lives in the event loop's thread."""

    listeners: dict[str, Listener] = field(default_factory=dict[str, Listener])
    _running: tuple[str | None, str | None] = (None, None)

    def connect(self, client_id: str) -> tuple[Listener, MemoryObjectReceiveStream[Frame]]:
        """Open a line for a socket. A second socket of the same client id takes over the first one's events."""
        send, receive = anyio.create_memory_object_stream[Frame](float("inf"))
        listener = Listener(send)
        self.listeners[client_id] = listener
        return listener, receive

    def disconnect(self, client_id: str) -> None:
        """Forget a client id: as in ComfyUI, the first of two sockets takes the second one's events with it."""
        self.listeners.pop(client_id, None)

    def note_running(self, node_id: str | None, client_id: str | None) -> None:
        """Remember which node runs, and for whom."""
        self._running = (node_id, client_id)

    def node_running_for(self, client_id: str) -> str | None:
        """Return the node that runs for this client, which a late connection is told first."""
        node_id, owner = self._running
        return node_id if owner == client_id else None

    def send(self, event: str, data: dict[str, Any], client_id: str | None) -> None:
        """Send an event to one client id, or to everybody when it is None."""
        self._deliver(lambda _: (event, data), client_id)

    def send_preview(self, jpeg: bytes, metadata: dict[str, Any], client_id: str | None) -> None:
        """Send a preview: with its metadata to those who understand it, else bare."""

        def frame(listener: Listener) -> bytes | None:
            if listener.frames.statistics().current_buffer_used > MOST_WAITING_FRAMES:
                return None
            if listener.features.get("supports_preview_metadata"):
                return preview_with_metadata(jpeg, metadata)
            return struct.pack(">II", PREVIEW_IMAGE, JPEG) + jpeg

        self._deliver(frame, client_id)

    def _deliver(self, frame: Callable[[Listener], Frame | None], client_id: str | None) -> None:
        if client_id is None:
            for listener in self.listeners.values():
                listener.send(frame(listener))
        elif client_id in self.listeners:
            listener = self.listeners[client_id]
            listener.send(frame(listener))


def preview_with_metadata(jpeg: bytes, metadata: dict[str, Any]) -> bytes:
    """Pack a preview as type 4: u32 type, u32 length of the JSON, JSON, picture (big endian)."""
    text = dump_json({**metadata, "image_type": "image/jpeg"})
    return struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(text)) + text + jpeg
