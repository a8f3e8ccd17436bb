"""Files as a server handles them: names from callers, appearance by rename, and ranged downloads."""

import hashlib
import os
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from io import FileIO
from pathlib import Path, PurePosixPath
from urllib.parse import quote
from uuid import uuid4

import pybase64
from anyio import CancelScope, to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from mcp_toolserver.errors import Conflict, InvalidArguments
from mcp_toolserver.http_protocol import ZERO_COPY_SEND
from mcp_toolserver.ranges import Answer, Validators, answer_for, wants_sha256
from mcp_toolserver.tools import Report, unheard

BATCH_BYTES = 2 * 1024 * 1024
"""How much one thread hop reads or hashes: large enough that the hop is cheap, small enough for many at once."""

DOWNLOAD_HEADERS = ("Accept-Ranges", "Content-Disposition", "Content-Range", "ETag", "Repr-Digest")
"""What the answer to a download says beside what a web page may read of every answer."""

# Windows opens a device under these names, whatever the extension; a folder that is shared with it must not hold them.
_DEVICES = {
    *("con", "prn", "aux", "nul", "conin$", "conout$"),
    *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789"),
}
_LOOK_ALIKES = "\u2044\u2215\u2216\u29f5\u29f8"
"""Fraction slash, division slash, set minus, both operators of a solidus: no compatible form of theirs tells them."""
LONGEST_NAME_BYTES = 255
_LONGEST_PATH_BYTES = 1024
_MOST_PARTS = 16
"""Each folder of a path is created, made durable and looked into for every file below it."""


_ATTEMPTS_TO_PUBLISH = 5


def safe_relative(name: str, *, field: str = "filename") -> PurePosixPath:
    """Return `name` as a relative path that stays where it is put; `\\` counts as `/`.

    Raises InvalidArguments, naming `field`, for an absolute path, `..`, hidden parts (which would reach the servers'
    own folders), control characters, look-alikes of separators, names that Windows reserves, over-long parts, and
    paths of more than 16 parts or 1024 bytes.
    """
    plain = unicodedata.normalize("NFC", name).replace("\\", "/")
    if plain.startswith("/"):
        raise _bad_name(field, name, "it is absolute", PurePosixPath(plain).name)
    parts = plain.split("/")
    if len(parts) > _MOST_PARTS:
        raise _bad_name(field, name, f"it has {len(parts)} parts, and {_MOST_PARTS} are the most", parts[-1])
    for part in parts:
        problem = _problem_of(part)
        if problem:
            raise _bad_name(field, name, problem, parts[-1])
    if len(plain.encode()) > _LONGEST_PATH_BYTES:
        problem = f"it has {len(plain.encode())} bytes, and {_LONGEST_PATH_BYTES} are the most"
        raise _bad_name(field, name, problem, parts[-1])
    return PurePosixPath(plain)


def _problem_of(part: str) -> str | None:
    if not part:
        return "a part of it is empty"
    if part.startswith("."):
        return f"the part {part!r} begins with a dot"
    if part.endswith(".") or part != part.strip():
        return f"the part {part!r} begins or ends with white space or a dot, which Windows drops"
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") or letter in ':*?"<>|' for letter in part):
        return f"the part {part!r} holds a character that no file name should hold"
    # What a program sees that takes letters for their compatible forms, as some file systems do.
    seen = unicodedata.normalize("NFKC", part)
    if any(letter in _LOOK_ALIKES for letter in part) or any(letter in "/\\:" for letter in seen):
        return f"the part {part!r} holds a look-alike of a path separator"
    if seen.startswith("."):
        return f"the part {part!r} begins with a look-alike of a dot"
    if seen.split(".", 1)[0].strip().lower() in _DEVICES:
        return f"{part!r} is a device name on Windows"
    try:
        too_long = len(part.encode()) > LONGEST_NAME_BYTES
    except UnicodeEncodeError:
        return f"the part {part!r} is no valid text"
    return f"a part of it is longer than {LONGEST_NAME_BYTES} bytes" if too_long else None


def _bad_name(field: str, name: str, problem: str, last: str) -> InvalidArguments:
    shown = name if len(name) <= 120 else name[:117] + "..."
    good = last if last and _problem_of(last) is None else "my_file.bin"
    return InvalidArguments(
        f"`{field}` is {shown!r}: {problem}.",
        hint=f"Send a plain relative name such as `{good}` or `folder/{good}`.",
        details={"field": field, "value": shown},
    )


def etag_of(state: os.stat_result) -> str:
    """Return the strong tag (quoted) that this state of a published file has on every server.

    Published files appear by rename, so that new content is a new inode: these three numbers make a strong validator,
    and one that does not change when the digest becomes known in the middle of a resumed download.
    """
    return f'"{state.st_ino:x}-{state.st_size:x}-{state.st_mtime_ns:x}"'


