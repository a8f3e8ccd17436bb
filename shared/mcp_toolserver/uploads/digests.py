"""The sha256 of uploads while they arrive, so that finishing one needs no second pass over its bytes."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any

from mcp_toolserver.errors import Conflict, InvalidArguments
from mcp_toolserver.uploads.folder import Manifest

_MOST = 1024


class DigestMismatch(Conflict):
    """Refuse bytes that are not those whose digest the caller gave."""


@dataclass(slots=True)
class _Running:
    started: datetime
    offset: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    waiting: Sequence[bytes] = ()
    lock: Lock = field(default_factory=Lock)

    def settle(self) -> None:
        with self.lock:
            for piece in self.waiting:
                self.digest.update(piece)
            self.waiting = ()


class RunningDigests:
    """Digests of uploads whose bytes all came through this process, from the first on.

    Feed an upload while its lock is held: then what it has below an offset never changes, whoever else appends.
    """

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}
        self._threads = ThreadPoolExecutor(thread_name_prefix="upload-digest")

    def feed(self, manifest: Manifest, offset: int, pieces: Sequence[bytes]) -> None:
        """Take the bytes that belong at `offset`; they wait to be hashed until `settle`, or until the next ones come.

        Forget the upload where the disk does not take them.
        """
        if offset == 0:
            if len(self._running) >= _MOST:
                self._running.pop(next(iter(self._running)), None)
            self._running[manifest.upload_id] = _Running(manifest.started)
        running = self._running.get(manifest.upload_id)
        if running is None or (running.started, running.offset) != (manifest.started, offset):
            self.forget(manifest.upload_id)
            return
        running.settle()
        running.waiting = pieces
        running.offset += sum(map(len, pieces))

    def settle(self, upload_id: str) -> None:
        """Hash what waits of an upload; blocks for about a millisecond per MiB."""
        running = self._running.get(upload_id)
        if running is not None:
            running.settle()

    def settle_aside(self, upload_id: str) -> None:
        """Hash what waits of an upload in another thread."""
        running = self._running.get(upload_id)
        if running is not None and running.waiting:
            self._threads.submit(running.settle)

    def of(self, manifest: Manifest) -> str | None:
        """Return the digest of a complete upload in hex, or None when some of its bytes were not seen here.

        Blocks as `settle` does.
        """
        running = self._running.get(manifest.upload_id)
        if running is None or (running.started, running.offset) != (manifest.started, manifest.total_bytes):
            return None
        running.settle()
        return running.digest.hexdigest()

    def forget(self, upload_id: str) -> None:
        """Drop the digest of an upload that is over, or whose bytes were cut back."""
        self._running.pop(upload_id, None)


def expected_sha256(manifest: Manifest, at_finish: str | None) -> str | None:
    """Return the digest that the caller gave, or None; raises InvalidArguments for two different ones."""
    if at_finish and manifest.sha256 and at_finish != manifest.sha256:
        raise InvalidArguments(
            "`sha256` is not the one that the start gave.",
            hint="Leave it out, or send the same one.",
            details={"field": "sha256", "at_start": manifest.sha256, "at_finish": at_finish},
        )
    return at_finish or manifest.sha256


def require_sha256(actual: str, expected: str | None) -> None:
    """Raise DigestMismatch when a digest was given and the file has another."""
    if expected is not None and actual != expected:
        raise DigestMismatch(
            "The file that arrived has another sha256 than the caller gave.",
            hint="If the digest was wrong, finish again with the right one; else abort, and send the file again.",
            details={"expected_sha256": expected, "actual_sha256": actual},
        )


def require_chunk_digest(data: bytes, expected: str | None, index: int) -> None:
    """Raise InvalidArguments when a chunk is not what its caller says."""
    if expected is None:
        return
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected.lower():
        raise InvalidArguments(
            f"Chunk {index} does not match its `chunk_sha256`: it was damaged on its way.",
            hint="Send the same chunk again.",
            details={"chunk_index": index, "expected_sha256": expected, "actual_sha256": actual},
        )
