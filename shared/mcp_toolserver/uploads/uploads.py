"""Receive files that survive interruptions: by chunks, by streams, in one piece; each may go on where another ended."""

import logging
import time
from asyncio import get_running_loop
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4
from weakref import WeakValueDictionary

from anyio import CancelScope, CapacityLimiter, Lock, WouldBlock, to_thread

from mcp_toolserver.errors import Conflict, ToolError
from mcp_toolserver.files import sha256_of_file
from mcp_toolserver.tools import Report, unheard
from mcp_toolserver.uploads.checksums import Checksum
from mcp_toolserver.uploads.digests import expected_sha256, require_sha256
from mcp_toolserver.uploads.folder import HeldUpload, Manifest, Receipt, boot_id
from mcp_toolserver.uploads.incoming import Incoming
from mcp_toolserver.uploads.limits import UploadLimits
from mcp_toolserver.uploads.metadata import require_keepable
from mcp_toolserver.uploads.plan import (
    Event,
    State,
    absent,
    incomplete,
    locked,
    require,
    require_offset,
    require_room,
    state_of,
)
from mcp_toolserver.uploads.progress import (
    AbortedUpload,
    StartUpload,
    UploadProgress,
    canonical,
    listed_progress,
    progress_of,
)
from mcp_toolserver.uploads.steps import Inspect, UploadSteps
from mcp_toolserver.uploads.store import UploadStore, disk_errors, publishing_errors

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 3600.0
_USUAL_LIMITS = UploadLimits()

ValueT = TypeVar("ValueT")
Publish = Callable[[Manifest, Path, str], Awaitable[object]]
"""Give a verified part (its path, its sha256 in hex) its public name; it should be taken away by a rename."""


@dataclass(frozen=True, slots=True)
class TakenUpload:
    """A complete upload in the hands of whoever makes something else of it; `path` may be read, moved or left."""

    path: Path
    filename: str
    sha256: str


