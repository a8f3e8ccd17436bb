"""/ws: one line of events to each client."""

import json
import uuid
from typing import Any, cast

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from comfy_mcp.embedded.answers import dump_json
from comfy_mcp.embedded.engine import Engine
from comfy_mcp.embedded.events import Frame, Listener

MAX_UPLOAD_BYTES = 104_857_600
FEATURES: dict[str, Any] = {"supports_preview_metadata": True, "max_upload_size": MAX_UPLOAD_BYTES, "assets": False}


def socket_route(engine: Engine) -> WebSocketRoute:
    """Return the route, without the `/api` under which it is found too."""

    async def talk(websocket: WebSocket) -> None:
        client_id = websocket.query_params.get("clientId") or uuid.uuid4().hex
        await websocket.accept()
        listener, frames = engine.hub.connect(client_id)
        listener.send(("status", {"status": engine.status(), "sid": client_id}))
        running = engine.hub.node_running_for(client_id)
        if running is not None:
            listener.send(("executing", {"node": running}))
        async with listener.frames, anyio.create_task_group() as tasks:
            tasks.start_soon(_send, websocket, frames)
            await _listen(websocket, listener)
            engine.hub.disconnect(client_id)
            tasks.cancel_scope.cancel()

    return WebSocketRoute("/ws", talk)


async def _send(websocket: WebSocket, frames: MemoryObjectReceiveStream[Frame]) -> None:
    async with frames:
        async for frame in frames:
            try:
                if isinstance(frame, bytes):
                    await websocket.send_bytes(frame)
                else:
                    event, data = frame
                    await websocket.send_text(dump_json({"type": event, "data": data}).decode())
            except WebSocketDisconnect:
                return


async def _listen(websocket: WebSocket, listener: Listener) -> None:
    """Heed the client's first message if it names what it understands, until it hangs up."""
    first = True
    while True:
        try:
            text = await websocket.receive_text()
        except (WebSocketDisconnect, KeyError):
            # KeyError: a binary message, which no client of ComfyUI sends.
            return
        if first:
            features = _features(text)
            if features is not None:
                listener.features = features
                listener.send(("feature_flags", FEATURES))
        first = False


def _features(text: str) -> dict[str, Any] | None:
    try:
        message = json.loads(text)
    except ValueError:
        return None
    if not isinstance(message, dict):
        return None
    spoken = cast("dict[str, Any]", message)
    data = spoken.get("data")
    return cast("dict[str, Any]", data) if spoken.get("type") == "feature_flags" and isinstance(data, dict) else None
