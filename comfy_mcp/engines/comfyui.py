"""Speak to ComfyUI: submit graphs, follow and cancel them, list models, move files.

comfyui_http      requests, and what their failures mean
comfyui_socket    the one WebSocket
comfyui_events    PURE: its frames
comfyui_history   PURE: /queue and /history
comfyui_refusals  PURE: what validation says
comfyui_uploads   files that are sent to it
comfyui_watch     from submission to the end of one prompt
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import anyio
import httpx
from anyio import to_thread

from comfy_mcp.engines.comfyui_history import Ending, OutputFile, QueueState, read_ending, read_queue
from comfy_mcp.engines.comfyui_http import Address, AnswerLost, ComfyHttp, unavailable
from comfy_mcp.engines.comfyui_refusals import read_node_errors, refusal, warnings_of
from comfy_mcp.engines.comfyui_socket import EventSocket
from comfy_mcp.engines.comfyui_uploads import (
    UploadedFile,
    UploadRoutes,
    upload_asset,
    upload_image,
    upload_routes_of,
    upload_to_output,
)
from comfy_mcp.engines.comfyui_watch import Watch
from comfy_mcp.engines.fresh_files import fresh_head
from comfy_mcp.engines.port import Cancellation
from comfy_mcp.workflows.graphs import Graph, is_list, is_object
from mcp_toolserver.errors import BackendRejected, ToolError

Whereabouts = Literal["pending", "running"] | Ending | None
"""Where a prompt is: in the queue, ended, or (None) unknown to this server."""

PROBE_TIMEOUT_S = 2.0

_OBJECT_INFO_TIMEOUT_S = 60.0
_SUBMIT_TIMEOUT_S = 60.0
_SOCKET_WAIT_S = 2.0
_CANCEL_POLL_S = 0.25
# The server's worker notes the wish when it next looks at its queue.
_FREE_SETTLES_S = 0.2


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model as the server's detailed list has it; `folder_index` counts in the folders of `folder_paths`."""

    name: str
    size_bytes: int
    modified_s: float
    folder_index: int


