"""The digests by which people and sites name a LoRA file."""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BATCH_BYTES = 4 * 1024 * 1024
_TELL_EVERY_BYTES = 64 * 1024 * 1024
_AUTOV2_LETTERS = 10
_AUTOV3_LETTERS = 12


@dataclass(frozen=True, slots=True)
class FileHashes:
    """Digests in lower-case hex.

    `sha256` is of the whole file and `autov2` its first ten letters; `autov3` is the first twelve letters of the sha256
    of the tensors alone, which stays the same when the metadata is edited; None where it was not computed.
    """

    sha256: str
    autov2: str
    autov3: str | None


def hashes_of(path: Path, progress: Callable[[int], None] | None = None) -> FileHashes:
    """Compute the digests of a safetensors file in one pass; memory does not grow with the file.

    `progress` is told the bytes done so far, after each 64 MiB.
    """
    whole, tensors = hashlib.sha256(), hashlib.sha256()
    buffer = memoryview(bytearray(_BATCH_BYTES))
    with path.open("rb", buffering=0) as file:
        prefix = file.read(8)
        whole.update(prefix)
        done = len(prefix)
        skip = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        while count := file.readinto(buffer):
            whole.update(buffer[:count])
            tensors.update(buffer[min(skip, count) : count])
            skip -= min(skip, count)
            done += count
            if progress is not None and done % _TELL_EVERY_BYTES < count:
                progress(done)
    digest = whole.hexdigest()
    return FileHashes(digest, autov2_of(digest), tensors.hexdigest()[:_AUTOV3_LETTERS])


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def autov2_of(sha256: str) -> str:
    """Return the short name that sites make of a file's sha256."""
    return sha256[:_AUTOV2_LETTERS]
