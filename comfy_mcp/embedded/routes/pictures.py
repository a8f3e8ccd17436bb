"""/view, /upload/image and /upload/mask: files go out and come in."""

import io
import json
import mimetypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.to_thread
from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from comfy_mcp.embedded.answers import empty_answer, json_answer, trouble
from comfy_mcp.embedded.folders import Folders, is_inside, split_annotation
from comfy_mcp.embedded.uploads import Upload, place

_PREVIEW_FORMATS = {"webp", "jpeg"}
# A browser would run these as pages of this server.
_PAGES = {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css", "image/svg+xml"}


def picture_routes(folders: Folders) -> list[Route]:
    """Return the routes, without the `/api` under which each is found too."""

    def view(request: Request) -> Response:
        query = request.query_params
        if not query.get("filename"):
            return empty_answer(404)
        name, folder_type = split_annotation(query["filename"], query.get("type", "output"))
        folder = folders.of_type(folder_type)
        if name.startswith("/") or ".." in name or folder is None:
            return empty_answer(400)
        directory = folder / query.get("subfolder", "")
        if not is_inside(directory, folder):
            return empty_answer(403)
        path = directory / Path(name).name
        return _show(path, query.get("preview"), query.get("channel", "rgba")) if path.is_file() else empty_answer(404)

    async def upload_image(request: Request) -> Response:
        return await upload(request, _store)

    async def upload_mask(request: Request) -> Response:
        return await upload(request, _store_masked)

    async def upload(request: Request, store: Callable[[Folders, Upload], Response]) -> Response:
        async with request.form() as form:
            sent = _read_upload(form)
            return sent if isinstance(sent, Response) else await anyio.to_thread.run_sync(store, folders, sent)

    return [
        Route("/view", view, methods=["GET"]),
        Route("/upload/image", upload_image, methods=["POST"]),
        Route("/upload/mask", upload_mask, methods=["POST"]),
    ]


def _show(path: Path, preview: str | None, channel: str) -> Response:
    headers = {"content-disposition": f'filename="{path.name}"'}
    if preview is not None:
        wanted, _, quality = preview.partition(";")
        form = wanted if wanted in _PREVIEW_FORMATS else "webp"
        with Image.open(path) as picture:
            body = _encoded(picture.convert("RGB"), form, quality=int(quality) if quality.isdecimal() else 90)
        return Response(body, media_type=f"image/{form}", headers=headers)
    if channel in {"rgb", "a"}:
        with Image.open(path) as picture:
            whole = picture.convert("RGBA")
        if channel == "rgb":
            return Response(_encoded(whole.convert("RGB"), "png"), media_type="image/png", headers=headers)
        mask = Image.new("RGBA", whole.size)
        mask.putalpha(whole.getchannel("A"))
        return Response(_encoded(mask, "png"), media_type="image/png", headers=headers)
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return FileResponse(
        path, media_type="application/octet-stream" if media_type in _PAGES else media_type, headers=headers
    )


def _encoded(picture: Image.Image, form: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **settings)
    return buffer.getvalue()


def _read_upload(form: FormData) -> Upload | Response:
    """Return what a form uploads, or ComfyUI's refusal of it."""
    image = form.get("image")
    folder_type, subfolder, original = (form.get(name) or "" for name in ("type", "subfolder", "original_ref"))
    if image is None:
        return empty_answer(400)
    texts = (folder_type, subfolder, original)
    if not isinstance(image, UploadFile) or not image.filename or any(isinstance(text, UploadFile) for text in texts):
        return trouble()
    return Upload(
        image.file,
        image.filename,
        str(folder_type) or "input",
        str(subfolder),
        overwrite=form.get("overwrite") in {"true", "1"},
        original_ref=str(original),
    )


def _store(folders: Folders, upload: Upload) -> Response:
    folder = folders.of_type(upload.folder_type)
    if folder is None:
        return trouble()
    directory = folder / upload.subfolder
    if not is_inside(directory, folder) or Path(upload.filename).name != upload.filename:
        return empty_answer(400)
    directory.mkdir(parents=True, exist_ok=True)
    name = place(upload.content, directory, upload.filename, overwrite=upload.overwrite)
    return json_answer({"name": name, "subfolder": upload.subfolder, "type": upload.folder_type})


def _store_masked(folders: Folders, upload: Upload) -> Response:
    try:
        reference = json.loads(upload.original_ref)
        original = folders.find_picture(str(Path(reference.get("subfolder") or "") / reference["filename"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return empty_answer(400)
    if original is None:
        return empty_answer(404)
    with Image.open(original) as picture, Image.open(upload.content) as mask:
        masked = picture.convert("RGBA")
        masked.putalpha(mask.convert("RGBA").getchannel("A").resize(masked.size))
    return _store(folders, replace(upload, content=io.BytesIO(_encoded(masked, "png"))))
