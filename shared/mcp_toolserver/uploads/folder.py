"""One upload on disk: what its files hold, and how each of them changes. Everything here blocks."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from mcp_toolserver.errors import Conflict
from mcp_toolserver.files import sync_directory, write_now
from mcp_toolserver.uploads.past_cache import write_at
from mcp_toolserver.uploads.plan import ChunkPlan

LOCK = "lock"
PART = "data.part"
MANIFEST = "manifest.json"
RECEIPT = "receipt.json"
UNVERIFIED = "unverified"
# macOS has no fdatasync; where it exists it saves the write of the modification time.
_sync_data = getattr(os, "fdatasync", os.fsync)


class UnreadableUpload(Conflict):
    """Refuse whatever needs to know what an upload was started with, where its record cannot be read."""

    def __init__(self, upload_id: str, name: str) -> None:
        super().__init__(
            f"The record `{name}` of upload `{upload_id}` cannot be read, so that it can never be resumed.",
            hint="Abort it (tus: DELETE), and send the file as another upload.",
            details={"upload_id": upload_id},
        )


class Manifest(BaseModel):
    """What was started; never changes.

    `tus_metadata` is tus' Upload-Metadata, word for word. `boot_id` names the run of the machine in which it was.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    upload_id: str
    filename: str
    total_bytes: int
    chunk_bytes: int
    sha256: str | None
    overwrite: bool
    metadata: Mapping[str, Any] | None
    started: datetime
    publish_when_complete: bool = False
    tus_metadata: str | None = None
    caller: str | None = None
    boot_id: str | None = None

    @property
    def plan(self) -> ChunkPlan:
        """Return how the file is cut into chunks."""
        return ChunkPlan(self.total_bytes, self.chunk_bytes)


class Receipt(BaseModel):
    """What was verified; `seconds` counts from the start of the upload."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upload_id: str
    filename: str
    size_bytes: int
    sha256: str
    checksum_verified: bool
    seconds: float


def boot_id() -> str | None:
    """Return what names this run of the machine, or None where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


