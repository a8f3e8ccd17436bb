"""Read, send and delete files on AI Toolkit's disk through its API, where that disk is another machine's.

Paths are absolute on AI Toolkit's machine. Files are read by `/api/img/`, which answers any file below its folders and,
other than `/api/files/`, tells by an ETag which state of the file it is: inode, size and time of change.
"""

import re
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, cast
from urllib.parse import quote

import anyio
import httpx
from anyio import CancelScope
from starlette.requests import Request
from starlette.responses import Response

from aitk_mcp.trainers.ui_http import UiHttp, UiRefused
from mcp_toolserver.errors import BackendRejected, Conflict, Forbidden
from mcp_toolserver.files import ranged_response
from mcp_toolserver.ranges import Validators

BATCH_BYTES = 1024 * 1024
# AI Toolkit writes every file of a request before it answers.
_SEND_TIMEOUT_S = 600.0
_ETAG = re.compile(r'(?:W/)?"(?P<state>[0-9a-z]+-[0-9a-z]+-(?P<changed_ms>[0-9a-z]+)(?:\.[0-9a-z]*)?)"')


@dataclass(frozen=True, slots=True)
class RemoteState:
    """The state of a file: what is written anew has another `tag` (a strong ETag, quoted); `modified` is a Unix time.

    Both are None where the server does not tell.
    """

    size_bytes: int
    tag: str | None
    modified: float | None


class UiDisk:
    """The files of one AI Toolkit server. A file that is not there raises FileNotFoundError."""

    def __init__(self, http: UiHttp) -> None:
        self._http = http

    async def state(self, path: str) -> RemoteState:
        """Return the state of a file without its bytes."""
        try:
            async with self._http.opened("HEAD", _address(path)) as response:
                return self._state_of(response, path)
        except UiRefused as error:
            raise _missing(error, path) from error

    async def beginning(self, path: str, first_bytes: int) -> tuple[bytes, RemoteState]:
        """Return the first bytes of a file and its state."""
        state = await self.state(path)
        # Of a range that goes past the end, AI Toolkit announces more bytes than it sends.
        end = min(first_bytes, state.size_bytes)
        return b"".join([batch async for batch in self.batches(path, 0, end, state.tag)]), state

    async def batches(self, path: str, start: int, end: int, tag: str | None = None) -> AsyncGenerator[bytes]:
        """Yield the bytes of a file from `start` to `end`, the latter not included.

        Raises Conflict where the file is not in the state `tag` any more, and BackendRejected where fewer come.
        """
        if start == end:
            return
        position = start
        headers = {"Range": f"bytes={start}-{end - 1}"}
        try:
            async with self._http.opened("GET", _address(path), headers=headers) as response:
                if tag is not None and self._state_of(response, path).tag != tag:
                    raise Conflict(f"{path} was changed while it was read.", hint="Call again.", details={"path": path})
                if start and response.status_code != 206:
                    raise self._http.strange(_address(path), "it serves no byte ranges")
                async for batch in response.aiter_bytes(BATCH_BYTES):
                    wanted = batch[: end - position]
                    position += len(wanted)
                    if wanted:
                        yield wanted
        except UiRefused as error:
            raise _missing(error, path) from error
        if position != end:
            raise self._http.strange(_address(path), f"{position - start} bytes came, not {end - start}")

    async def answer(self, path: str, request: Request, *, filename: str, sha256: str | None = None) -> Response:
        """Answer GET or HEAD for a file, with ranges, without keeping any of it on this machine."""
        state = await self.state(path)
        if state.tag is None or state.modified is None:
            raise self._http.strange(_address(path), "it does not say which state of the file it sends")
        changed = format_datetime(datetime.fromtimestamp(int(state.modified), UTC), usegmt=True)
        return ranged_response(
            request,
            lambda start, end: self.batches(path, start, end, state.tag),
            state.size_bytes,
            Validators(state.tag, changed),
            filename=filename,
            sha256=sha256,
        )

    async def read(self, path: str, *, most_bytes: int, small: bool = False) -> bytes:
        """Return a whole file; with `small` the small picture of an image, where AI Toolkit has made one."""
        content = bytearray()
        try:
            async with self._http.opened("GET", _address(path) + ("?thumb=1" if small else "")) as response:
                size_bytes = self._size_of(response, path)
                async for batch in response.aiter_bytes(BATCH_BYTES):
                    content += batch
                    if len(content) > most_bytes:
                        raise BackendRejected(
                            f"{path} has more than {most_bytes} bytes.",
                            hint="Fetch it by its address, which serves any size.",
                            details={"path": path, "max_bytes": most_bytes},
                        )
        except UiRefused as error:
            raise _missing(error, path) from error
        if len(content) != size_bytes:
            raise self._http.strange(_address(path), f"{len(content)} bytes came, not {size_bytes}")
        return bytes(content)

    async def copy(self, path: str, target: Path) -> None:
        """Write the bytes of a file to a new one on this machine; a copy that is cut off is deleted."""
        state = await self.state(path)
        file = await anyio.open_file(target, "xb")
        try:
            async with file:
                async for batch in self.batches(path, 0, state.size_bytes, state.tag):
                    await file.write(batch)
        except BaseException:
            with CancelScope(shield=True):
                await anyio.Path(target).unlink(missing_ok=True)
            raise

    async def send(self, dataset: str, files: Sequence[Path]) -> None:
        """Store files in the folder of a dataset, each under its own name, which must be one that AI Toolkit keeps."""
        form = await _form(dataset, files)
        path = "/api/datasets/upload"
        found = await self._http.post_stream(path, form.content(), form.headers, timeout_s=_SEND_TIMEOUT_S)
        names = [file.name for file in files]
        if not isinstance(found, dict) or cast(dict[str, Any], found).get("files") != names:
            raise self._http.strange(path, f"it stored other files than {', '.join(names[:3])}")

    async def delete(self, path: str, *, below: str) -> None:
        """Delete a file, which must lie below a folder; one that is gone already is no error."""
        parts = path.removeprefix(below.rstrip("/") + "/").split("/")
        if not path.startswith(below.rstrip("/") + "/") or any(part in ("", ".", "..") for part in parts):
            raise Forbidden(f"{path} does not lie in {below}.", details={"path": path, "allowed": below})
        try:
            # AI Toolkit decodes the path once more, after the JSON.
            await self._http.post("/api/files/delete", {"filePath": quote(path)})
        except UiRefused as error:
            if error.answer_status != 404:
                raise

    def _state_of(self, response: httpx.Response, path: str) -> RemoteState:
        told = _ETAG.fullmatch(response.headers.get("etag", ""))
        return RemoteState(
            size_bytes=self._size_of(response, path),
            tag=f'"{told["state"]}"' if told else None,
            modified=int(told["changed_ms"], 36) / 1000 if told else None,
        )

    def _size_of(self, response: httpx.Response, path: str) -> int:
        told = response.headers.get("content-range", "").rpartition("/")[2] or response.headers.get(
            "content-length", ""
        )
        if not (told.isascii() and told.isdigit()):
            raise self._http.strange(_address(path), "it does not say how large the file is")
        return int(told)