class Uploads:
    """The uploads of one store."""

    def __init__(
        self, store: UploadStore, *, inspect: Inspect | None = None, limits: UploadLimits = _USUAL_LIMITS
    ) -> None:
        self._store = store
        self._steps = UploadSteps(store, limits, inspect)
        self.limits = limits
        self._swept_at_s: float | None = None
        # Waiting for a lock of another process occupies a thread: these must not be the threads that a holder needs, or
        # two servers, each waiting for what the other one holds, would both stand still.
        self._threads = CapacityLimiter(32)
        self._threads_of_holders = CapacityLimiter(32)
        self._threads_of_chunks = ThreadPoolExecutor(32, "chunk")
        self._turns: WeakValueDictionary[str, Lock] = WeakValueDictionary()
        # What now receives a body with a checksum, which may last for as long as its sender likes.
        self._unverified: set[str] = set()

    async def start(self, request: StartUpload) -> UploadProgress:
        """Begin an upload, or resume the one of the same id, file name and size.

        Raises Conflict when the id belongs to another file, RateLimited when too many are unfinished,
        InsufficientStorage when the disk has no room, and InvalidArguments for metadata that cannot be kept.
        """
        require_keepable(request.metadata)
        await self._sweep_at_times()
        upload_id = canonical(request.upload_id) if request.upload_id else str(uuid4())
        async with self._turn(upload_id):
            return await self._thread(self._steps.start, upload_id, request)

    async def find(self, upload_id: str) -> UploadProgress | None:
        """Return how far an upload is, or None when there is none."""
        return await self._thread(lambda: progress_of(self._store.look(canonical(upload_id))))

    async def status(self, upload_id: str) -> UploadProgress:
        """Return how far an upload is; every byte that it counts is durable. Raises NotFound."""
        progress = await self.find(upload_id)
        if progress is None:
            raise absent(upload_id)
        return progress

    async def overview(self) -> list[UploadProgress]:
        """Return all uploads that can be read, also the published ones until they are swept; the newest first."""

        def look() -> list[UploadProgress]:
            found = [listed_progress(self._store.look(upload_id)) for upload_id in self._store.ids()]
            return sorted((each for each in found if each), key=lambda each: each.manifest.started, reverse=True)

        return await self._thread(look)

    async def append(
        self, upload_id: str, chunk_index: int, chunk: str, chunk_sha256: str | None = None
    ) -> UploadProgress:
        """Take a chunk (base64); it is durable when this returns.

        Raises NotFound, InvalidArguments for what cannot be a chunk of this upload, TooLarge, and Conflict with
        `expected_chunk_index` for a gap or for a repeated chunk with other bytes.
        """
        upload_id = canonical(upload_id)
        async with self._turn(upload_id):
            try:
                return await self._chunk_thread(self._steps.append_chunk, upload_id, chunk_index, chunk, chunk_sha256)
            finally:
                # Once the answer is on its way: the caller needs a while to send the next chunk.
                get_running_loop().call_soon(self._steps.digests.settle_aside, upload_id)

    async def receive(
        self,
        upload_id: str,
        offset: int,
        body: AsyncIterator[bytes],
        *,
        body_bytes: int | None = None,
        checksum: Checksum | None = None,
    ) -> UploadProgress:
        """Take a stream of bytes from `offset` on; what has arrived is durable when this returns, also of a cut one.

        With a checksum the bytes count only together: a mismatch discards them and raises ChecksumMismatch. Raises
        NotFound, Conflict for another offset, Locked, and TooLarge for more bytes than were announced.
        """
        upload_id = canonical(upload_id)
        progress = await self.status(upload_id)
        require(progress.state, Event.APPEND, upload_id)
        require_offset(progress.manifest.plan, progress.received_bytes, offset)
        require_room(progress.manifest.plan, offset + (body_bytes or 0))
        if checksum is None:

            async def write(position: int, pieces: Sequence[bytes]) -> None:
                # The lock is held for each batch, not for the body: a caller who lost a connection goes on by another
                # at once, and it is the old one that is refused.
                async with self._turn(upload_id):
                    await self._thread(self._steps.append_pieces, upload_id, position, pieces)

            confirm = partial(self._thread, self._steps.confirm, upload_id, offset)
            await Incoming(write, confirm, offset).take(body)
            return await confirm()
        return await self._receive_checked(upload_id, offset, body, checksum)

    async def abort(self, upload_id: str) -> AbortedUpload:
        """Drop an upload and its bytes; returns what it was. Raises NotFound, and Conflict once it is published."""
        upload_id = canonical(upload_id)
        async with self._turn(upload_id):
            return await self._thread(self._steps.abort, upload_id)

    async def finish(
        self,
        upload_id: str,
        publish: Publish,
        *,
        sha256: str | None = None,
        verify_checksum: bool = True,
        report: Report = unheard,
    ) -> Receipt:
        """Verify all bytes and publish the file; once it is published, answer the same again.

        Raises NotFound, Conflict (bytes are missing, the digest differs), and whatever `publish` raises: then the
        upload stays complete, and finish may be called again.
        """
        upload_id = canonical(upload_id)
        async with self._turn(upload_id):
            with await self._thread(self._steps.held, upload_id) as held:
                progress = await self._known(held, upload_id)
                if progress.state is State.PUBLISHED:
                    receipt = await self._holding(held.receipt)
                    assert receipt is not None
                    require_sha256(receipt.sha256, sha256 if verify_checksum else None)
                    return receipt
                receipt = await self._verified(held, progress, Event.FINISH, sha256, report, verify_checksum)
                await self._holding(held.write_receipt, receipt)
                # From here on it is published whole or not at all, also when the caller goes away.
                with CancelScope(shield=True), publishing_errors(progress.manifest.filename):
                    await publish(progress.manifest, held.part, receipt.sha256)
                    await self._holding(held.drop_part)
                self._steps.digests.forget(upload_id)
                return receipt

    @asynccontextmanager
    async def taken(
        self, upload_id: str, *, sha256: str | None = None, report: Report = unheard
    ) -> AsyncGenerator[TakenUpload]:
        """Verify a complete upload, lend its file while nobody else can touch it, and settle it after success.

        It counts as published then, and its bytes are removed; after a failure it is as it was. Raises NotFound, and
        Conflict when bytes are missing, the digest differs, or it was taken before.
        """
        upload_id = canonical(upload_id)
        async with self._turn(upload_id):
            with await self._thread(self._steps.held, upload_id) as held:
                progress = await self._known(held, upload_id)
                receipt = await self._verified(held, progress, Event.TAKE, sha256, report)
                yield TakenUpload(held.part, progress.manifest.filename, receipt.sha256)
                with CancelScope(shield=True):
                    await self._holding(held.write_receipt, receipt)
                    await self._holding(held.drop_part)
                self._steps.digests.forget(upload_id)

    async def receive_whole(
        self, request: StartUpload, data: bytes, publish: Publish, report: Report = unheard
    ) -> Receipt:
        """Take a file in one piece, verify it and publish it; nothing stays behind when that fails."""
        started = await self.start(request)
        upload_id = started.manifest.upload_id
        try:
            async with self._turn(upload_id):
                await self._thread(self._steps.fill, upload_id, data)
            return await self.finish(upload_id, publish, report=report)
        finally:
            with CancelScope(shield=True):
                await self._thread(self._steps.forget, upload_id)

    async def sweep(self) -> list[str]:
        """Remove the uploads that nobody has touched for long; returns their ids."""
        return await self._thread(self._store.sweep, time.time(), self.limits.max_idle_s, self.limits.max_empty_idle_s)

    async def _receive_checked(
        self, upload_id: str, offset: int, body: AsyncIterator[bytes], checksum: Checksum
    ) -> UploadProgress:
        # Until they are verified, nobody shall build on these bytes: the lock is held for the whole body.
        async with self._turn(upload_id, wait=False), self._receiving_unverified(upload_id):
            held = await self._thread(self._store.hold, upload_id, wait=False)
            if held is None:
                raise locked(upload_id)
            with held:
                manifest = await self._holding(self._steps.begin_unverified, held, upload_id, offset)

                async def write(position: int, pieces: Sequence[bytes]) -> None:
                    await self._holding(self._steps.append_unverified, held, manifest, position, pieces)
                    await self._holding(checksum.update, pieces)

                try:
                    end = await Incoming(write, partial(self._holding, held.durable_bytes), offset).take(body)
                    checksum.require()
                    await self._holding(held.durable_bytes)
                    await self._holding(held.trust)
                    return UploadProgress(manifest, state_of(manifest.plan, end, has_receipt=False), end)
                finally:
                    with CancelScope(shield=True):
                        await self._holding(self._steps.discard_unverified, held, upload_id)

    async def _known(self, held: HeldUpload, upload_id: str) -> UploadProgress:
        progress = await self._holding(progress_of, held)
        if progress is None:
            raise absent(upload_id)
        return progress

    async def _verified(
        self,
        held: HeldUpload,
        progress: UploadProgress,
        event: Event,
        sha256: str | None,
        report: Report,
        verify_checksum: bool = True,
    ) -> Receipt:
        manifest = progress.manifest
        if progress.state is State.RECEIVING:
            raise incomplete(manifest.plan, progress.received_bytes)
        require(progress.state, event, manifest.upload_id)
        expected = expected_sha256(manifest, sha256)
        if expected is None and verify_checksum:
            await self._holding(_require_same_boot, manifest)
        digest = await self._holding(self._steps.digests.of, manifest)
        if digest is None:
            digest = await sha256_of_file(held.part, report)
        else:
            await report(manifest.total_bytes, manifest.total_bytes, "sha256 known from receiving")
        if verify_checksum:
            require_sha256(digest, expected)
        return Receipt(
            upload_id=manifest.upload_id,
            filename=manifest.filename,
            size_bytes=manifest.total_bytes,
            sha256=digest,
            checksum_verified=verify_checksum and expected is not None,
            seconds=round(max(0.0, (datetime.now(UTC) - manifest.started).total_seconds()), 3),
        )

    async def _sweep_at_times(self) -> None:
        now_s = time.monotonic()
        if self._swept_at_s is not None and now_s - self._swept_at_s < SWEEP_EVERY_S:
            return
        self._swept_at_s = now_s
        try:
            removed = await self.sweep()
        except (OSError, ToolError):
            log.warning("old uploads could not be swept", exc_info=True)
        else:
            if removed:
                log.info("old uploads swept", extra={"upload_ids": removed})

    async def _thread(self, work: Callable[..., ValueT], *arguments: object, **named: object) -> ValueT:
        return await _in_thread(self._threads, partial(work, *arguments, **named))

    async def _holding(self, work: Callable[..., ValueT], *arguments: object) -> ValueT:
        """Run what waits for no lock, for who holds one."""
        return await _in_thread(self._threads_of_holders, partial(work, *arguments))

    async def _chunk_thread(self, work: Callable[..., ValueT], *arguments: object) -> ValueT:
        """Do as `_thread` does, without the checkpoints of anyio, which cost each chunk two turns of the event loop."""
        running = get_running_loop().run_in_executor(self._threads_of_chunks, _translated, partial(work, *arguments))
        with CancelScope(shield=True):
            await running
        return running.result()

    @asynccontextmanager
    async def _receiving_unverified(self, upload_id: str) -> AsyncGenerator[None]:
        self._unverified.add(upload_id)
        try:
            yield
        finally:
            self._unverified.remove(upload_id)

    @asynccontextmanager
    async def _turn(self, upload_id: str, *, wait: bool = True) -> AsyncGenerator[None]:
        # Everything but a body with a checksum is soon over, and worth waiting for.
        # The lock on disk holds between tasks too; this one keeps the tasks of one upload from each occupying a thread.
        lock = self._turns.setdefault(upload_id, Lock())
        try:
            lock.acquire_nowait()
        except WouldBlock:
            if not wait or upload_id in self._unverified:
                raise locked(upload_id) from None
            await lock.acquire()
        try:
            yield
        finally:
            lock.release()


async def _in_thread(limiter: CapacityLimiter, work: Callable[[], ValueT]) -> ValueT:
    return await to_thread.run_sync(_translated, work, limiter=limiter)


def _translated(work: Callable[[], ValueT]) -> ValueT:
    with disk_errors():
        return work()


def _require_same_boot(manifest: Manifest) -> None:
    if manifest.boot_id != boot_id():
        raise Conflict(
            f"The machine was started anew during upload `{manifest.upload_id}`, and no digest says whether the last "
            "bytes before that reached the disk.",
            hint="Finish or import it with the `sha256` of the file. If that differs, or nobody knows it, drop this"
            " upload (tus: DELETE) and send the file again; a `sha256` given at the start spares that.",
            details={"upload_id": manifest.upload_id, "field": "sha256"},
        )
