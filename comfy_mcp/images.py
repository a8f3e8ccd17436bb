"""Pictures: those that jobs made, under addresses of our own, and those that callers send for LoadImage."""

import mimetypes
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import anyio
import httpx
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_history import OutputFile
from comfy_mcp.engines.diffusers import DIFFUSERS, Diffusers
from comfy_mcp.engines.selection import Selected
from comfy_mcp.image_sizes import upright_size
from comfy_mcp.image_texts import small_copy
from comfy_mcp.jobs.jobs import Jobs
from comfy_mcp.jobs.store import JobFile, JobRecord
from mcp_toolserver.errors import BackendRejected, BackendUnavailable, InvalidArguments, NotFound, TooLarge, ToolError
from mcp_toolserver.files import ranged_file_response, safe_relative
from mcp_toolserver.ranges import without_odd_range

_PASSED_ON = ("range", "if-range", "if-none-match", "if-modified-since")
_PASSED_BACK = ("content-length", "content-range", "accept-ranges", "etag", "last-modified")
# What a browser may show in place; anything else (HTML, SVG with scripts) is only for saving.
_SHOWN = ("image/png", "image/jpeg", "image/webp", "image/gif", "video/", "audio/")
_MOST_SEEN_BYTES = 64 * 1024 * 1024
_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class ImageLink:
    """Where a caller gets a picture, and how large it is in pixels (None for videos)."""

    id: str
    url: str
    width: int | None
    height: int | None


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """An uploaded image: the name that LoadImage takes, its size in pixels and bytes, and whether any part is clear.

    `frames` is how many pictures are in it, more than 1 for an animation.
    """

    name: str
    width: int
    height: int
    size_bytes: int
    transparent: bool
    frames: int


@dataclass(frozen=True, slots=True)
class _Seen:
    width: int
    height: int
    transparent: bool
    frames: int


