"""Receive a file in chunks: start, append, ask, abort, finish; each may be repeated after a lost answer."""

import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from uuid import uuid4
from weakref import WeakValueDictionary

from anyio import CancelScope, CapacityLimiter, Lock, to_thread

from mcp_toolserver.base64_content import decode_base64
from mcp_toolserver.errors import Conflict, InvalidArguments, ToolError
from mcp_toolserver.files import sha256_of_file
from mcp_toolserver.tools import Report, unheard
from mcp_toolserver.uploads.folder import HeldUpload, Manifest, Receipt
from mcp_toolserver.uploads.plan import (
    Event,
    State,
    Step,
    absent,
    incomplete,
    next_step,
    other_bytes,
    require,
    state_of,
)
from mcp_toolserver.uploads.progress import (
    StartUpload,
    UploadProgress,
    canonical,
    manifest_of,
    progress_of,
    require_same,
)
from mcp_toolserver.uploads.store import UploadStore, disk_errors

log = logging.getLogger(__name__)

MAX_CHUNK_BYTES = 4 * 1024 * 1024
MAX_IDLE_S = 7 * 24 * 3600.0
SWEEP_EVERY_S = 3600.0

ValueT = TypeVar("ValueT")
Publish = Callable[[Manifest, Path, str], Awaitable[object]]
"""Give a verified part (its path, its sha256 in hex) its public name; it should be taken away by a rename."""