@dataclass(frozen=True, slots=True)
class _Form:
    """A form with files, whose length is known before they are read."""

    boundary: str
    parts: tuple[tuple[bytes, Path, int], ...]
    ending: bytes

    @property
    def headers(self) -> Mapping[str, str]:
        size_bytes = sum(len(head) + size_bytes + 2 for head, _, size_bytes in self.parts) + len(self.ending)
        return {
            "Content-Type": f"multipart/form-data; boundary={self.boundary}",
            "Content-Length": str(size_bytes),
        }

    async def content(self) -> AsyncGenerator[bytes]:
        for head, path, _ in self.parts:
            yield head
            async with await anyio.open_file(path, "rb") as file:
                while batch := await file.read(BATCH_BYTES):
                    yield batch
            yield b"\r\n"
        yield self.ending


async def _form(dataset: str, files: Collection[Path]) -> _Form:
    # httpx would read the files within the event loop.
    boundary = token_hex(16)
    opening = f'--{boundary}\r\nContent-Disposition: form-data; name="datasetName"\r\n\r\n{dataset}\r\n'
    parts: list[tuple[bytes, Path, int]] = []
    for path in files:
        head = (
            f'{opening}--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        parts.append((head.encode(), path, (await anyio.Path(path).stat()).st_size))
        opening = ""
    return _Form(boundary, tuple(parts), f"--{boundary}--\r\n".encode())


def _address(path: str) -> str:
    folder, _, name = path.rpartition("/")
    # Slashes travel encoded: this is the form that AI Toolkit's own pages use.
    return f"/api/img/{quote(folder, safe='')}/{quote(name, safe='')}"


def _missing(error: UiRefused, path: str) -> Exception:
    return FileNotFoundError(path) if error.answer_status == 404 else error
