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

from mcp_toolserver.files import sync_directory, write_now
from mcp_toolserver.uploads.past_cache import write_at
from mcp_toolserver.uploads.plan import ChunkPlan

LOCK = "lock"
PART = "data.part"
MANIFEST = "manifest.json"
RECEIPT = "receipt.json"
# macOS has no fdatasync; where it exists it saves the write of the modification time.
_sync_data = getattr(os, "fdatasync", os.fsync)


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
        """Return what was started, or None when nothing was."""
        try:
            return Manifest.model_validate_json((self.path / MANIFEST).read_bytes())
        except FileNotFoundError:
            return None

    def receipt(self) -> Receipt | None:
        """Return what was verified, or None."""
        try:
            return Receipt.model_validate_json((self.path / RECEIPT).read_bytes())
        except FileNotFoundError:
            return None

    def size_bytes(self) -> int | None:
        """Return the size of the part, or None when there is no part."""
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return None

    def durable_bytes(self) -> int | None:
        """Return the size of the part after making that much of it durable; None when there is no part.

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
        finally:
            os.close(handle)
        return size

    def begin(self, manifest: Manifest) -> None:
        """Create an empty part and then the manifest."""
        (self.path / RECEIPT).unlink(missing_ok=True)
        with self.part.open("wb") as part:
            os.fsync(part.fileno())
        write_now(self.path / MANIFEST, manifest.model_dump_json().encode())

    def append(self, offset: int, pieces: Sequence[bytes]) -> None:
        """Write bytes at the end of the part, which is at `offset`; they are not durable yet.

        On a failure the part is as long as `offset` again where the disk allows it, and else a little longer, by bytes
        that are right.
        """
        try:
            write_at(self.part, offset, pieces)
        except OSError:
            with suppress(OSError):
                os.truncate(self.part, offset)
            raise

    def append_durably(self, offset: int, pieces: Sequence[bytes]) -> None:
        """Do as `append` does, and wait until the disk has the bytes."""
        self.append(offset, pieces)
        self.durable_bytes()

    def holds(self, offset: int, data: bytes) -> bool:
        """Return whether the part has these very bytes at `offset`."""
        with self.part.open("rb") as part:
            part.seek(offset)
            return part.read(len(data)) == data

    def cut(self, size_bytes: int) -> None:
        """Shorten the part to this size, durably."""
        with self.part.open("rb+") as part:
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

        It is in doubt when a stranger's file lies here, when the manifest cannot be read, and when the clock must have
        jumped: it stands before the last change, or the machine runs for a shorter time since the start.
        """
        entries = list(self.path.iterdir())
        if any(
            entry.name not in (LOCK, PART, MANIFEST, RECEIPT) and not entry.name.endswith(".tmp") for entry in entries
        ):
            return None
        try:
            manifest = self.manifest()
        except ValidationError:
            return None
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