def leave_no_empty_folder(folder: Path, roots: Collection[Path]) -> None:
    """Remove a folder out of which a file was deleted, and those above it, while they are empty; never one of `roots`.

    Blocks; the deletion itself is on the disk afterwards.
    """
    while folder not in roots:
        try:
            folder.rmdir()
        except FileNotFoundError:
            # Whoever deleted the other file in it was faster.
            pass
        except OSError:
            # Something else lies in it, or it is a link.
            break
        folder = folder.parent
    with suppress(FileNotFoundError):
        sync_directory(folder)


def sync_directory(folder: Path) -> None:
    """Make the entries of a folder durable: a rename survives a power cut only after this."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_now(target: Path, data: bytes) -> None:
    """Write a small file that is either there whole or not at all, also after a power cut; blocks."""
    work = target.with_name(f".{uuid4().hex}.tmp")
    try:
        with work.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        work.replace(target)
    except BaseException:
        work.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def publish_now(part: Path, target: Path, *, overwrite: bool) -> None:
    """Move a finished file to its public name, durably and in one step; blocks.

    `part` must lie on the file system of `target`. Raises Conflict when the name is taken and `overwrite` is false,
    also when another process takes it at the same moment, and where a folder has the name or a file has a folder's.
    """
    with part.open("rb") as file:
        os.fsync(file.fileno())
    for attempts_left in reversed(range(_ATTEMPTS_TO_PUBLISH)):
        require_free_path(target)
        try:
            make_folder(target.parent)
            if overwrite:
                part.replace(target)
            else:
                _move_to_free_name(part, target)
            break
        except FileNotFoundError:
            # Who deletes the last file of a folder removes the folder: at this moment, before there was another.
            if not attempts_left or not part.exists():
                raise
    sync_directory(target.parent)
    sync_directory(part.parent)


def require_free_path(target: Path) -> None:
    """Raise Conflict where no file can have this name, because a folder has it or a file has that of a folder; blocks.

    A name that another file has is no such case.
    """
    if target.is_dir():
        raise Conflict(
            f"`{target.name}` is a folder.",
            hint=f"Choose another name, or send the file into it: `{target.name}/FILE`.",
            details={"filename": target.name},
        )
    above = next(folder for folder in target.parents if os.path.lexists(folder))
    if not above.is_dir():
        raise Conflict(
            f"`{above.name}` is a file and no folder: nothing can lie in it.",
            hint="Choose another name for the folder.",
            details={"folder": above.name},
        )


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, each durable in its own parent; blocks."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_directory(folder.parent)


def _move_to_free_name(part: Path, target: Path) -> None:
    try:
        # A rename replaces silently; a hard link is refused when the name exists: of two racing callers, one wins.
        target.hardlink_to(part)
    except FileExistsError:
        # A link that leads nowhere has the name too.
        if not target.exists() or not target.samefile(part):
            raise _taken(target) from None
    except FileNotFoundError:
        raise
    except OSError:
        # exFAT and some network file systems have no hard links: there, looking first is the best that is left.
        if os.path.lexists(target):
            raise _taken(target) from None
        part.replace(target)
        return
    # A power cut must not take the old name and leave no new one.
    sync_directory(target.parent)
    part.unlink()


def _taken(target: Path) -> Conflict:
    return Conflict(
        f"`{target.name}` exists already.",
        hint="Send `overwrite: true` to replace it, or choose another name.",
        details={"filename": target.name},
    )


async def publish(part: Path, target: Path, *, overwrite: bool) -> None:
    """Move a finished file to its public name, as `publish_now` does, without blocking the event loop."""
    await to_thread.run_sync(partial(publish_now, part, target, overwrite=overwrite))


async def write_file_atomically(target: Path, data: bytes) -> None:
    """Write a small file as `write_now` does, without blocking the event loop."""
    await to_thread.run_sync(write_now, target, data)


async def sha256_of_file(path: Path, report: Report = unheard) -> str:
    """Return the sha256 of a file in hex, reporting bytes done of bytes in all; memory does not grow with the file."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BATCH_BYTES))
    file = await to_thread.run_sync(partial(path.open, "rb", buffering=0))

    def hash_batch() -> int:
        count = file.readinto(buffer)
        digest.update(buffer[:count])
        return count

    try:
        total = os.fstat(file.fileno()).st_size
        done = 0
        while count := await to_thread.run_sync(hash_batch):
            done += count
            await report(done, total, "computing sha256")
    finally:
        file.close()
    return digest.hexdigest()


