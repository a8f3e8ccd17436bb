"""The tus 1.0 door to the uploads: any tus client works, unmodified, also on uploads that chunk tools have begun.

    OPTIONS  /uploads         what is spoken here
    POST     /uploads         begin, also with the first bytes; `Location` names the upload
    HEAD     /uploads/{id}    how far it is
    PATCH    /uploads/{id}    go on at `Upload-Offset`
    DELETE   /uploads/{id}    drop it

Source: the tus resumable upload protocol, version 1.0.0, with its extensions creation, creation-with-upload, checksum,
expiration and termination.
"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from email.utils import formatdate
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_toolserver.envelope import error_response
from mcp_toolserver.errors import InvalidArguments, ToolError
from mcp_toolserver.rest_door import base_url, caller_of
from mcp_toolserver.uploads.checksums import ALGORITHMS, Checksum, ChecksumMismatch
from mcp_toolserver.uploads.digests import DigestMismatch
from mcp_toolserver.uploads.plan import State, absent
from mcp_toolserver.uploads.progress import StartUpload, UploadProgress
from mcp_toolserver.uploads.store import canonical_id
from mcp_toolserver.uploads.tus_headers import metadata_header, read_count, read_start
from mcp_toolserver.uploads.uploads import Uploads

PATH = "/uploads"
VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination"
MAX_BYTES = 2**53 - 1
ANSWER_HEADERS = (
    "Location",
    "Tus-Checksum-Algorithm",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Resumable",
    "Tus-Version",
    "Upload-Expires",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
)
"""What the answers say beside what every answer of HTTP may say."""

_BODY_TYPE = "application/offset+octet-stream"
_COLLECTION_METHODS = ("POST", "OPTIONS")
_UPLOAD_METHODS = ("HEAD", "PATCH", "DELETE", "OPTIONS")


class Receiver(Protocol):
    """What a server does with uploads."""

    async def uploads(self) -> Uploads:
        """Return where uploads go at the moment."""
        ...

    async def start(self, request: StartUpload) -> UploadProgress:
        """Begin or resume an upload; raises, before a byte was sent, what it could not become."""
        ...

    async def arrived(self, progress: UploadProgress) -> UploadProgress:
        """Do what is to be done once all bytes are there; called again until it has succeeded."""
        ...


def tus_routes(receiver: Receiver, *, public_url: str | None = None, max_bytes: int = MAX_BYTES) -> list[Route]:
    """Return the routes of the door; they need a body that is not limited in size."""
    door = TusDoor(receiver, public_url, max_bytes)
    return [
        Route(PATH, door.collection, methods=list(_COLLECTION_METHODS)),
        # The tus documents write their endpoint with a slash at its end, and so do many who use them.
        Route(f"{PATH}/", door.collection, methods=list(_COLLECTION_METHODS)),
        Route(f"{PATH}/{{upload_id}}", door.upload, methods=[*_UPLOAD_METHODS, "POST"]),
    ]


class TusDoor:
    """Speak tus to clients, and pass what they want on to a receiver."""

    def __init__(self, receiver: Receiver, public_url: str | None, max_bytes: int) -> None:
        self._receiver = receiver
        self._public_url = public_url
        self._max_bytes = max_bytes

    async def collection(self, request: Request) -> Response:
        """Answer for `/uploads`."""
        method = _method(request)
        if method == "OPTIONS":
            return self._spoken()
        try:
            _require(request, method in _COLLECTION_METHODS, _COLLECTION_METHODS)
            return await self._create(request)
        except ToolError as error:
            return self._refused(request, error)

    async def upload(self, request: Request) -> Response:
        """Answer for one upload."""
        method, upload_id = _method(request), request.path_params["upload_id"]
        if method == "OPTIONS":
            return self._spoken()
        try:
            _require(request, method in _UPLOAD_METHODS, _UPLOAD_METHODS)
            if canonical_id(upload_id) is None:
                raise absent(upload_id)
            uploads = await self._receiver.uploads()
            if method == "DELETE":
                await uploads.abort(upload_id)
                return _done(204)
            if method == "PATCH":
                return await self._go_on(request, uploads, upload_id)
            return await self._tell(uploads, upload_id)
        except ToolError as error:
            return self._refused(request, error)

    async def _create(self, request: Request) -> Response:
        asked = read_start(request.headers, self._max_bytes)
        progress = await self._receiver.start(replace(asked, caller=caller_of(request)))
        upload_id = progress.manifest.upload_id
        uploads = await self._receiver.uploads()
        headers = {"Location": f"{base_url(request, self._public_url)}{PATH}/{upload_id}"}
        if request.headers.get("content-type") == _BODY_TYPE:
            is_new = progress.received_bytes == 0
            try:
                progress = await self._take(request, uploads, upload_id, 0)
            except Exception:
                if is_new:
                    # The client never hears where its upload is, and could not go on.
                    with suppress(ToolError):
                        await uploads.abort(upload_id)
                raise
            headers["Upload-Offset"] = str(progress.received_bytes)
        return _done(201, headers | _expiry(uploads, progress))

    async def _go_on(self, request: Request, uploads: Uploads, upload_id: str) -> Response:
        offered = request.headers.get("content-type", "")
        if offered != _BODY_TYPE:
            raise _Refusal(
                415,
                f"`Content-Type` is {offered[:80]!r}.",
                hint=f"Send `Content-Type: {_BODY_TYPE}`.",
                details={"field": "Content-Type", "value": offered[:80]},
            )
        progress = await self._take(request, uploads, upload_id, read_count(request.headers, "Upload-Offset"))
        return _done(204, {"Upload-Offset": str(progress.received_bytes)} | _expiry(uploads, progress))

    async def _take(self, request: Request, uploads: Uploads, upload_id: str, offset: int) -> UploadProgress:
        spoken = request.headers.get("upload-checksum")
        length = request.headers.get("content-length", "")
        progress = await uploads.receive(
            upload_id,
            offset,
            _body(request),
            body_bytes=int(length) if length.isdecimal() else None,
            checksum=None if spoken is None else Checksum(spoken),
        )
        if progress.state is State.COMPLETE:
            progress = await self._receiver.arrived(progress)
        return progress

    async def _tell(self, uploads: Uploads, upload_id: str) -> Response:
        progress = await uploads.status(upload_id)
        if progress.state is State.COMPLETE:
            # A client that finds all its bytes here is content and asks no more: the rest must be done by then, also
            # when the server died between the last byte and the publication.
            progress = await self._receiver.arrived(progress)
        manifest = progress.manifest
        headers = {
            "Cache-Control": "no-store",
            "Upload-Offset": str(progress.received_bytes),
            "Upload-Length": str(manifest.total_bytes),
            "Upload-Metadata": manifest.tus_metadata or metadata_header(manifest.filename),
        }
        return _done(200, headers | _expiry(uploads, progress))

    def _spoken(self) -> Response:
        headers = {
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(self._max_bytes),
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        }
        return _done(204, headers)

    def _refused(self, request: Request, error: ToolError) -> Response:
        response = error_response(error, request_id=request.state.request_id)
        response.headers.update({"Tus-Resumable": VERSION, "Cache-Control": "no-store"})
        if isinstance(error, _Refusal):
            response.status_code = error.http_status
        elif isinstance(error, DigestMismatch):
            response.status_code = ChecksumMismatch.status
        if response.status_code == 412:
            response.headers["Tus-Version"] = VERSION
        if response.status_code == 405:
            response.headers["Allow"] = ", ".join(error.details["methods"])
        if response.status_code == 413:
            response.headers["Tus-Max-Size"] = str(self._max_bytes)
        return response


class _Refusal(InvalidArguments):
    """Refuse a request with the status that tus or HTTP gives it."""

    def __init__(self, http_status: int, message: str, *, hint: str, details: Mapping[str, object]) -> None:
        super().__init__(message, hint=hint, details=details)
        self.http_status = http_status


def _method(request: Request) -> str:
    return request.headers.get("x-http-method-override", request.method).upper()


def _require(request: Request, is_allowed: bool, methods: tuple[str, ...]) -> None:
    if not is_allowed:
        raise _Refusal(
            405,
            f"{_method(request)[:40]} is no method of {request.url.path}.",
            hint=f"Use {', '.join(methods)}.",
            details={"methods": list(methods)},
        )
    spoken = request.headers.get("tus-resumable", "")
    if spoken != VERSION:
        raise _Refusal(
            412,
            f"`Tus-Resumable` is {spoken[:40]!r}." if spoken else "`Tus-Resumable` is missing.",
            hint=f"Send `Tus-Resumable: {VERSION}`.",
            details={"field": "Tus-Resumable", "value": spoken[:40], "versions": [VERSION]},
        )


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            if piece:
                yield piece
    except ClientDisconnect:
        # What has arrived counts: the client asks for the offset, and goes on there.
        return


def _expiry(uploads: Uploads, progress: UploadProgress) -> dict[str, str]:
    if progress.state is State.PUBLISHED:
        return {}
    limits = uploads.limits
    left_s = limits.max_idle_s if progress.received_bytes else limits.max_empty_idle_s
    return {"Upload-Expires": formatdate(time.time() + left_s, usegmt=True)}


def _done(status: int, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status_code=status, headers={"Tus-Resumable": VERSION, **(headers or {})})
