"""Bring models from the internet into ComfyUI's folders; a download outlives the call that began it."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256 as digest_of
from pathlib import Path, PurePosixPath
from time import time
from urllib.parse import unquote, urlsplit

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from comfy_mcp.models.models import Models
from comfy_mcp.models.shelf import Placed, Shelf, require_kind, unusable
from lora_files.header import BadSafetensors, check_opening, parse_header
from mcp_toolserver.errors import Conflict, Internal, InvalidArguments, ToolError
from mcp_toolserver.files import make_folder, sha256_of_file
from mcp_toolserver.outbound import Outbound
from mcp_toolserver.tools import Report, unheard
from mcp_toolserver.uploads.store import UploadStore, disk_errors

log = logging.getLogger(__name__)

_LENGTH_BYTES = 8
_ANY_SIZE_BYTES = 2**62
_FORGOTTEN_AFTER_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be fetched, and where it is to go; `sha256` (hex) is compared."""

    url: str
    kind: str
    name: str
    overwrite: bool
    sha256: str | None


@dataclass(slots=True)
class Download:
    """One download: how far it is, and how it ended."""

    wanted: Wanted
    received_bytes: int = 0
    total_bytes: int | None = None
    placed: Placed | None = None
    error: ToolError | None = None
    changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def is_over(self) -> bool:
        """Tell whether it ended, well or not."""
        return self.placed is not None or self.error is not None

    def note(self) -> None:
        """Wake those who wait for news."""
        self.changed.set()
        self.changed = anyio.Event()


class Downloads:
    """Fetch models; `shelf_of` gives where a kind of model goes."""

    def __init__(self, outbound: Outbound, models: Models, shelf_of: Callable[[str], Shelf]) -> None:
        self._outbound = outbound
        self._models = models
        self._shelf_of = shelf_of
        self._downloads: dict[tuple[str, str], Download] = {}
        self._tasks: TaskGroup | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Let downloads go on while the block runs; what has come by its end is kept."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def fetch(
        self,
        url: str,
        kind: str,
        *,
        filename: str | None = None,
        overwrite: bool = False,
        sha256: str | None = None,
        wait_s: float,
        report: Report = unheard,
    ) -> Download:
        """Begin or join a download and wait for it; one that is not over by then goes on, and is joined by the same
        call again.

        Raises what it failed with: Forbidden for a host that is not listed, InvalidArguments for a file that is no
        safetensors or of another kind, Conflict for a name that is taken or a digest that differs.
        """
        self._outbound.policy.check(url)
        kind = await self._models.kind(kind)
        name = filename or _name_in(url)
        download = await self._joined(Wanted(url=url, kind=kind, name=name, overwrite=overwrite, sha256=sha256))
        with anyio.move_on_after(wait_s):
            while not download.is_over:
                changed = download.changed
                await report(download.received_bytes, download.total_bytes, f"downloading {name}")
                await changed.wait()
        if download.error is not None:
            raise download.error
        return download

    async def _joined(self, wanted: Wanted) -> Download:
        key = (wanted.kind, wanted.name)
        download = self._downloads.get(key)
        if download is not None and download.wanted == wanted:
            return download
        if download is not None and not download.is_over:
            raise Conflict(
                f"Another file is being downloaded as `{wanted.name}`.",
                hint="Wait for it, or choose another `filename`.",
                details={"filename": wanted.name, "url": download.wanted.url},
            )
        shelf = self._shelf_of(wanted.kind)
        await shelf.accept(wanted.name, overwrite=wanted.overwrite)
        if self._tasks is None:
            raise Internal("The server is stopping.", hint="Call again once it runs.")
        download = self._downloads[key] = Download(wanted)
        self._tasks.start_soon(self._run, download, shelf)
        return download

    async def _run(self, download: Download, shelf: Shelf) -> None:
        wanted = download.wanted
        try:
            with disk_errors():
                download.placed = await self._bring(download, shelf)
        except ToolError as error:
            download.error = error
        except Exception as error:
            log.exception("a download failed", extra={"url": wanted.url})
            download.error = Internal("The download failed inside the server.", hint="The server's log has the cause.")
            download.error.__cause__ = error
        finally:
            if download.placed is None:
                # The next call begins again, with what has come.
                del self._downloads[wanted.kind, wanted.name]
            download.note()

    async def _bring(self, download: Download, shelf: Shelf) -> Placed:
        wanted = download.wanted
        work = await shelf.work_folder()
        part = work / f"{digest_of(wanted.url.encode()).hexdigest()[:32]}.part"
        await to_thread.run_sync(_make_ready, work)
        look = _Inspection(part, wanted)

        async def heard(done: float, /, total: float | None = None, message: str | None = None) -> None:
            download.received_bytes, download.total_bytes = int(done), None if total is None else int(total)
            download.note()
            await to_thread.run_sync(look, download.received_bytes, download.total_bytes)

        try:
            received = await self._outbound.fetch(wanted.url, part, report=heard)
            download.received_bytes = download.total_bytes = received.size_bytes
            await _compare(part, wanted.sha256)
            placed = await shelf.install(part, wanted.name, overwrite=wanted.overwrite, sha256=wanted.sha256)
        except InvalidArguments:
            # Its bytes will never be the right ones.
            await to_thread.run_sync(_drop, part)
            raise
        await to_thread.run_sync(_drop, part)
        return placed