class Images:
    """Serve what jobs made and take what callers send."""

    def __init__(
        self, comfyui: ComfyUI, diffusers: Diffusers, jobs: Jobs, selected: Callable[[], Awaitable[Selected]]
    ) -> None:
        self._comfyui = comfyui
        self._diffusers = diffusers
        self._jobs = jobs
        self._selected = selected

    def routes(self) -> list[BaseRoute]:
        """Return `/images/{image_id}` and `/previews/{job_id}`."""
        return [
            Route("/images/{image_id}", self.serve, methods=["GET"]),
            Route("/previews/{job_id}", self.preview, methods=["GET"]),
        ]

    async def links(self, record: JobRecord, base_url: str) -> list[ImageLink]:
        """Return links to the pictures of a job; without an address of ours (stdio), the file or ComfyUI's own."""
        return [
            ImageLink(
                id=_image_id(record, index),
                url=f"{base_url}/images/{_image_id(record, index)}" if base_url else await self._own_url(record, file),
                width=file.width,
                height=file.height,
            )
            for index, file in enumerate(record.files)
        ]

    async def content(self, image_id: str, most_bytes: int) -> bytes:
        """Return the file of a picture; raises NotFound, and TooLarge past `most_bytes`."""
        record, file = await self._find(image_id)
        path = await self._jobs.engine_of(record).local_path(_output(file))
        if path is not None:
            return await to_thread.run_sync(_read, path, image_id, file, most_bytes)
        answer = await self._comfyui.open_file(_output(file), {"accept-encoding": "identity"})
        if not answer.is_success:
            await answer.aclose()
            raise _lost(image_id, file)
        content = bytearray()
        async for piece in _pieces(answer):
            content += piece
            if len(content) > most_bytes:
                raise _too_large(image_id, most_bytes)
        return bytes(content)

    async def small_copy(self, image_id: str) -> bytes | None:
        """Return a small JPEG of a picture, or None where there is nothing to be seen of it now."""
        try:
            content = await self.content(image_id, _MOST_SEEN_BYTES)
        except ToolError:
            # The job is done all the same, and its answer links the file.
            return None
        return await to_thread.run_sync(small_copy, content)

    async def serve(self, request: Request) -> Response:
        """Send a picture, with ranges and conditions, holding no more than a piece of it."""
        image_id = request.path_params["image_id"]
        record, file = await self._find(image_id)
        path = await self._jobs.engine_of(record).local_path(_output(file))
        if path is not None:
            return await _from_disk(path, request, image_id, file)
        wanted = without_odd_range({name: request.headers[name] for name in _PASSED_ON if name in request.headers})
        answer = await self._comfyui.open_file(_output(file), {**wanted, "accept-encoding": "identity"})
        if answer.status_code in {400, 403, 404}:
            await answer.aclose()
            raise _lost(image_id, file)
        if answer.status_code not in {200, 206, 304, 416}:
            await answer.aclose()
            raise BackendRejected(f"ComfyUI answered the request for a picture with {answer.status_code}.")
        headers = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
        headers |= _shown_as(answer.headers.get("content-type", "application/octet-stream"), image_id, file)
        if request.method == "HEAD" or answer.status_code in {304, 416}:
            await answer.aclose()
            return Response(status_code=answer.status_code, headers=headers)
        return StreamingResponse(_pieces(answer), answer.status_code, headers)

    async def preview(self, request: Request) -> Response:
        """Answer with the latest picture of the work in progress."""
        job_id = request.path_params["job_id"]
        preview = self._jobs.preview(job_id)
        if preview is None:
            raise NotFound(
                f"There is no preview of the job `{job_id}`.",
                hint="Previews exist while a job runs; `get-job` has the finished pictures.",
                details={"job_id": job_id},
            )
        return Response(preview.image, media_type=preview.mime_type, headers={"cache-control": "no-store"})

    async def upload(self, filename: str, content: bytes, *, overwrite: bool = False) -> StoredImage:
        """Store a picture where LoadImage finds it; the name that it got may differ from the one it was sent under."""
        name = safe_relative(filename)
        if len(name.parts) > 1:
            raise InvalidArguments(
                f"`filename` is {filename!r}: it names a folder.",
                hint=f"Send the plain name `{name.name}`.",
                details={"field": "filename", "value": filename},
            )
        seen = await to_thread.run_sync(partial(_inspect, content, filename))
        if name.suffix.lower() not in _IMAGE_SUFFIXES:
            raise InvalidArguments(
                f"`filename` is {filename!r}: LoadImage finds only names that end as pictures do.",
                hint=f"Send `{name.stem}.png`, or with the ending that it has: {', '.join(_IMAGE_SUFFIXES)}.",
                details={"field": "filename", "value": filename, "closest_matches": [f"{name.stem}.png"]},
            )
        try:
            stored = (await self._comfyui.upload_image(name.name, content, overwrite=overwrite)).reference
        except BackendUnavailable:
            if not await self._diffusers.models():
                raise
            # It renders while ComfyUI is away, and wants to begin with a picture too.
            stored = await self._diffusers.keep_input(name.name, content, overwrite=overwrite)
        return StoredImage(
            name=stored,
            width=seen.width,
            height=seen.height,
            size_bytes=len(content),
            transparent=seen.transparent,
            frames=seen.frames,
        )

    async def _own_url(self, record: JobRecord, file: JobFile) -> str:
        path = await self._jobs.engine_of(record).local_path(_output(file))
        return await self._comfyui.view_url(_output(file)) if path is None else path.as_uri()

    async def _find(self, image_id: str) -> tuple[JobRecord, JobFile]:
        job_id, _, index = image_id.rpartition("_")
        record = (await self._jobs.get(job_id)).record if job_id else None
        if record is None or not index.isdecimal() or int(index) >= len(record.files):
            raise NotFound(f"There is no picture `{image_id}`.", hint="`get-job` names the pictures of a job.")
        if record.engine == DIFFUSERS:
            return record, record.files[int(index)]
        selected = await self._selected()
        # The embedded engine keeps its folder from one start to the next, though not its port.
        if selected.engine != record.engine or (record.engine != "embedded" and selected.url != record.engine_url):
            raise NotFound(
                f"The picture `{image_id}` lies on the {record.engine} engine at {record.engine_url}, and this server "
                f"now uses {selected.engine} at {selected.url}.",
                hint="Start the server for that engine again to fetch it.",
                details={"image_id": image_id, "engine": record.engine, "engine_url": record.engine_url},
            )
        return record, record.files[int(index)]


