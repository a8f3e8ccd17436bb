"""The caller's side of the chunk tools: begin or resume an upload, and send what is missing."""

import shutil
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import uuid4

import orjson
import pybase64
from anyio import to_thread

from mcp_toolserver.errors import Conflict
from mcp_toolserver.files import make_folder, write_now

CallTool = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Call a tool of the receiving server and return its result; it may try again by itself, for every step repeats."""


class SenderMemory:
    """What a sender keeps on disk until the upload is over: the file to send, and the id to resume by. Blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = folder / "state.json"
        self.part = folder / "file.part"

    def upload_id(self) -> str | None:
        """Return the id that was used before."""
        try:
            return cast(str, orjson.loads(self._state.read_bytes())["upload_id"])
        except FileNotFoundError:
            return None

    def remember(self, upload_id: str) -> None:
        """Keep the id of an upload for the next time."""
        make_folder(self._folder)
        write_now(self._state, orjson.dumps({"upload_id": upload_id}))

    def forget(self) -> None:
        """Remove everything."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder)


class ChunkSender:
    """Send one file; `tools` is what the names of the chunk tools begin with, such as `upload-lora-chunked`."""

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
        started = await self._call(f"{self._tools}-start", {**arguments, "upload_id": upload_id})
        await to_thread.run_sync(self._memory.remember, upload_id)
        return started

    async def send(self, file: Path, started: Mapping[str, Any], progress: Callable[[int], None]) -> None:
        """Send the chunks that are missing; `progress` hears how many bytes the server has."""
        size, index, total = started["chunk_size"], started["next_chunk_index"], started["total_chunks"]
        opened = await to_thread.run_sync(partial(file.open, "rb"))
        try:
            while index < total:
                chunk = await to_thread.run_sync(_encoded, opened, index * size, size)
                answer = await self._call(
                    f"{self._tools}-append",
                    {"upload_id": started["upload_id"], "chunk": chunk, "chunk_index": index},
                )
                index = answer["next_chunk_index"]
                progress(answer["received_bytes"])
        finally:
            opened.close()

    async def finish(self, upload_id: str, sha256: str) -> dict[str, Any]:
        """Let the server compare the digest and publish the file."""
        return await self._call(f"{self._tools}-finish", {"upload_id": upload_id, "sha256": sha256})

    async def abort(self, upload_id: str) -> None:
        """Drop the upload."""
        await self._call(f"{self._tools}-abort", {"upload_id": upload_id})


def _encoded(file: BinaryIO, offset: int, size_bytes: int) -> str:
    file.seek(offset)
    return pybase64.b64encode(file.read(size_bytes)).decode("ascii")
