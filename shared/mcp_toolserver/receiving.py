"""Stream an HTTP answer into a file that a later try goes on with: the bytes that have come are never asked for twice.

<name>.part          what has come; its size is the progress
<name>.part.etag     the state of the remote file that these bytes belong to, written before the first of them
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import httpx
from anyio import CancelScope, to_thread

from mcp_toolserver.errors import BackendRejected, BackendUnavailable, TooLarge
from mcp_toolserver.files import write_now
from mcp_toolserver.tools import Report, unheard

READ_BYTES = 1024 * 1024
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True, slots=True)
class Received:
    """How large the whole file is, and how much of it came now; in bytes."""

    size_bytes: int
    received_bytes: int


async def resuming_headers(part: Path) -> dict[str, str]:
    """Return the headers that ask for what is missing of `part`, if the remote file is still the one it came from."""
    known_bytes, state = await to_thread.run_sync(_what_is_there, part)
    headers = {"Accept-Encoding": "identity"}
    return headers | ({"Range": f"bytes={known_bytes}-", "If-Range": state} if known_bytes else {})


async def receive(
    answer: httpx.Response, part: Path, *, report: Report = unheard, max_bytes: int | None = None
) -> Received:
    """Write the body of an answer to a request with `resuming_headers` into `part`; memory stays at one read.

    `report` hears of each read once it can be read from `part`; what it raises ends the transfer. Raises TooLarge
    past `max_bytes`, BackendUnavailable where the remote file shrank, changed, or came in part, and httpx's errors
    where the connection breaks.
    """
    known_bytes, known_state = await to_thread.run_sync(_what_is_there, part)
    problem = _changed(answer, known_bytes, known_state)
    if problem is not None:
        await to_thread.run_sync(partial(_note(part).unlink, missing_ok=True))
        raise BackendUnavailable(f"{answer.url} {problem}.", hint="Call again: it comes anew from its beginning.")
    if answer.status_code == _RANGE_NOT_SATISFIABLE:
        return Received(known_bytes, 0)
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise BackendRejected(
            f"{answer.url} came compressed, though it was asked for as it is.", hint="Fetch it from somewhere else."
        )
    is_partial = answer.status_code == _PARTIAL_CONTENT
    start = _start_of(answer, known_bytes) if is_partial else 0
    total = start + int(answer.headers["content-length"]) if "content-length" in answer.headers else None
    if is_partial:
        # A part may end before the file does.
        total = _total_of(answer) or total
    _require_small(total or 0, max_bytes)
    file = await to_thread.run_sync(_opened, part, start, known_state if start else _state_of(answer))
    done, pending = start, bytearray()

    async def keep() -> None:
        nonlocal done
        _require_small(done + len(pending), max_bytes)
        await to_thread.run_sync(_write, file, bytes(pending))
        done += len(pending)
        pending.clear()

    try:
        await report(done, total, "downloading")
        try:
            async for data in answer.aiter_raw():
                pending += data
                if len(pending) >= READ_BYTES:
                    await keep()
                    await report(done, total, "downloading")
        finally:
            # What came before the connection broke need not come again.
            with CancelScope(shield=True):
                await keep()
        await report(done, total, "downloading")
    finally:
        await to_thread.run_sync(file.close)
    if total is not None and done < total:
        raise BackendUnavailable(
            f"{answer.url} sent {done} of {total} bytes.",
            hint="Call again: what has come is kept, and the rest is asked for.",
            details={"received_bytes": done, "total_bytes": total},
        )
    return Received(done, done - start)


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _what_is_there(part: Path) -> tuple[int, str]:
    try:
        state = _note(part).read_text("utf-8")
        return (part.stat().st_size, state) if state else (0, "")
    except FileNotFoundError:
        return 0, ""


def _state_of(answer: httpx.Response) -> str:
    """Return what tells this state of the file from every other and can be sent back; empty where nothing does."""
    tag, date = answer.headers.get("etag", ""), answer.headers.get("last-modified", "")
    # A weak tag does not promise the same bytes.
    return next((each for each in (tag, date) if each.isascii() and not each.startswith("W/") and each), "")


def _changed(answer: httpx.Response, known_bytes: int, known_state: str) -> str | None:
    """Say why what came before is not of the file that answers now, or None: not every server heeds If-Range."""
    told = {answer.headers[name] for name in ("etag", "last-modified") if name in answer.headers}
    is_other = bool(known_bytes and told) and known_state not in told
    if answer.status_code == _PARTIAL_CONTENT and is_other:
        return "is another file than the one that came before"
    if answer.status_code == _RANGE_NOT_SATISFIABLE and (is_other or _total_of(answer) != known_bytes):
        return "is shorter than what came of it before"
    return None


def _opened(part: Path, start: int, state: str) -> BinaryIO:
    file = part.open("r+b" if part.exists() else "wb")
    file.truncate(start)
    file.seek(start)
    # After the bytes of another state are gone, and before those of this one come.
    write_now(_note(part), state.encode())
    return file


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()


def _start_of(answer: httpx.Response, known_bytes: int) -> int:
    span = answer.headers.get("content-range", "")
    if not span.startswith(f"bytes {known_bytes}-"):
        raise BackendRejected(
            f"{answer.url} answered with other bytes ({span[:80] or 'no range'}) than were asked for.",
            hint="Its server does not keep to HTTP; fetch it from somewhere else.",
            details={"expected_start": known_bytes, "content_range": span[:80]},
        )
    return known_bytes


def _require_small(size_bytes: int, max_bytes: int | None) -> None:
    if max_bytes is not None and size_bytes > max_bytes:
        raise TooLarge(
            f"The file has at least {size_bytes} bytes, and {max_bytes} are the most that is fetched.",
            hint="Raise the limit in the server's settings, or put the file into its folder by hand.",
            details={"size_bytes": size_bytes, "limit_bytes": max_bytes},
        )


def _total_of(answer: httpx.Response) -> int | None:
    total = answer.headers.get("content-range", "").rpartition("/")[2]
    return int(total) if total.isdecimal() else None