class UploadFolder:
    """One upload, read without a lock; whoever changes it must hold it (`UploadStore.hold`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path / PART

    def manifest(self) -> Manifest | None:
        """Return what was started, or None when nothing was; raises UnreadableUpload."""
        try:
            return Manifest.model_validate_json((self.path / MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise UnreadableUpload(self.path.name, MANIFEST) from error

    def receipt(self) -> Receipt | None:
        """Return what was verified, or None; raises UnreadableUpload."""
        try:
            return Receipt.model_validate_json((self.path / RECEIPT).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise UnreadableUpload(self.path.name, RECEIPT) from error

    def size_bytes(self) -> int | None:
        """Return how many bytes of the part count, or None when there is no part."""
        try:
            return self._counting(self.part.stat().st_size)
        except FileNotFoundError:
            return None

    def durable_bytes(self) -> int | None:
        """Return how many bytes of the part count after making them durable; None when there is no part.

        Who tells a caller that bytes have arrived acknowledges them, also those that another process wrote and could
        not make durable before it died.
        """
        try:
            # To ask how far an upload is must work where nothing can be written at the moment.
            handle = os.open(self.part, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            size = os.fstat(handle).st_size
            _sync_data(handle)
            # Bytes that were discarded meanwhile do not count either.
            return min(self._counting(size), os.fstat(handle).st_size)
        finally:
            os.close(handle)

    def _counting(self, size_bytes: int) -> int:
        # Looked at after the size: what grows later is not in it, and what grew before is marked until it is verified.
        verified_bytes = self.unverified_from()
        return size_bytes if verified_bytes is None else min(size_bytes, verified_bytes)

    def unverified_from(self) -> int | None:
        """Return where bytes begin that do not count, because their checksum was not compared yet; None without any."""
        try:
            boot, _, offset = (self.path / UNVERIFIED).read_text("ascii", "replace").partition(" ")
        except FileNotFoundError:
            return None
        # After a power cut the note may be back that was removed before an answer: it must not unsay that answer.
        return int(offset) if boot == str(boot_id()) and offset.isdecimal() else None

    def doubt(self, offset: int) -> None:
        """Let what is appended from `offset` on not count, also when this process dies; a power cut ends the doubt.

        After that nothing is believed without a digest anyhow.
        """
        note = self.path / f"{UNVERIFIED}.tmp"
        note.write_text(f"{boot_id()} {offset}", "ascii")
        note.replace(self.path / UNVERIFIED)

    def trust(self) -> None:
        """Let everything that was appended count."""
        (self.path / UNVERIFIED).unlink(missing_ok=True)
        if boot_id() is None:
            sync_directory(self.path)

    def discard_unverified(self) -> bool:
        """Cut off what does not count; returns whether there was any."""
        offset = self.unverified_from()
        if offset is None:
            return False
        self.cut(offset)
        self.trust()
        return True

    def begin(self, manifest: Manifest) -> None:
        """Create an empty part and then the manifest."""
        (self.path / RECEIPT).unlink(missing_ok=True)
        # Not emptied but removed: a death between the two names of a published file has left it under both.
        self.part.unlink(missing_ok=True)
        with self.part.open("wb") as part:
            os.fsync(part.fileno())
        write_now(self.path / MANIFEST, manifest.model_dump_json().encode())

    def append(self, offset: int, pieces: Sequence[bytes], *, durable: bool) -> None:
        """Write bytes at the end of the part, which is at `offset`; with `durable`, wait until the disk has them.

        After a failure the part may be longer, by bytes that are right: somebody may have heard of them already. But
        what the disk does not confirm is discarded: asked once more, it would say that it has everything.
        """
        handle = os.open(self.part, os.O_RDWR)
        try:
            write_at(handle, offset, pieces)
            if durable:
                try:
                    _sync_data(handle)
                except OSError:
                    with suppress(OSError):
                        self.cut(offset)
                    raise
        finally:
            os.close(handle)

    def holds(self, offset: int, data: bytes) -> bool:
        """Return whether the part has these very bytes at `offset`."""
        with self.part.open("rb") as part:
            part.seek(offset)
            return part.read(len(data)) == data

    def cut(self, size_bytes: int) -> None:
        """Shorten the part to this size, durably, if it is longer."""
        with self.part.open("rb+") as part:
            if os.fstat(part.fileno()).st_size > size_bytes:
                part.truncate(size_bytes)
                os.fsync(part.fileno())

    def touch(self) -> None:
        """Note that somebody still cares for this upload, so that its age begins anew."""
        os.utime(self.path / LOCK)

    def write_receipt(self, receipt: Receipt) -> None:
        """Write down what was verified."""
        write_now(self.path / RECEIPT, receipt.model_dump_json().encode())

    def drop_part(self) -> None:
        """Remove the part, when publishing has copied it instead of taking it away."""
        self.part.unlink(missing_ok=True)
        sync_directory(self.path)

    def remove(self) -> None:
        """Remove the upload, its manifest first: a death in between leaves an upload that was never started."""
        names = sorted(entry.name for entry in self.path.iterdir())
        for name in (MANIFEST, *(name for name in names if name not in (MANIFEST, LOCK)), LOCK):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # not empty: another caller is starting an upload of the same id this moment
            self.path.rmdir()
        sync_directory(self.path.parent)

    def idle_s(self, now_s: float) -> float | None:
        """Return for how many seconds nothing has changed, or None when that is in doubt.

        It is in doubt when a stranger's file lies here, and when the clock must have jumped: it stands before the last
        change, or the machine runs for a shorter time since the start. A manifest that cannot be read is no doubt: what
        lies beside it is of no use to anybody.
        """
        entries = list(self.path.iterdir())
        if any(
            entry.name not in (LOCK, PART, MANIFEST, RECEIPT, UNVERIFIED) and not entry.name.endswith(".tmp")
            for entry in entries
        ):
            return None
        try:
            manifest = self.manifest()
        except UnreadableUpload:
            manifest = None
        idle_s = now_s - max(entry.stat().st_mtime for entry in (self.path, *entries))
        began_in_this_run = manifest is not None and manifest.boot_id is not None and manifest.boot_id == boot_id()
        if idle_s < 0 or (began_in_this_run and idle_s > time.clock_gettime(time.CLOCK_BOOTTIME)):
            return None
        return idle_s


class HeldUpload(UploadFolder):
    """One upload while nobody else can change it; release it, or use it as a context manager."""

    def __init__(self, path: Path, handle: int) -> None:
        super().__init__(path)
        self._handle = handle

    def release(self) -> None:
        """Let others in. Does not block."""
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