async def _from_disk(path: Path, request: Request, image_id: str, file: JobFile) -> Response:
    try:
        response = await ranged_file_response(path, request)
    except FileNotFoundError:
        raise _lost(image_id, file) from None
    media_type = mimetypes.guess_type(file.filename)[0] or "application/octet-stream"
    response.headers.update(_shown_as(media_type, image_id, file))
    return response


def _shown_as(media_type: str, image_id: str, file: JobFile) -> dict[str, str]:
    shown = media_type.startswith(_SHOWN)
    return {
        "content-type": media_type if shown else "application/octet-stream",
        "content-disposition": f'{"inline" if shown else "attachment"}; filename="{image_id}{_suffix(file)}"',
        "x-content-type-options": "nosniff",
        "cache-control": "private, max-age=0",
    }


def _read(path: Path, image_id: str, file: JobFile, most_bytes: int) -> bytes:
    try:
        if path.stat().st_size > most_bytes:
            raise _too_large(image_id, most_bytes)
        return path.read_bytes()
    except FileNotFoundError:
        raise _lost(image_id, file) from None


def _too_large(image_id: str, most_bytes: int) -> TooLarge:
    return TooLarge(
        f"The file of the picture `{image_id}` has more than {most_bytes} bytes.",
        hint="Fetch it from its url.",
        details={"image_id": image_id, "limit_bytes": most_bytes},
    )


def _lost(image_id: str, file: JobFile) -> NotFound:
    return NotFound(
        f"The file of the picture `{image_id}` is no longer there.",
        hint="Generate it again with the same seed.",
        details={"image_id": image_id, "filename": file.filename},
    )


async def _pieces(answer: httpx.Response) -> AsyncGenerator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        # A caller that goes away cancels this task, and the connection must still go back.
        with anyio.CancelScope(shield=True):
            await answer.aclose()


def _image_id(record: JobRecord, index: int) -> str:
    # The job's random UUID makes it unguessable; being derived, it is the same after every restart.
    return f"{record.job_id}_{index}"


def _output(file: JobFile) -> OutputFile:
    return OutputFile(file.node_id, file.filename, file.subfolder, file.kind, file.animated)


def _suffix(file: JobFile) -> str:
    suffix = "." + file.filename.rpartition(".")[2]
    return suffix if suffix.isascii() and suffix[1:].isalnum() and len(suffix) < 8 else ""


def _inspect(content: bytes, filename: str) -> _Seen:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content), formats=_IMAGE_FORMATS) as image:
            size, may_be_clear = upright_size(image), image.has_transparency_data
            # Of the pictures that cameras join in one JPEG, everyone takes the first.
            frames = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
            image.verify()
        if not may_be_clear:
            return _Seen(*size, False, frames)
        with Image.open(BytesIO(content), formats=_IMAGE_FORMATS) as image:
            lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        # Pillow names the object that it read from, which says nothing to a caller.
        why = "its bytes are of no format known here" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InvalidArguments(
            f"`content` of `{filename}` is no image that can be read: {why}.",
            hint=f"Send one of {', '.join(_IMAGE_FORMATS)}.",
            details={"filename": filename, "size_bytes": len(content)},
        ) from None
    return _Seen(*size, lowest != 255, frames)
