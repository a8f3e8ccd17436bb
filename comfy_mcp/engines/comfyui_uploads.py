"""Send files to ComfyUI by its own routes, streamed from disk, within the limits that it tells."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import anyio
import httpx

from comfy_mcp.engines.comfyui_http import ComfyHttp
from comfy_mcp.workflows.graphs import is_object
from mcp_toolserver.errors import BackendRejected, Conflict, TooLarge

DEFAULT_UPLOAD_LIMIT_BYTES = 104_857_600
"""What ComfyUI takes where it was started without `--max-upload-size`; the whole body counts."""

_BATCH_BYTES = 1024 * 1024
# The server stores and, with assets, hashes the whole file before it answers.
_UPLOAD_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """Name an uploaded file as the server stored it, which may differ from the name that it was sent under."""

    name: str
    subfolder: str

    @property
    def reference(self) -> str:
        """Return what LoadImage takes."""
        return f"{self.subfolder}/{self.name}" if self.subfolder else self.name


@dataclass(frozen=True, slots=True)
class UploadRoutes:
    """Say how files can be sent: `limit_bytes` bounds the body of /upload/image; `assets` is /api/assets."""

    assets: bool
    limit_bytes: int


async def upload_routes_of(http: ComfyHttp) -> UploadRoutes:
    """Ask what the server offers; an older one, which does not say, has the plain route and its usual limit."""
    answer = await http.get("/features")
    features: Mapping[str, Any] = answer if is_object(answer) else {}
    limit = features.get("max_upload_size")
    return UploadRoutes(
        assets=features.get("assets") is True,
        limit_bytes=limit if isinstance(limit, int) and limit > 0 else DEFAULT_UPLOAD_LIMIT_BYTES,
    )


async def upload_image(http: ComfyHttp, filename: str, content: bytes, *, overwrite: bool) -> UploadedFile:
    """Store an image for LoadImage; when the name is taken by other bytes, the server picks another one."""
    response = await http.send(
        "POST",
        "/upload/image",
        timeout_s=_UPLOAD_TIMEOUT_S,
        # Without a type, httpx would look for the system's table of types on disk.
        files={"image": (filename, content, "application/octet-stream")},
        data={"type": "input", "overwrite": "true" if overwrite else "false"},
    )
    return _stored(http, response, filename)


async def upload_to_output(
    http: ComfyHttp, path: Path, filename: str, *, subfolder: str, overwrite: bool, limit_bytes: int
) -> UploadedFile:
    """Store a file in a sub-folder of the server's output folder; when the name is taken, it picks another one.

    Raises TooLarge, before anything is sent, for a body over `limit_bytes`.
    """
    fields = [("type", "output"), ("subfolder", subfolder), ("overwrite", "true" if overwrite else "false")]
    form = await _form(path, "image", filename, fields)
    if form.size_bytes > limit_bytes:
        raise TooLarge(
            f"`{filename}` is sent as {form.size_bytes} bytes, and ComfyUI takes {limit_bytes} in one request.",
            hint="Start ComfyUI with --max-upload-size (in MB) or --enable-assets, or run this server where it can "
            "reach ComfyUI's folder and set COMFYUI_DIR.",
            details={"size_bytes": form.size_bytes, "limit_bytes": limit_bytes, "setting": "COMFYUI_DIR"},
        )
    return _stored(http, await _post(http, "/upload/image", form), filename)


async def upload_asset(http: ComfyHttp, path: Path, filename: str, *, tags: Sequence[str]) -> str:
    """Store a file among the server's assets and return the name by which loaders take it (`loader_path`).

    Assets have no limit of size, and are stored under the digest of their bytes.
    """
    form = await _form(path, "file", filename, [*(("tags", tag) for tag in tags), ("name", filename)])
    response = await _post(http, "/api/assets", form)
    answer = http.json_of(response) if response.is_success else None
    loader_path = answer.get("loader_path") if is_object(answer) else None
    if not isinstance(loader_path, str) or not loader_path:
        raise BackendRejected(
            f"ComfyUI did not store `{filename}` among its assets (status {response.status_code}).",
            hint="ComfyUI's own log has the cause; without --enable-assets its plain upload route is used.",
            details={"filename": filename, "status": response.status_code, "answer": response.text[:500]},
        )
    return loader_path


@dataclass(frozen=True, slots=True)
class _Form:
    """A form with one file, whose length is known before it is read."""

    boundary: str
    opening: bytes
    path: Path
    file_bytes: int
    ending: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.opening) + self.file_bytes + len(self.ending)

    @property
    def headers(self) -> Mapping[str, str]:
        return {
            "content-type": f"multipart/form-data; boundary={self.boundary}",
            "content-length": str(self.size_bytes),
        }

    async def content(self) -> AsyncGenerator[bytes]:
        yield self.opening
        sent_bytes = 0
        async with await anyio.open_file(self.path, "rb") as file:
            while batch := await file.read(_BATCH_BYTES):
                sent_bytes += len(batch)
                if sent_bytes > self.file_bytes:
                    break
                yield batch
        if sent_bytes != self.file_bytes:
            # The length is announced already: the request breaks off rather than pass a cut file off as a whole one.
            raise Conflict(
                f"`{self.path.name}` changed while it was sent to ComfyUI.",
                hint="Send it again.",
                details={"expected_bytes": self.file_bytes, "read_bytes": sent_bytes},
            )
        yield self.ending


async def _form(path: Path, field: str, filename: str, fields: Sequence[tuple[str, str]]) -> _Form:
    # httpx would read the file within the event loop.
    boundary = token_hex(16)
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in fields]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    size_bytes = (await anyio.Path(path).stat()).st_size
    return _Form(boundary, "\r\n".join(parts).encode(), path, size_bytes, f"\r\n--{boundary}--\r\n".encode())


async def _post(http: ComfyHttp, path: str, form: _Form) -> httpx.Response:
    return await http.send("POST", path, timeout_s=_UPLOAD_TIMEOUT_S, content=form.content(), headers=form.headers)


def _stored(http: ComfyHttp, response: httpx.Response, filename: str) -> UploadedFile:
    answer = http.json_of(response) if response.is_success else None
    if not is_object(answer) or not isinstance(answer.get("name"), str):
        raise BackendRejected(
            f"ComfyUI did not store the file `{filename}` (status {response.status_code}).",
            hint="ComfyUI's own log has the cause.",
            details={"filename": filename, "status": response.status_code},
        )
    return UploadedFile(answer["name"], str(answer.get("subfolder") or ""))
