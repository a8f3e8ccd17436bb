"""Receive zips of images; each waits until a dataset is made of it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from mcp_toolserver.errors import Conflict, InvalidArguments
from mcp_toolserver.tools import Report, unheard
from mcp_toolserver.uploads.folder import Manifest
from mcp_toolserver.uploads.names import sent_name
from mcp_toolserver.uploads.progress import StartUpload, UploadProgress
from mcp_toolserver.uploads.store import UploadStore
from mcp_toolserver.uploads.uploads import TakenUpload, Uploads

_OPENINGS = (b"PK\x03\x04", b"PK\x05\x06")


class ZipUploads:
    """The zips under one folder."""

    def __init__(self, folder: Path) -> None:
        self._uploads = Uploads(UploadStore(folder), inspect=_require_zip)

    async def uploads(self) -> Uploads:
        """Return where uploads go."""
        return self._uploads

    async def start(self, request: StartUpload) -> UploadProgress:
        """Begin or resume an upload; raises InvalidArguments for a name that is not a zip's."""
        path = sent_name(request.filename)
        if path.suffix.lower() != ".zip":
            better = f"{path.stem}.zip"
            raise InvalidArguments(
                f"`filename` is {request.filename!r}: datasets are sent as zips.",
                hint=f"Pack the images and their captions, and send `{better}`.",
                details={"field": "filename", "value": request.filename, "closest_matches": [better]},
            )
        return await self._uploads.start(replace(request, filename=path.as_posix()))

    async def arrived(self, progress: UploadProgress) -> UploadProgress:
        """Leave a complete zip where it is: `import-dataset` takes it by its id."""
        return progress

    @asynccontextmanager
    async def taken(
        self, upload_id: str, *, sha256: str | None = None, report: Report = unheard
    ) -> AsyncGenerator[TakenUpload]:
        """Lend a complete zip and settle it after success, as `Uploads.taken` does."""
        progress = await self._uploads.status(upload_id)
        if not progress.complete:
            received, total = progress.received_bytes, progress.manifest.total_bytes
            raise Conflict(
                f"Upload `{upload_id}` ({progress.manifest.filename}) is not complete: {total - received} of {total}"
                " bytes are missing.",
                hint=f"Send the rest to `/uploads/{upload_id}` from `Upload-Offset: {received}`, then import it again.",
                details={
                    "field": "upload_id",
                    "upload_id": upload_id,
                    "received_bytes": received,
                    "missing_bytes": total - received,
                    "total_size": total,
                },
            )
        async with self._uploads.taken(upload_id, sha256=sha256, report=report) as taken:
            yield taken


def _require_zip(manifest: Manifest, opening: bytes) -> None:
    if not any(opening.startswith(each[: len(opening)]) for each in _OPENINGS):
        raise InvalidArguments(
            f"`{manifest.filename}` is no zip: it begins with {opening[:4]!r}.",
            hint="Send a zip of images and captions as another upload.",
            details={"filename": manifest.filename},
        )
