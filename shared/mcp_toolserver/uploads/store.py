"""Keep uploads on disk, so that an acknowledged byte survives `kill -9` and a power cut.

    <root>/                  one dot-directory on the file system of the published files
      <upload_id>/           a canonical UUID
        lock                 held by whoever works on this upload: a thread, another process
        data.part            append-only; its size is the progress
        manifest.json        what was started: written once, and last, so that without it there is no upload
        receipt.json         what was verified, written before publishing, which takes data.part away

Everything here blocks: call it in a thread.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from mcp_toolserver.errors import Conflict, Forbidden, InsufficientStorage, ToolError
from mcp_toolserver.files import make_folder
from mcp_toolserver.uploads.folder import LOCK, HeldUpload, UploadFolder

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}


class UploadStore:
    """All uploads under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def look(self, upload_id: str) -> UploadFolder:
        """Return an upload to read from; it need not exist."""
        return UploadFolder(self.root / upload_id)

    def hold(self, upload_id: str, *, create: bool = False, wait: bool = True) -> HeldUpload | None:
        """Lock an upload against every other thread and process.

        Returns None when there is no such folder (and `create` is false), or when it is held and `wait` is false.
        """
        folder = self.root / upload_id
        while True:
            if create:
                make_folder(folder)
            try:
                handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:
                if create:
                    continue
                return None
            if self._lock(handle, folder, wait=wait):
                return HeldUpload(folder, handle)
            os.close(handle)
            if not wait:
                return None

    @staticmethod
    def _lock(handle: int, folder: Path, *, wait: bool) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Whoever held the lock may have removed the folder: then this is the lock of an upload that is no more.
            return os.path.samestat(os.fstat(handle), (folder / LOCK).stat())
        except (BlockingIOError, FileNotFoundError):
            return False

    def ids(self) -> list[str]:
        """Return the ids of all folders that may be uploads."""
        try:
            return sorted(entry.name for entry in self.root.iterdir() if canonical_id(entry.name) == entry.name)
        except FileNotFoundError:
            return []

    def require_room(self, size_bytes: int, reserved_bytes: int = 0) -> None:
        """Raise InsufficientStorage when the disk has not this much room beside what is reserved."""
        free = shutil.disk_usage(_nearest_existing(self.root)).free
        if size_bytes + reserved_bytes > free:
            others = f", and uploads under way still need {reserved_bytes} of them" if reserved_bytes else ""
            raise InsufficientStorage(
                f"{size_bytes} bytes do not fit: the disk has {free} left{others}.",
                hint="Make room on the server's disk or abort uploads, then start again; what has arrived stays.",
                details={"needed_bytes": size_bytes, "free_bytes": free, "reserved_bytes": reserved_bytes},
            )

    def sweep(self, now_s: float, max_idle_s: float, max_empty_idle_s: float) -> list[str]:
        """Remove what nobody has touched for `max_idle_s`, skip whatever is held or in doubt; return the ids.

        An upload that never got a byte has its own age: there is nothing to lose.
        """
        removed: list[str] = []
        for upload_id in self.ids():
            upload = self.hold(upload_id, wait=False)
            if upload is None:
                continue
            with upload:
                idle_s = upload.idle_s(now_s)
                oldest_s = max_empty_idle_s if upload.size_bytes() == 0 else max_idle_s
                if idle_s is not None and idle_s > oldest_s:
                    upload.remove()
                    removed.append(upload_id)
        return removed


def canonical_id(upload_id: str) -> str | None:
    """Return a UUID in its canonical spelling, or None when it is none."""
    try:
        return str(UUID(upload_id))
    except ValueError:
        return None


@contextmanager
def disk_errors() -> Generator[None]:
    """Translate what the disk refuses into errors of the wire."""
    try:
        yield
    except OSError as error:
        known = _translated(error)
        if known is None:
            raise
        raise known from error


@contextmanager
def publishing_errors(filename: str) -> Generator[None]:
    """Translate whatever the system refuses while a file gets its public name."""
    try:
        yield
    except OSError as error:
        known = _translated(error)
        if known is None:
            reason = error.strerror or str(error)
            known = Conflict(
                f"`{filename}` could not get its name: {reason}.",
                hint="Look what stands in its way there, then finish again; or abort, and choose another name.",
                details={"filename": filename, "reason": reason},
            )
        raise known from error


def _translated(error: OSError) -> ToolError | None:
    if error.errno in _FULL:
        return InsufficientStorage(
            "The server's disk is full.",
            hint="Make room, then send the same again: every byte that was acknowledged is still there.",
            details={"reason": os.strerror(error.errno or 0)},
        )
    if error.errno in _CLOSED:
        return Forbidden(
            "The server may not write to its upload folder.",
            hint="Give the server's user write permission on the folder of the models.",
            details={"reason": os.strerror(error.errno or 0)},
        )
    return None


def _nearest_existing(folder: Path) -> Path:
    return folder if folder.exists() else _nearest_existing(folder.parent)
