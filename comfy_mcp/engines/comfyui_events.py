"""Read what ComfyUI sends over its WebSocket: frames in, typed events out. Broken frames are None, never an error."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy_mcp.engines.comfyui_history import OutputFile, read_files
from comfy_mcp.workflows.graphs import is_list, is_object

_JPEG = 1
_PNG = 2
_PREVIEW = 1
_PREVIEW_WITH_METADATA = 4


@dataclass(frozen=True, slots=True)
class Connected:
    """Say that the socket is open (again); what happened while it was closed is unknown."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """Say that the socket is gone; nothing is heard until Connected."""


@dataclass(frozen=True, slots=True)
class QueueChanged:
    """Say that something entered or left the queue; every client hears it, whoever submitted."""


@dataclass(frozen=True, slots=True)
class Doubted:
    """Say that there is reason to ask where the prompt is; this package tells it to itself."""


@dataclass(frozen=True, slots=True)
class Started:
    """Say that a prompt left the queue and runs."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Cached:
    """Name the nodes whose earlier output is used again."""

    prompt_id: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Executing:
    """Name the node that runs now; None is the end of the prompt, whatever its outcome."""

    prompt_id: str
    node: str | None


@dataclass(frozen=True, slots=True)
class Executed:
    """Name an output node that is done, and the files that it wrote."""

    prompt_id: str
    node: str
    files: tuple[OutputFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """Tell how far a node is: step `value` of `maximum`."""

    prompt_id: str
    node: str
    value: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Preview:
    """Carry a picture of the work in progress; old servers do not say whose it is."""

    prompt_id: str | None
    mime_type: str
    image: bytes


SocketState = Connected | Disconnected
JobEvent = Started | Cached | Executing | Executed | Step | Preview
Event = SocketState | QueueChanged | Doubted | JobEvent


def parse_text(frame: str) -> JobEvent | QueueChanged | None:
    """Return the event of a text frame, or None for kinds that nobody needs and for frames that make no sense."""
    message = _json_object(frame)
    kind, data = message.get("type"), message.get("data")
    return _event(kind, data) if isinstance(kind, str) and is_object(data) else None


def _event(kind: str, data: Mapping[str, Any]) -> JobEvent | QueueChanged | None:
    if kind == "status":
        return QueueChanged()
    prompt_id = data.get("prompt_id")
    # A socket that opens in mid-run hears `executing` without a prompt_id: whose node that is cannot be told.
    if not isinstance(prompt_id, str):
        return None
    node = data.get("node")
    match kind:
        case "execution_start":
            return Started(prompt_id)
        case "execution_cached":
            nodes = data.get("nodes")
            return Cached(prompt_id, tuple(str(item) for item in nodes)) if is_list(nodes) else None
        case "executing":
            return Executing(prompt_id, None if node is None else str(node))
        case "executed" if node is not None:
            return Executed(prompt_id, str(node), read_files(str(node), data.get("output")))
        case "progress" if node is not None:
            value, maximum = data.get("value"), data.get("max")
            if isinstance(value, int | float) and isinstance(maximum, int | float) and maximum > 0:
                return Step(prompt_id, str(node), value, maximum)
            return None
        case _:
            return None


def parse_binary(frame: bytes) -> Preview | None:
    """Return the preview in a binary frame, or None for other kinds.

    Kind 1 is u32 kind, u32 format (1 JPEG, 2 PNG), image; kind 4 is u32 kind, u32 length, JSON metadata, image. All
    numbers are big-endian.
    """
    if len(frame) < 8:
        return None
    kind, second = int.from_bytes(frame[:4]), int.from_bytes(frame[4:8])
    if kind == _PREVIEW and second in {_JPEG, _PNG}:
        return Preview(None, "image/jpeg" if second == _JPEG else "image/png", frame[8:])
    if kind != _PREVIEW_WITH_METADATA or len(frame) < 8 + second:
        return None
    metadata = _json_object(frame[8 : 8 + second])
    prompt_id, mime_type = metadata.get("prompt_id"), metadata.get("image_type")
    return Preview(
        prompt_id if isinstance(prompt_id, str) else None,
        mime_type if mime_type in {"image/jpeg", "image/png"} else "image/jpeg",
        frame[8 + second :],
    )


def _json_object(text: str | bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if is_object(value) else {}
