"""What an upload was started with, and how far it is."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from mcp_toolserver.errors import Conflict, InvalidArguments
from mcp_toolserver.uploads.folder import Manifest, UnreadableUpload, UploadFolder, boot_id
from mcp_toolserver.uploads.plan import State, state_of
from mcp_toolserver.uploads.store import canonical_id

log = logging.getLogger(__name__)

DEFAULT_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUpload:
    """What is to come; `chunk_bytes` and `upload_id` are chosen here when they are None.

    `tus_metadata` is tus' Upload-Metadata, word for word; `caller` is the address that the start came from.
    """

    filename: str
    total_bytes: int
    upload_id: str | None = None
    chunk_bytes: int | None = None
    sha256: str | None = None
    overwrite: bool = False
    metadata: Mapping[str, Any] | None = None
    publish_when_complete: bool = False
    tus_metadata: str | None = None
    caller: str | None = None


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """How far an upload is."""

    manifest: Manifest
    state: State
    received_bytes: int

    @property
    def next_chunk_index(self) -> int:
        """Return the index of the chunk to send next."""
        return self.manifest.plan.next_index(self.received_bytes)

    @property
    def complete(self) -> bool:
        """Return whether every byte has arrived."""
        return self.received_bytes == self.manifest.total_bytes


@dataclass(frozen=True, slots=True)
class AbortedUpload:
    """An upload that is no more; `filename` is None where its manifest could not be read."""

    upload_id: str
    filename: str | None
    received_bytes: int


def canonical(upload_id: str) -> str:
    """Return the canonical spelling of an upload's id; raises InvalidArguments when it is no UUID."""
    known = canonical_id(upload_id)
    if known is None:
        raise InvalidArguments(
            f"`upload_id` is {upload_id[:80]!r}, which is no UUID.",
            hint=f"Send a fresh UUID such as `{uuid4()}`, or leave it out at the start and use the answered one.",
            details={"field": "upload_id", "value": upload_id[:80]},
        )
    return known


def progress_of(folder: UploadFolder, *, durable: bool = True) -> UploadProgress | None:
    """Derive from the files of an upload how far it is; None when it was never started. Raises UnreadableUpload.

    With `durable`, the bytes that count are made durable first, so that a caller may rely on the answer.
    """
    manifest = folder.manifest()
    if manifest is None:
        return None
    # The part before the receipt: a publication in between must not look like an upload that lost its bytes.
    on_disk = folder.durable_bytes() if durable else folder.size_bytes()
    plan = manifest.plan
    received = None if on_disk is None else min(on_disk, plan.total_bytes)
    state = state_of(plan, received, has_receipt=on_disk is None and folder.receipt() is not None)
    return UploadProgress(manifest, state, manifest.total_bytes if state is State.PUBLISHED else received or 0)


def listed_progress(folder: UploadFolder) -> UploadProgress | None:
    """Return how far an upload is, or None for one that cannot be read: it shall not hide the others."""
    try:
        return progress_of(folder)
    except UnreadableUpload:
        log.warning("an upload cannot be read and is not listed", extra={"upload_id": folder.path.name})
        return None


def manifest_of(upload_id: str, request: StartUpload) -> Manifest:
    """Return what the manifest of a new upload says."""
    return Manifest(
        upload_id=upload_id,
        filename=request.filename,
        total_bytes=request.total_bytes,
        chunk_bytes=request.chunk_bytes or DEFAULT_CHUNK_BYTES,
        sha256=request.sha256,
        overwrite=request.overwrite,
        metadata=request.metadata,
        started=datetime.now(UTC),
        publish_when_complete=request.publish_when_complete,
        tus_metadata=request.tus_metadata,
        caller=request.caller,
        boot_id=boot_id(),
    )


def require_same(manifest: Manifest, request: StartUpload) -> None:
    """Raise Conflict, naming each difference, when a repeated start is not the same start; None repeats anything."""
    pairs: list[tuple[str, object, object]] = [
        ("filename", manifest.filename, request.filename),
        ("total_size", manifest.total_bytes, request.total_bytes),
        ("chunk_size", manifest.chunk_bytes, request.chunk_bytes or manifest.chunk_bytes),
        ("sha256", manifest.sha256, request.sha256 or manifest.sha256),
        ("overwrite", manifest.overwrite, request.overwrite or manifest.overwrite),
        ("metadata", manifest.metadata, request.metadata or manifest.metadata),
    ]
    differing = [name for name, started, wanted in pairs if started != wanted]
    if differing:
        words = "; ".join(
            f"`{n}` was {a!r}, now it is {b!r}" for n, a, b in pairs if n in differing and n != "metadata"
        )
        raise Conflict(
            f"Upload `{manifest.upload_id}` was started with other parameters: {words or '`metadata` differs'}.",
            hint="Repeat the start as it was to resume, or start with another `upload_id`.",
            details={"upload_id": manifest.upload_id, "differing": differing},
        )
