"""What is done to one upload while its lock is held: begin, append, cut back, drop. Everything here blocks."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock

from mcp_toolserver.base64_content import decode_base64
from mcp_toolserver.errors import NotFound
from mcp_toolserver.uploads.digests import RunningDigests, require_chunk_digest
from mcp_toolserver.uploads.folder import HeldUpload, Manifest, UnreadableUpload
from mcp_toolserver.uploads.limits import OpenUploads, UploadLimits
from mcp_toolserver.uploads.plan import (
    Event,
    State,
    absent,
    known_bytes,
    locked,
    other_bytes,
    require,
    require_offset,
    require_room,
    state_of,
)
from mcp_toolserver.uploads.progress import (
    AbortedUpload,
    StartUpload,
    UploadProgress,
    manifest_of,
    progress_of,
    require_same,
)
from mcp_toolserver.uploads.store import UploadStore

MAX_CHUNK_BYTES = 4 * 1024 * 1024

Inspect = Callable[[Manifest, bytes], None]
"""Look at the first bytes that came, one or many, and raise a ToolError when the file can not be taken at all."""


class UploadSteps:
    """The changes that an upload goes through."""

    def __init__(self, store: UploadStore, limits: UploadLimits, inspect: Inspect | None) -> None:
        self._store = store
        self._open = OpenUploads(store, limits)
        # Counting and beginning are one step, so that many starts at once keep the limits.
        self._beginning = Lock()
        self._inspect = inspect
        self.digests = RunningDigests()

    def start(self, upload_id: str, request: StartUpload) -> UploadProgress:
        """Begin an upload, or resume it.

        Raises Conflict for another file, RateLimited for too many that are unfinished, and InsufficientStorage.
        """
        if progress_of(self._store.look(upload_id)) is not None:
            return self._resume(upload_id, request)
        with self._beginning:
            self._open.require_place(request.caller, request.total_bytes)
            return self._resume(upload_id, request)

    def _resume(self, upload_id: str, request: StartUpload) -> UploadProgress:
        with self._held(upload_id, create=True) as held:
            progress = progress_of(held)
            if progress is None:
                manifest = manifest_of(upload_id, request)
                held.begin(manifest)
                return UploadProgress(manifest, State.RECEIVING, 0)
            require_same(progress.manifest, request)
            held.touch()
            return progress

    def held(self, upload_id: str) -> HeldUpload:
        """Wait for an upload's lock and return it held; raises NotFound, and Locked where that may take long."""
        return self._held(upload_id, create=False)

    def _held(self, upload_id: str, *, create: bool) -> HeldUpload:
        held = self._store.hold(upload_id, create=create, wait=False)
        if held is None and self._store.look(upload_id).unverified_from() is not None:
            # Another process receives a body with a checksum, which may last for as long as its sender likes.
            raise locked(upload_id)
        held = held or self._store.hold(upload_id, create=create)
        if held is None:
            raise absent(upload_id)
        return held

    def append_chunk(self, upload_id: str, index: int, chunk: str, chunk_sha256: str | None) -> UploadProgress:
        """Take a chunk by its index, durably; what arrived of it before is compared."""
        data = decode_base64(
            chunk,
            field="chunk",
            max_bytes=MAX_CHUNK_BYTES,
            past_limit=f"Send chunks of at most {MAX_CHUNK_BYTES} bytes; the start names the `chunk_size`.",
        )
        require_chunk_digest(data, chunk_sha256, index)
        with self.held(upload_id) as held:
            progress = self.open_for_more(held, upload_id)
            manifest, received = progress.manifest, progress.received_bytes
            known = known_bytes(manifest.plan, received, index, len(data))
            if known and not held.holds(manifest.plan.offset_of(index), data[:known]):
                raise other_bytes(manifest.plan, received, index)
            if known < len(data):
                self.append(held, manifest, received, [data[known:] if known else data], durable=True)
                received += len(data) - known
            else:
                held.durable_bytes()
            return UploadProgress(manifest, state_of(manifest.plan, received, has_receipt=False), received)

    def append_pieces(self, upload_id: str, offset: int, pieces: Sequence[bytes]) -> None:
        """Append bytes at `offset`, not yet durable; raises Conflict when that is not where the upload ends."""
        with self.held(upload_id) as held:
            manifest = self._require_end(held, upload_id, offset)
            require_room(manifest.plan, offset + sum(map(len, pieces)))
            self.append(held, manifest, offset, pieces, durable=False)

    def begin_unverified(self, held: HeldUpload, upload_id: str, offset: int) -> Manifest:
        """Let what comes from `offset` on not count for now; raises Conflict when the upload does not end there."""
        manifest = self._require_end(held, upload_id, offset)
        held.doubt(offset)
        return manifest

    def append_unverified(self, held: HeldUpload, manifest: Manifest, offset: int, pieces: Sequence[bytes]) -> None:
        """Append bytes that do not count yet, to an upload that is held since `begin_unverified`."""
        require_room(manifest.plan, offset + sum(map(len, pieces)))
        self.append(held, manifest, offset, pieces, durable=False)

    def discard_unverified(self, held: HeldUpload, upload_id: str) -> None:
        """Cut off what does not count, if there is any."""
        if held.discard_unverified():
            self.digests.forget(upload_id)

    def _require_end(self, held: HeldUpload, upload_id: str, offset: int) -> Manifest:
        progress = self.open_for_more(held, upload_id)
        require_offset(progress.manifest.plan, progress.received_bytes, offset)
        return progress.manifest

    def open_for_more(self, held: HeldUpload, upload_id: str) -> UploadProgress:
        """Return how far an upload is that may still get bytes; raises NotFound, or Conflict once it is published.

        What a dead process left unverified is cut off.
        """
        self.discard_unverified(held, upload_id)
        progress = progress_of(held, durable=False)
        if progress is None:
            raise absent(upload_id)
        require(progress.state, Event.APPEND, upload_id)
        return progress

    def append(
        self, held: HeldUpload, manifest: Manifest, offset: int, pieces: Sequence[bytes], *, durable: bool
    ) -> None:
        """Write bytes at the end and give them to the digest; the first ones are looked at before."""
        if offset == 0 and self._inspect is not None:
            self._inspect(manifest, pieces[0])
        self.digests.feed(manifest, offset, pieces)
        try:
            held.append(offset, pieces, durable=durable)
        except OSError:
            self.digests.forget(manifest.upload_id)
            raise
        if not durable:
            self.digests.settle(manifest.upload_id)

    def confirm(self, upload_id: str, offset: int) -> UploadProgress:
        """Return how far an upload is once the disk has what was appended from `offset` on; it had the rest before.

        What the disk refuses to confirm is discarded: asked once more, it would say that it has everything.
        """
        try:
            progress = progress_of(self._store.look(upload_id))
        except OSError:
            self.digests.forget(upload_id)
            with suppress(OSError, NotFound), self.held(upload_id) as held:
                held.cut(offset)
            raise
        if progress is None:
            raise absent(upload_id)
        return progress

    def abort(self, upload_id: str) -> AbortedUpload:
        """Drop an upload, also one that cannot be read; returns what it was."""
        with self.held(upload_id) as held:
            try:
                progress = progress_of(held)
            except UnreadableUpload:
                aborted = AbortedUpload(upload_id, None, held.size_bytes() or 0)
            else:
                if progress is None:
                    raise absent(upload_id)
                require(progress.state, Event.ABORT, upload_id)
                aborted = AbortedUpload(upload_id, progress.manifest.filename, progress.received_bytes)
            held.remove()
            self.digests.forget(upload_id)
            return aborted

    def fill(self, upload_id: str, data: bytes) -> None:
        """Take all bytes of an upload at once."""
        with self.held(upload_id) as held:
            self.append(held, self.open_for_more(held, upload_id).manifest, 0, [data], durable=True)

    def forget(self, upload_id: str) -> None:
        """Remove an upload in whatever state it is, if it is there."""
        held = self._store.hold(upload_id)
        if held is not None:
            with held:
                held.remove()
        self.digests.forget(upload_id)
