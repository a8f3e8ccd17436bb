"""Speak to ComfyUI: submit graphs, follow and cancel them, list models, move files.

comfyui_http      requests, and what their failures mean
comfyui_socket    the one WebSocket
comfyui_events    PURE: its frames
comfyui_history   PURE: /queue and /history
comfyui_refusals  PURE: what validation says
comfyui_watch     from submission to the end of one prompt
"""

import json
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import anyio
import httpx

from comfy_mcp.engines.comfyui_history import Ending, OutputFile, QueueState, read_ending, read_queue
from comfy_mcp.engines.comfyui_http import Address, AnswerLost, ComfyHttp
from comfy_mcp.engines.comfyui_refusals import read_node_errors, refusal, warnings_of
from comfy_mcp.engines.comfyui_socket import EventSocket
from comfy_mcp.engines.comfyui_watch import Watch
from comfy_mcp.workflows.graphs import Graph, is_list, is_object
from mcp_toolserver.errors import BackendRejected, ToolError

Whereabouts = Literal["pending", "running"] | Ending | None
"""Where a prompt is: in the queue, ended, or (None) unknown to this server."""

Cancellation = Literal["cancelled", "too_late", "unknown", "asked"]
"""What became of a cancel: done; the prompt had ended; nobody knows it; it has not obeyed yet."""

PROBE_TIMEOUT_S = 2.0

_OBJECT_INFO_TIMEOUT_S = 60.0
_SUBMIT_TIMEOUT_S = 60.0
_UPLOAD_TIMEOUT_S = 300.0
_SOCKET_WAIT_S = 2.0
_CANCEL_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class UploadedImage:
    """Name an uploaded image as the server stored it, which may differ from the name that it was sent under."""

    name: str
    subfolder: str

    @property
    def reference(self) -> str:
        """Return what LoadImage takes."""
        return f"{self.subfolder}/{self.name}" if self.subfolder else self.name