class _Inspection:
    """Look at a file while it comes, so that what is of no use is refused at its first bytes. Blocks."""

    def __init__(self, part: Path, wanted: Wanted) -> None:
        self._part = part
        self._wanted = wanted
        self._has_room = False
        self._is_checked = False

    def __call__(self, received_bytes: int, total_bytes: int | None) -> None:
        """Raise InvalidArguments for what cannot be used, and InsufficientStorage for what will not fit."""
        if total_bytes is not None and not self._has_room:
            UploadStore(self._part.parent).require_room(total_bytes - received_bytes)
            self._has_room = True
        if self._is_checked or received_bytes < _LENGTH_BYTES:
            return
        try:
            self._check(received_bytes, total_bytes)
        except BadSafetensors as error:
            raise unusable(self._wanted.name, error) from None

    def _check(self, received_bytes: int, total_bytes: int | None) -> None:
        with self._part.open("rb") as file:
            opening = file.read(4096)
            check_opening(opening, total_bytes or _ANY_SIZE_BYTES)
            header_bytes = int.from_bytes(opening[:_LENGTH_BYTES], "little")
            if total_bytes is None or received_bytes < _LENGTH_BYTES + header_bytes:
                return
            file.seek(_LENGTH_BYTES)
            header = parse_header(file.read(header_bytes), total_bytes - _LENGTH_BYTES - header_bytes)
        require_kind(header, self._wanted.kind)
        self._is_checked = True


def _name_in(url: str) -> str:
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not name.lower().endswith(".safetensors"):
        raise InvalidArguments(
            f"Argument `url` is {url[:200]!r}: it does not end in the name of a .safetensors file.",
            hint="Send the name that the model is to have as `filename`; other formats of models can run code.",
            details={"field": "filename", "value": None},
        )
    return name


def _make_ready(work: Path) -> None:
    make_folder(work)
    for path in work.glob("*.part*"):
        # What nobody came back for in a week is not waited for.
        if path.is_file() and time() - path.stat().st_mtime > _FORGOTTEN_AFTER_S:
            path.unlink(missing_ok=True)


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.etag").unlink(missing_ok=True)


async def _compare(part: Path, expected: str | None) -> None:
    if expected is None:
        return
    actual = await sha256_of_file(part)
    if actual != expected:
        await to_thread.run_sync(_drop, part)
        raise Conflict(
            "The file that came has another sha256 than the caller gave.",
            hint="Check the digest and the URL; the file was dropped.",
            details={"expected_sha256": expected, "actual_sha256": actual},
        )
