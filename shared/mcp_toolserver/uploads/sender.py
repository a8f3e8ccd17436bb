"""The caller's side of an upload: begin or resume it, send what is missing by chunk tools or by tus, and finish it."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import orjson
import pybase64
from anyio import to_thread

from mcp_toolserver.client import ToolClient
from mcp_toolserver.errors import BackendUnavailable, Conflict, ToolError
from mcp_toolserver.files import make_folder, write_now
from mcp_toolserver.uploads.store import canonical_id

CallTool = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Call a tool of the receiving server and return its result; it may try again by itself, for every step repeats."""

Pieces = Callable[[int], AsyncGenerator[bytes]]
"""Give the bytes of the file to send, from an offset on to its end; what it raises ends the sending."""

Progress = Callable[[int], None]
"""Hear how many bytes of the file are sent."""

_TUS = {"Tus-Resumable": "1.0.0"}


class SenderMemory:
    """The small file that keeps the id of an unfinished upload, to resume it by. Blocks.

    A file that is damaged or cannot be read counts as none; `unusable` hears why one cannot be written, and nothing
    can be resumed then.
    """

    def __init__(self, path: Path, unusable: Callable[[OSError], None]) -> None:
        self._path = path
        self._unusable = unusable

    def upload_id(self) -> str | None:
        """Return the id that was used before."""
        try:
            kept: Any = orjson.loads(self._path.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None
        known = cast(dict[str, Any], kept).get("upload_id") if isinstance(kept, dict) else None
        return canonical_id(known) if isinstance(known, str) else None

    def remember(self, upload_id: str) -> None:
        """Keep the id of an upload for the next time."""
        try:
            make_folder(self._path.parent)
            write_now(self._path, orjson.dumps({"upload_id": upload_id}))
        except OSError as error:
            self._unusable(error)

    def forget(self) -> None:
        """Remove it; what cannot be removed is found published the next time."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


class UploadSender:
    """Send one file; `tools` is what the names of the chunk tools begin with, such as `upload-lora-chunked`.

    Nothing of the file is kept here but what is on its way: what has arrived is asked for at each beginning.
    """

    def __init__(self, call: CallTool, tools: str, memory: SenderMemory) -> None:
        self._call = call
        self._tools = tools
        self._memory = memory

    async def start(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Begin the upload, or resume it; begin anew where the remembered one is of no use.

        That is so when it was published before, or was started with other arguments; the latter is aborted.
        """
        known_id = await to_thread.run_sync(self._memory.upload_id)
        if known_id is not None:
            try:
                resumed = await self._call(f"{self._tools}-start", {**arguments, "upload_id": known_id})
            except Conflict as refusal:
                if "differing" not in refusal.details:
                    raise
                await self.abort(known_id)
            else:
                if resumed["status"] != "published":
                    return resumed
        upload_id = str(uuid4())
        # Before the start, whose answer may be lost.
        await to_thread.run_sync(self._memory.remember, upload_id)
        try:
            return await self._call(f"{self._tools}-start", {**arguments, "upload_id": upload_id})
        except ToolError as refusal:
            if not refusal.retryable:
                await to_thread.run_sync(self._memory.forget)
            raise

    async def status(self, upload_id: str) -> dict[str, Any]:
        """Return how far the upload is; raises NotFound where it is no more."""
        return await self._call(f"{self._tools}-status", {"upload_id": upload_id})

    async def by_chunks(self, upload_id: str, pieces: Pieces, progress: Progress) -> None:
        """Send what is missing by the chunk tools."""
        state = await self.status(upload_id)
        index, size_bytes = state["next_chunk_index"], state["chunk_size"]
        if index == state["total_chunks"]:
            return
        async with aclosing(pieces(index * size_bytes)) as opened:
            async for chunk in _cut(opened, size_bytes):
                arguments = {"upload_id": upload_id, "chunk": pybase64.b64encode(chunk).decode("ascii")}
                try:
                    answer = await self._call(f"{self._tools}-append", {**arguments, "chunk_index": index})
                except Conflict as refusal:
                    if refusal.details.get("status") != "published":
                        raise
                    # Another run of the same transfer was faster: the finish answers it the same.
                    return
                index += 1
                progress(answer["received_bytes"])

    async def by_tus(self, server: ToolClient, upload_id: str, pieces: Pieces, progress: Progress) -> None:
        """Send what is missing by tus, in one request; raises BackendUnavailable where it is to be tried again."""
        path = f"/uploads/{upload_id}"
        told = await server.send("HEAD", path, _TUS)
        offset, size_bytes = int(told["Upload-Offset"]), int(told["Upload-Length"])
        if offset == size_bytes:
            return

        async def body() -> AsyncGenerator[bytes]:
            sent = offset
            async with aclosing(pieces(offset)) as opened:
                async for piece in opened:
                    yield piece
                    sent += len(piece)
                    progress(sent)

        headers = {
            **_TUS,
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(size_bytes - offset),
            "Upload-Offset": str(offset),
        }
        try:
            async with aclosing(body()) as content:
                await server.send("PATCH", path, headers, content)
        except Conflict as refusal:
            if not {"offset", "status"} & refusal.details.keys():
                raise
            # What an earlier request had sent before its connection broke came in after its offset was told.
            raise BackendUnavailable(refusal.message, hint=refusal.hint, details=refusal.details) from refusal

    async def finish(self, upload_id: str, sha256: str) -> dict[str, Any]:
        """Let the server compare the digest and publish the file."""
        return await self._call(f"{self._tools}-finish", {"upload_id": upload_id, "sha256": sha256})

    async def abort(self, upload_id: str) -> None:
        """Drop the upload."""
        await self._call(f"{self._tools}-abort", {"upload_id": upload_id})


async def _cut(pieces: AsyncIterator[bytes], size_bytes: int) -> AsyncGenerator[bytes]:
    pending = bytearray()
    async for piece in pieces:
        pending += piece
        while len(pending) >= size_bytes:
            yield bytes(pending[:size_bytes])
            del pending[:size_bytes]
    if pending:
        yield bytes(pending)