class ChunkedUploads:
    """The uploads of one store, by chunks in order or in one piece."""

    def __init__(self, store: UploadStore, *, max_idle_s: float = MAX_IDLE_S) -> None:
        self._store = store
        self._max_idle_s = max_idle_s
        self._swept_at_s: float | None = None
        # Waiting for a lock of another process occupies a thread: these must not be the threads that the holder needs.
        self._threads = CapacityLimiter(32)
        self._turns: WeakValueDictionary[str, Lock] = WeakValueDictionary()

    async def start(self, request: StartUpload) -> UploadProgress:
        """Begin an upload, or resume the one of the same id, file name and size.

        Raises Conflict when the id belongs to another file, and InsufficientStorage when the disk has no room.
        """
        await self._sweep_at_times()
        upload_id = canonical(request.upload_id) if request.upload_id else str(uuid4())
        async with self._turn(upload_id):
            return await self._thread(self._start, upload_id, request)

    async def find(self, upload_id: str) -> UploadProgress | None:
        """Return how far an upload is, or None when there is none."""
        return await self._thread(lambda: progress_of(self._store.look(canonical(upload_id))))

    async def status(self, upload_id: str) -> UploadProgress:
        """Return how far an upload is; raises NotFound."""
        progress = await self.find(upload_id)
        if progress is None:
            raise absent(upload_id)
        return progress

    async def overview(self) -> list[UploadProgress]:
        """Return all uploads, also the published ones until they are swept; the newest first."""

        def look() -> list[UploadProgress]:
            found = [progress_of(self._store.look(upload_id)) for upload_id in self._store.ids()]
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
            return await self._thread(self._append, upload_id, chunk_index, chunk, chunk_sha256)

    async def abort(self, upload_id: str) -> UploadProgress:
        """Drop an upload and its bytes; returns how far it was. Raises NotFound, and Conflict once it is published."""
        upload_id = canonical(upload_id)
        async with self._turn(upload_id):
            return await self._thread(self._abort, upload_id)

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
            with await self._thread(self._held, upload_id) as held:
                return await self._finish(held, upload_id, publish, sha256, verify_checksum, report)

    async def receive_whole(
        self, request: StartUpload, data: bytes, publish: Publish, report: Report = unheard
    ) -> Receipt:
        """Take a file in one piece, verify it and publish it; nothing stays behind when that fails."""
        started = await self.start(request)
        upload_id = started.manifest.upload_id
        try:
            async with self._turn(upload_id):
                await self._thread(self._fill, upload_id, data)
            return await self.finish(upload_id, publish, report=report)
        finally:
            with CancelScope(shield=True):
                await self._thread(self._forget, upload_id)

    async def sweep(self) -> list[str]:
        """Remove the uploads that nobody has touched for long; returns their ids."""
        return await self._thread(self._store.sweep, time.time(), self._max_idle_s)

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

    async def _thread(self, work: Callable[..., ValueT], *arguments: object) -> ValueT:
        def translated() -> ValueT:
            with disk_errors():
                return work(*arguments)

        return await to_thread.run_sync(translated, limiter=self._threads)

    @asynccontextmanager
    async def _turn(self, upload_id: str) -> AsyncGenerator[None]:
        # The lock on disk holds between tasks too; this one keeps the tasks of one upload from each occupying a thread.
        lock = self._turns.setdefault(upload_id, Lock())
        async with lock:
            yield

    def _start(self, upload_id: str, request: StartUpload) -> UploadProgress:
        known = progress_of(self._store.look(upload_id))
        if known is None or known.state is not State.PUBLISHED:
            self._store.require_room(request.total_bytes - (known.received_bytes if known else 0))
        held = self._store.hold(upload_id, create=True)
        assert held is not None
        with held:
            progress = progress_of(held)
            if progress is None:
                held.begin(manifest_of(upload_id, request))
                progress = progress_of(held)
                assert progress is not None
                return progress
            require_same(progress.manifest, request)
            held.touch()
            if progress.state is State.RECEIVING:
                held.settle(progress.received_bytes)
            return progress

    def _held(self, upload_id: str) -> HeldUpload:
        held = self._store.hold(upload_id)
        if held is None:
            raise absent(upload_id)
        return held

    def _append(self, upload_id: str, index: int, chunk: str, chunk_sha256: str | None) -> UploadProgress:
        data = decode_base64(
            chunk,
            field="chunk",
            max_bytes=MAX_CHUNK_BYTES,
            past_limit=f"Send chunks of at most {MAX_CHUNK_BYTES} bytes; the start names the `chunk_size`.",
        )
        _require_digest(data, chunk_sha256, index)
        with self._held(upload_id) as held:
            progress = progress_of(held, durable=False)
            if progress is None:
                raise absent(upload_id)
            require(progress.state, Event.APPEND, upload_id)
            manifest, received = progress.manifest, progress.received_bytes
            step = next_step(manifest.plan, received, index, len(data))
            offset = manifest.plan.offset_of(index)
            if step is Step.WRITE:
                held.append(offset, data)
                received += len(data)
            elif not held.holds(offset, data):
                raise other_bytes(manifest.plan, received, index)
            else:
                held.durable_bytes()
            state = state_of(manifest.plan, received, has_receipt=False)
            return UploadProgress(manifest, state, received)

    def _abort(self, upload_id: str) -> UploadProgress:
        with self._held(upload_id) as held:
            progress = progress_of(held)
            if progress is None:
                raise absent(upload_id)
            require(progress.state, Event.ABORT, upload_id)
            held.remove()
            return progress

    def _fill(self, upload_id: str, data: bytes) -> None:
        with self._held(upload_id) as held:
            held.append(0, data)

    def _forget(self, upload_id: str) -> None:
        held = self._store.hold(upload_id)
        if held is not None:
            with held:
                held.remove()

    async def _finish(
        self,
        held: HeldUpload,
        upload_id: str,
        publish: Publish,
        sha256: str | None,
        verify_checksum: bool,
        report: Report,
    ) -> Receipt:
        progress = await self._thread(progress_of, held)
        if progress is None:
            raise absent(upload_id)
        manifest = progress.manifest
        if progress.state is State.PUBLISHED:
            receipt = await self._thread(held.receipt)
            assert receipt is not None
            _require_sha256(receipt.sha256, sha256 if verify_checksum else None)
            return receipt
        if progress.state is State.RECEIVING:
            raise incomplete(manifest.plan, progress.received_bytes)
        require(progress.state, Event.FINISH, upload_id)
        expected = _expected_sha256(manifest, sha256)
        await self._thread(held.settle, manifest.total_bytes)
        digest = await sha256_of_file(held.part, report)
        if verify_checksum:
            _require_sha256(digest, expected)
        receipt = Receipt(
            upload_id=upload_id,
            filename=manifest.filename,
            size_bytes=manifest.total_bytes,
            sha256=digest,
            checksum_verified=verify_checksum and expected is not None,
            seconds=round(max(0.0, (datetime.now(UTC) - manifest.started).total_seconds()), 3),
        )
        await self._thread(held.write_receipt, receipt)
        # From here on it is published whole or not at all, also when the caller goes away.
        with CancelScope(shield=True):
            await publish(manifest, held.part, digest)
            await self._thread(held.drop_part)
        return receipt


def _require_digest(data: bytes, expected: str | None, index: int) -> None:
    actual = hashlib.sha256(data).hexdigest() if expected is not None else None
    if actual != (expected.lower() if expected is not None else None):
        raise InvalidArguments(
            f"Chunk {index} does not match its `chunk_sha256`: it was damaged on its way.",
            hint="Send the same chunk again.",
            details={"chunk_index": index, "expected_sha256": expected, "actual_sha256": actual},
        )


def _expected_sha256(manifest: Manifest, at_finish: str | None) -> str | None:
    if at_finish and manifest.sha256 and at_finish != manifest.sha256:
        raise InvalidArguments(
            "`sha256` is not the one that the start gave.",
            hint="Leave it out, or send the same one.",
            details={"field": "sha256", "at_start": manifest.sha256, "at_finish": at_finish},
        )
    return at_finish or manifest.sha256


def _require_sha256(actual: str, expected: str | None) -> None:
    if expected is not None and actual != expected:
        raise Conflict(
            "The file that arrived has another sha256 than the caller gave.",
            hint="If the digest was wrong, finish again with the right one; else abort, and send the file again.",
            details={"expected_sha256": expected, "actual_sha256": actual},
        )