async def ranged_file_response(
    path: Path, request: Request, *, sha256: str | None = None, filename: str | None = None
) -> Response:
    """Answer GET or HEAD for a file: ranges, conditions, a strong ETag and, when `sha256` (hex) is known, its digest.

    The bytes of one answer are those of one file, also when another is published under its name meanwhile.
    Raises FileNotFoundError. Source: RFC 9110 (ranges, conditions), RFC 9530 (Repr-Digest), RFC 6266 (disposition).
    """
    file = await to_thread.run_sync(partial(path.open, "rb", buffering=0))
    state = os.fstat(file.fileno())
    validators = Validators(
        etag=etag_of(state),
        last_modified=format_datetime(datetime.fromtimestamp(int(state.st_mtime), UTC), usegmt=True),
    )
    asked = _asked(request)
    answer = answer_for(request.method, asked, state.st_size, validators)
    headers = _headers(answer, state.st_size, validators, filename or path.name, _wanted(sha256, asked))
    if request.method == "HEAD" or answer.status not in (200, 206):
        file.close()
        return Response(status_code=answer.status, headers=headers, media_type="application/octet-stream")
    return _FileSpan(file, answer.start, answer.end, status_code=answer.status, headers=headers)


def ranged_response(
    request: Request,
    batches: Callable[[int, int], AsyncGenerator[bytes]],
    size_bytes: int,
    validators: Validators,
    *,
    filename: str,
    sha256: str | None = None,
) -> Response:
    """Answer GET or HEAD for what comes from elsewhere, as `ranged_file_response` does for a file.

    `batches` yields the bytes from a start to an end, the latter not included, and breaks off where they change.
    """
    asked = _asked(request)
    answer = answer_for(request.method, asked, size_bytes, validators)
    headers = _headers(answer, size_bytes, validators, filename, _wanted(sha256, asked))
    if request.method == "HEAD" or answer.status not in (200, 206):
        return Response(status_code=answer.status, headers=headers, media_type="application/octet-stream")
    return _Span(batches(answer.start, answer.end), status_code=answer.status, headers=headers)


def _asked(request: Request) -> dict[str, str]:
    # What is a list may stand in several lines, which count as one.
    return {name: ", ".join(request.headers.getlist(name)) for name in request.headers}


def _wanted(sha256: str | None, asked: Mapping[str, str]) -> str | None:
    return None if wants_sha256(asked) is False else sha256


def _headers(
    answer: Answer, size_bytes: int, validators: Validators, filename: str, sha256: str | None
) -> dict[str, str]:
    headers = {"Accept-Ranges": "bytes", "ETag": validators.etag, "Last-Modified": validators.last_modified}
    if answer.status in (200, 206):
        headers["Content-Disposition"] = _disposition(filename)
    # What is sent with a refusal is the refusal's content, which has another digest.
    if sha256 is not None and answer.status in (200, 206, 304):
        headers["Repr-Digest"] = f"sha-256=:{pybase64.b64encode(bytes.fromhex(sha256)).decode()}:"
    if answer.status in (206, 416):
        span = f"{answer.start}-{answer.end - 1}" if answer.status == 206 else "*"
        headers["Content-Range"] = f"bytes {span}/{size_bytes}"
    if answer.status in (200, 206):
        headers["Content-Length"] = str(answer.end - answer.start)
    return headers


def _disposition(filename: str) -> str:
    plain = "".join(
        letter if letter.isascii() and letter.isprintable() and letter not in '"\\' else "_" for letter in filename
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


class _FileSpan(StreamingResponse):
    """Stream part of an open file, and close it also when the caller goes away."""

    def __init__(self, file: FileIO, start: int, end: int, *, status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__(
            self._batches(start, end), status_code=status_code, headers=headers, media_type="application/octet-stream"
        )
        self._file = file
        self._span = start, end

    async def _batches(self, start: int, end: int) -> AsyncIterator[bytes]:
        position = start
        while position < end:
            batch = await to_thread.run_sync(os.pread, self._file.fileno(), min(BATCH_BYTES, end - position), position)
            if not batch:
                # The length is announced already: to end the answer here would pass a cut file off as a whole one.
                raise EOFError(f"{self._file.name} became shorter while it was sent")
            position += len(batch)
            yield batch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if ZERO_COPY_SEND in scope.get("extensions", {}):
                await self._hand_over(send)
            else:
                await super().__call__(scope, receive, send)
        finally:
            self._file.close()

    async def _hand_over(self, send: Send) -> None:
        start, end = self._span
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": ZERO_COPY_SEND, "file": self._file, "offset": start, "count": end - start})
        await send({"type": "http.response.body", "body": b""})


class _Span(StreamingResponse):
    """Stream batches, and let go of where they come from also when the caller goes away."""

    def __init__(self, batches: AsyncGenerator[bytes], *, status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__(batches, status_code=status_code, headers=headers, media_type="application/octet-stream")
        self._batches = batches

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await self._batches.aclose()