class ComfyUI:
    """One ComfyUI server, under one client id.

    `lost_after_s` is how long an unfinished prompt waits for a server that does not answer, before it counts as lost.
    Every method raises BackendUnavailable when the server does not answer, and BackendRejected when what it answers
    makes no sense.
    """

    def __init__(self, address: Address, *, client_id: str | None = None, lost_after_s: float = 60.0) -> None:
        self.address = address
        self.client_id = client_id or str(uuid4())
        self._http = ComfyHttp(address)
        self._socket = EventSocket(address, self.client_id)
        self._lost_after_s = lost_after_s
        self._object_info: Mapping[str, Any] | None = None
        self._object_info_connection: int | None = None
        self._object_info_lock = anyio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Keep the connections open while the block runs."""
        async with self._http.running(), self._socket.running():
            yield

    async def system_stats(self, timeout_s: float = PROBE_TIMEOUT_S) -> Mapping[str, Any]:
        """Return the version, devices and memory; this is also the question whether the server is there at all."""
        return await self._object("/system_stats", timeout_s)

    async def object_info(self, *, refresh: bool = False) -> Mapping[str, Any]:
        """Return what the server says of its node classes; kept until `refresh`, or until the connection was lost."""
        seen = self._object_info
        async with self._object_info_lock:
            known = self._object_info
            # Whoever waited for the lock has what another caller has just fetched.
            if known is None or self._was_away() or (refresh and known is seen):
                known = self._object_info = await self._object("/object_info", _OBJECT_INFO_TIMEOUT_S)
            return known

    def _was_away(self) -> bool:
        """Tell whether the connection broke since this was last asked: nodes may have been installed meanwhile."""
        before, now = self._object_info_connection, self._socket.connection
        self._object_info_connection = before if now is None else now
        return before is not None and now is not None and now != before

    async def model_folders(self) -> tuple[str, ...]:
        """Return the kinds of models, such as `checkpoints`."""
        return _texts(await self._http.get("/models"))

    async def models(self, folder: str) -> tuple[str, ...] | None:
        """Return the names in a models folder as the loaders take them, or None where there is no such folder."""
        names = await self._http.get(f"/models/{folder}")
        return None if names is None else _texts(names)

    async def model_sizes(self, folder: str) -> Mapping[str, int]:
        """Return the size in bytes of the models of a folder; empty where the server has no such listing."""
        rows = await self._http.get(f"/experiment/models/{folder}")
        sizes: dict[str, int] = {}
        for row in rows if is_list(rows) else []:
            if is_object(row) and isinstance(row.get("name"), str) and isinstance(row.get("size"), int):
                sizes[row["name"]] = row["size"]
        return sizes

    async def folder_paths(self) -> Mapping[str, tuple[str, ...]]:
        """Return the absolute folders of each kind of model, on the server's own disk; empty where it does not say."""
        answer = await self._http.get("/internal/folder_paths")
        return {kind: _texts(paths) for kind, paths in answer.items()} if is_object(answer) else {}

    async def free(self) -> None:
        """Ask the server to forget the models in its memory, as after a LoRA was overwritten: it keeps the old weights.

        Source: an overwritten LoRA went on rendering with its old weights in 5 of 5 trials, until this.
        """
        await self._http.post("/free", {"unload_models": True, "free_memory": True})

    @contextmanager
    def watch(self, prompt_id: str, *, foreign: bool = False) -> Generator[Watch]:
        """Listen to one prompt while the block runs; begin before it is submitted, so that nothing is missed.

        `foreign` is a prompt that was submitted under another client id: only its whereabouts can be asked for.
        """
        with self._socket.listening(prompt_id) as events:
            yield Watch(
                prompt_id,
                events,
                locate=self.locate,
                ending=self.ending,
                connection=lambda: self._socket.connection,
                foreign=foreign,
                lost_after_s=self._lost_after_s,
            )

    async def submit(self, graph: Graph, prompt_id: str) -> tuple[str, ...]:
        """Queue a graph under our own id (a canonical lower-case UUID) and return warnings about dropped outputs.

        Raises InvalidArguments that names each fault. When the answer is lost the id is looked up, so that
        BackendUnavailable means that nothing was queued as far as the server knows.
        """
        await self._socket.wait_tried(_SOCKET_WAIT_S)
        request = {
            "prompt": graph,
            "prompt_id": prompt_id,
            "client_id": self.client_id,
            # 0.30 sends previews for this prompt whatever it was started with; older servers ignore it.
            "extra_data": {"preview_method": "auto"},
        }
        try:
            response = await self._http.post("/prompt", request, timeout_s=_SUBMIT_TIMEOUT_S)
        except AnswerLost:
            if await self.locate(prompt_id) is None:
                raise
            return ()
        answer = self._http.json_of(response)
        if not response.is_success:
            raise refusal(answer, graph, await self._known_nodes())
        if not is_object(answer) or answer.get("prompt_id") != prompt_id:
            raise BackendRejected(
                "ComfyUI queued the graph under another id than ours, so that its job cannot be followed.",
                hint="Update ComfyUI: 0.3.64 and later keep the id of the caller.",
                details={"prompt_id": prompt_id, "answer": answer if is_object(answer) else None},
            )
        return warnings_of(read_node_errors(answer.get("node_errors"), self._object_info))

    async def queue(self) -> QueueState:
        """Return what runs and what waits."""
        return read_queue(await self._http.get("/queue"))

    async def ending(self, prompt_id: str) -> Ending | None:
        """Return how a prompt ended, from /history, or None."""
        history = await self._http.get(f"/history/{prompt_id}")
        return read_ending(history.get(prompt_id)) if is_object(history) else None

    async def locate(self, prompt_id: str) -> Whereabouts:
        """Say where a prompt is.

        The queue is asked first: the other way round, a prompt that ended in between is in neither (21 of 60 trials
        against none).
        """
        queue = await self.queue()
        if prompt_id in queue.running:
            return "running"
        if prompt_id in queue.pending:
            return "pending"
        return await self.ending(prompt_id)

    async def cancel(self, prompt_id: str, verify_s: float = 10.0) -> Cancellation:
        """Cancel one prompt and no other, and return what really became of it, watched for up to `verify_s` seconds."""
        with self._socket.listening(prompt_id) as events:
            place = await self.locate(prompt_id)
            if place is None:
                return "unknown"
            with anyio.move_on_after(verify_s):
                asked_at: Whereabouts = None
                while not isinstance(place, Ending) and place is not None:
                    # A waiting prompt may have begun to run before it was deleted: then it is asked again.
                    if place != asked_at:
                        await self._ask_to_cancel(prompt_id, place)
                        asked_at = place
                    with anyio.move_on_after(_CANCEL_POLL_S):
                        await events.receive()
                    place = await self.locate(prompt_id)
            # A waiting prompt that is deleted leaves no event of its own.
            self._socket.doubt(prompt_id)
            if isinstance(place, Ending):
                return "cancelled" if place.status == "cancelled" else "too_late"
            return "cancelled" if place is None else "asked"

    async def _ask_to_cancel(self, prompt_id: str, place: Literal["pending", "running"]) -> None:
        response = await self._http.post(f"/api/jobs/{prompt_id}/cancel", {})
        if response.is_success:
            return
        # Before the jobs API: both answer 200 whatever they did.
        if place == "pending":
            await self._http.post("/queue", {"delete": [prompt_id]})
        else:
            await self._http.post("/interrupt", {"prompt_id": prompt_id})

    async def open_file(self, file: OutputFile, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Open a file that a prompt wrote; the caller reads the body and closes it. Any status comes back."""
        params = {"filename": file.filename, "subfolder": file.subfolder, "type": file.kind}
        return await self._http.stream("/view", params, headers or {})

    async def view_url(self, file: OutputFile) -> str:
        """Return the server's own address of a file, for callers that cannot reach ours."""
        params = httpx.QueryParams(filename=file.filename, subfolder=file.subfolder, type=file.kind)
        return f"{(await self.address()).rstrip('/')}/view?{params}"

    async def upload_image(self, filename: str, content: bytes, *, overwrite: bool = False) -> UploadedImage:
        """Store an image for LoadImage; when the name is taken by other bytes, the server picks another one."""
        response = await self._http.send(
            "POST",
            "/upload/image",
            timeout_s=_UPLOAD_TIMEOUT_S,
            # Without a type, httpx would look for the system's table of types on disk.
            files={"image": (filename, content, "application/octet-stream")},
            data={"type": "input", "overwrite": "true" if overwrite else "false"},
        )
        answer = self._http.json_of(response) if response.is_success else None
        if not is_object(answer) or not isinstance(answer.get("name"), str):
            raise BackendRejected(
                f"ComfyUI did not store the image `{filename}` (status {response.status_code}).",
                hint="ComfyUI's own log has the cause.",
                details={"filename": filename, "status": response.status_code},
            )
        return UploadedImage(answer["name"], str(answer.get("subfolder") or ""))

    async def _known_nodes(self) -> Mapping[str, Any] | None:
        # Only to say more about a refusal: the refusal itself must reach the caller in any case.
        try:
            return await self.object_info()
        except ToolError:
            return None

    async def _object(self, path: str, timeout_s: float) -> Mapping[str, Any]:
        answer = await self._http.get(path, timeout_s=timeout_s)
        if not is_object(answer):
            raise BackendRejected(
                f"What answers at {await self.address()} is not ComfyUI: {path} gave {json.dumps(answer)[:80]}.",
                hint="Check COMFYUI_API_URL: it must be the address of ComfyUI itself, with its port.",
                details={"path": path},
            )
        return answer


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if is_list(value) else ()
