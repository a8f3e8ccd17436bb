"""Hold the one WebSocket to ComfyUI, hand its events to whoever follows a prompt, and open it again when it is lost."""

import logging
import math
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import quote, urlsplit

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from comfy_mcp.engines.comfyui_events import (
    Connected,
    Disconnected,
    Doubted,
    Event,
    Executing,
    JobEvent,
    Preview,
    QueueChanged,
    parse_binary,
    parse_text,
)
from comfy_mcp.engines.comfyui_http import Address, is_loopback
from mcp_toolserver.errors import ToolError

log = logging.getLogger(__name__)

_OPEN_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 1.0
# ComfyUI's event loop stalls while it loads a large model; a short ping timeout would take that for a dead server.
_PING_TIMEOUT_S = 60.0
# One preview of a large video frame fits; anything beyond is no preview.
_LARGEST_FRAME_BYTES = 64 * 1024 * 1024
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_FEATURES = '{"type":"feature_flags","data":{"supports_preview_metadata":true}}'


class EventSocket:
    """Listen with ONE socket for all prompts: when one of two with the same client id closes, the other goes silent."""

    def __init__(self, address: Address, client_id: str) -> None:
        self._address = address
        self._client_id = client_id
        self._listeners: dict[str, list[MemoryObjectSendStream[Event]]] = {}
        self._current: str | None = None
        self._connected = False
        self._tried = anyio.Event()
        self._opened = 0

    @property
    def connection(self) -> int | None:
        """Return the number of this connection, or None: another number may mean a restart, which forgets prompts."""
        return self._opened if self._connected else None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Keep the socket open while the block runs."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_open)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def wait_tried(self, timeout_s: float) -> None:
        """Wait until the socket is open, or could not be opened; at most `timeout_s` seconds."""
        with anyio.move_on_after(timeout_s):
            await self._tried.wait()

    @contextmanager
    def listening(self, prompt_id: str) -> Generator[MemoryObjectReceiveStream[Event]]:
        """Receive the events of one prompt, and those that concern every prompt, while the block runs."""
        send, receive = anyio.create_memory_object_stream[Event](math.inf)
        self._listeners.setdefault(prompt_id, []).append(send)
        try:
            yield receive
        finally:
            self._listeners[prompt_id].remove(send)
            if not self._listeners[prompt_id]:
                del self._listeners[prompt_id]
            send.close()
            receive.close()

    def doubt(self, prompt_id: str) -> None:
        """Make whoever follows a prompt ask where it is."""
        for listener in self._listeners.get(prompt_id, ()):
            listener.send_nowait(Doubted())

    async def _keep_open(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                socket = await self._open()
                pause_s = _FIRST_PAUSE_S
                try:
                    await self._listen(socket)
                finally:
                    # The farewell takes a moment that a cancelled task does not have.
                    with anyio.CancelScope(shield=True):
                        await socket.close()
            except (OSError, TimeoutError, WebSocketException, ToolError) as error:
                log.debug("no event socket", extra={"reason": str(error)})
            self._tried.set()
            if self._connected:
                self._connected = False
                self._tell_all(Disconnected())
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _open(self) -> ClientConnection:
        url = await self._address()
        parts = urlsplit(url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        return await connect(
            f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/ws?clientId={quote(self._client_id)}",
            open_timeout=_OPEN_TIMEOUT_S,
            close_timeout=_CLOSE_TIMEOUT_S,
            ping_timeout=_PING_TIMEOUT_S,
            max_size=_LARGEST_FRAME_BYTES,
            compression=None,
            proxy=None if is_loopback(url) else True,
        )

    async def _listen(self, socket: ClientConnection) -> None:
        # It counts only as the first message: from then on each preview says whose it is.
        await socket.send(_FEATURES)
        self._current = None
        self._opened += 1
        self._connected = True
        self._tried.set()
        self._tell_all(Connected())
        async for frame in socket:
            event = parse_text(frame) if isinstance(frame, str) else parse_binary(frame)
            if isinstance(event, QueueChanged):
                self._tell_all(event)
            elif event is not None:
                self._tell(event)

    def _tell(self, event: JobEvent) -> None:
        if isinstance(event, Executing):
            self._current = event.prompt_id if event.node is not None else None
        owner = event.prompt_id
        if isinstance(event, Preview) and owner is None:
            owner = self._current
        for listener in self._listeners.get(owner or "", ()):
            listener.send_nowait(event)

    def _tell_all(self, event: Event) -> None:
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.send_nowait(event)