class ComfyUI:
    """One ComfyUI server, under one client id.

    `lost_after_s` is how long an unfinished prompt waits for a server that does not answer, before it counts as lost;
    `folder` gives the server's own folder where that is on this disk.
    Every method raises BackendUnavailable when the server does not answer, and BackendRejected when what it answers
    makes no sense.
    """

    def __init__(
        self,
        address: Address,
        *,
        client_id: str | None = None,
        lost_after_s: float = 60.0,
        folder: Callable[[], Awaitable[Path | None]] | None = None,
    ) -> None:
        self.address = address
        self.client_id = client_id or str(uuid4())
        self._http = ComfyHttp(address)
        self._socket = EventSocket(address, self.client_id)
        self._lost_after_s = lost_after_s
        self._folder = folder
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

    async def answers(self) -> bool:
        """Tell whether the server answers within two seconds, connecting and all."""
        with anyio.move_on_after(PROBE_TIMEOUT_S):
            try:
                await self.system_stats()
            except ToolError:
                return False
            return True
        return False

    async def is_away(self) -> bool:
        """Tell whether the server does not answer now; while its socket is open, this asks nothing."""
        return self._socket.connection is None and not await self.answers()

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

    async def model_rows(self, folder: str) -> tuple[ModelRow, ...] | None:
        """Return the models of a folder with sizes and times, or None where the server has no such listing."""
        rows = await self._http.get(f"/experiment/models/{folder}")
        if not is_list(rows):
            return None
        return tuple(row for each in rows if is_object(each) and (row := _model_row(each)) is not None)

    async def model_sizes(self, folder: str) -> Mapping[str, int]:
        """Return the size in bytes of the models of a folder; empty where the server has no such listing."""
        return {row.name: row.size_bytes for row in await self.model_rows(folder) or ()}

    async def model_metadata(self, folder: str, name: str) -> Mapping[str, str] | None:
        """Return the `__metadata__` of a safetensors file, or None where the server shows none.

        It shows none for a header over 1 MiB, for an extension that is not in lower case, and for a broken file.
        """
        try:
            answer = await self._http.get(f"/view_metadata/{folder}?{httpx.QueryParams(filename=name)}")
        except BackendRejected:
            return None
        return {key: str(value) for key, value in answer.items()} if is_object(answer) else None

    async def folder_paths(self) -> Mapping[str, tuple[str, ...]]:
        """Return the absolute folders of each kind of model, on the server's own disk; empty where it does not say."""
        answer = await self._http.get("/internal/folder_paths")
        return {kind: _texts(paths) for kind, paths in answer.items()} if is_object(answer) else {}

    async def free(self) -> None:
        """Ask the server to forget the models in its memory, as after a LoRA was overwritten: it keeps the old weights.

        Source: an overwritten LoRA went on rendering with its old weights in 5 of 5 trials, until this. The answer
        comes before the deed: a prompt that follows at once would still be rendered with the old weights.
        """
        await self._http.post("/free", {"unload_models": True, "free_memory": True})
        await anyio.sleep(_FREE_SETTLES_S)

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

    async def head(self, file: OutputFile, size_bytes: int) -> bytes:
        """Return the first bytes of a file that a prompt wrote; empty where the server no longer has it."""
        folder = await self._folder() if self._folder is not None else None
        if folder is not None and (head := await to_thread.run_sync(fresh_head, folder, file, size_bytes)):
            return head
        response = await self.open_file(file, {"range": f"bytes=0-{size_bytes - 1}"})
        head = b""
        try:
            if response.is_success:
                async for piece in response.aiter_raw():
                    head += piece
                    # An answer that is read to its end leaves the connection open, and the next one would cost more
                    # than all of this; only a server without ranges has a whole file to send.
                    if response.status_code != HTTPStatus.PARTIAL_CONTENT and len(head) >= size_bytes:
                        break
        except httpx.HTTPError as error:
            raise unavailable(response.url, error) from error
        finally:
            await response.aclose()
        return head

    async def local_path(self, file: OutputFile) -> Path | None:
        """Return None: which folder the server writes to is its own affair."""
        return None

    async def view_url(self, file: OutputFile) -> str:
        """Return the server's own address of a file, for callers that cannot reach ours."""
        params = httpx.QueryParams(filename=file.filename, subfolder=file.subfolder, type=file.kind)
        return f"{(await self.address()).rstrip('/')}/view?{params}"

    async def upload_image(self, filename: str, content: bytes, *, overwrite: bool = False) -> UploadedFile:
        """Store an image for LoadImage; when the name is taken by other bytes, the server picks another one."""
        return await upload_image(self._http, filename, content, overwrite=overwrite)

    async def upload_routes(self) -> UploadRoutes:
        """Return how files can be sent to the server."""
        return await upload_routes_of(self._http)

    async def upload_lora(self, path: Path, name: str, *, overwrite: bool = False) -> str:
        """Send a LoRA by the server's own routes, streamed from disk, and return the name that its loaders take.

        Assets, where they are enabled, are stored under the digest of their bytes; else the file lies in the output
        folder, and gets another name where this one is taken and `overwrite` is false. Raises TooLarge before
        anything is sent.
        """
        routes = await self.upload_routes()
        folder, _, filename = name.rpartition("/")
        if routes.assets:
            return await upload_asset(self._http, path, filename, tags=("models", "model_type:loras"))
        stored = await upload_to_output(
            self._http,
            path,
            filename,
            subfolder=f"loras/{folder}".rstrip("/"),
            overwrite=overwrite,
            limit_bytes=routes.limit_bytes,
        )
        return stored.reference.removeprefix("loras/")

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


def _model_row(row: Mapping[str, Any]) -> ModelRow | None:
    name, size, modified, index = (row.get(key) for key in ("name", "size", "modified", "pathIndex"))
    if not isinstance(name, str) or not isinstance(size, int):
        return None
    return ModelRow(
        name,
        size,
        float(modified) if isinstance(modified, int | float) else 0.0,
        index if isinstance(index, int) else 0,
    )
