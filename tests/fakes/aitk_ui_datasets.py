"""What a stand-in for AI Toolkit's server answers about datasets, captions and archives: as the real one, traps too."""

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

_MEDIA = {
    *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".mp4", ".avi", ".mov", ".mkv", ".wmv", ".m4v", ".flv"),
    *(".mp3", ".wav", ".flac", ".ogg"),
}
_DELETABLE = re.compile(r"\.(jpg|jpeg|png|bmp|gif|tiff|webp|mp4)$", re.IGNORECASE)


class DatasetRoutes:
    """The routes over one folder of datasets, which the settings may move."""

    def __init__(self, settings: Callable[[], dict[str, str]], data_folder: Path) -> None:
        self._settings = settings
        self._data_folder = data_folder

    def all(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/datasets/list", self._list),
            Route("/api/datasets/create", self._create, methods=["POST"]),
            Route("/api/datasets/upload", self._upload, methods=["POST"]),
            Route("/api/datasets/listImages", self._images, methods=["POST"]),
            Route("/api/datasets/delete", self._delete, methods=["POST"]),
            Route("/api/caption/get", self._caption, methods=["POST"]),
            Route("/api/caption/getBatch", self._captions, methods=["POST"]),
            Route("/api/img/caption", self._set_caption, methods=["POST"]),
            Route("/api/img/delete", self._delete_image, methods=["POST"]),
            Route("/api/img/upload", self._upload_control, methods=["POST"]),
            Route("/api/zip", self._zip, methods=["POST"]),
        ]

    @property
    def _root(self) -> Path:
        return Path(self._settings()["DATASETS_FOLDER"])

    async def _list(self, request: Request) -> Response:
        self._root.mkdir(parents=True, exist_ok=True)
        return JSONResponse(sorted(path.name for path in self._root.iterdir() if path.is_dir() and path.name[0] != "."))

    async def _create(self, request: Request) -> Response:
        name = (await request.json()).get("name")
        if not name:
            return JSONResponse({"error": "Failed to create dataset"}, 500)
        folder = re.sub(r"[^a-z0-9]+", "_", name.lower())
        try:
            (self._root / folder).mkdir(exist_ok=True)
        except FileNotFoundError:
            return JSONResponse({"error": "Failed to create dataset"}, 500)
        return JSONResponse({"success": True, "name": folder})

    async def _upload(self, request: Request) -> Response:
        async with request.form() as form:
            files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
            name = form.get("datasetName")
            if not files:
                return JSONResponse({"error": "No files provided"}, 400)
            if not isinstance(name, str):
                return JSONResponse({"error": "Error uploading files"}, 500)
            # Taken as it comes, out of the root too.
            folder = self._root / name
            folder.mkdir(parents=True, exist_ok=True)
            names: list[str] = []
            for file in files:
                names.append(re.sub(r"[^a-zA-Z0-9.-]", "_", str(file.filename)))
                (folder / names[-1]).write_bytes(await file.read())
        return JSONResponse({"message": "Files uploaded successfully", "files": names})

    async def _images(self, request: Request) -> Response:
        name = (await request.json())["datasetName"]
        folder = self._root / name
        if not folder.is_dir():
            return JSONResponse({"error": f"Folder '{name}' not found"}, 404)
        found = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in _MEDIA]
        images = sorted(str(path) for path in found if not _is_hidden(path))
        return JSONResponse({"root": f"{folder}/", "images": images})

    async def _delete(self, request: Request) -> Response:
        name = (await request.json())["name"]
        # The empty name is the root itself.
        shutil.rmtree(self._root / name, ignore_errors=True)
        return JSONResponse({"success": True})

    async def _caption(self, request: Request) -> Response:
        path = (await request.json())["imgPath"]
        if not Path(path).is_relative_to(self._root):
            return PlainTextResponse("Access denied", 403)
        return PlainTextResponse(_caption_of(path))

    async def _captions(self, request: Request) -> Response:
        paths = (await request.json())["imgPaths"]
        allowed = [path for path in paths if Path(path).is_relative_to(self._root)]
        return JSONResponse({"captions": {path: _caption_of(path) for path in allowed}})

    async def _set_caption(self, request: Request) -> Response:
        body = await request.json()
        path = Path(body["imgPath"])
        if not path.is_relative_to(self._root):
            return JSONResponse({"error": "Invalid image path"}, 400)
        if not path.exists():
            return JSONResponse({"error": "Image does not exist"}, 404)
        path.with_suffix("." + body.get("ext", "txt")).write_text(body["caption"])
        return JSONResponse({"success": True})

    async def _delete_image(self, request: Request) -> Response:
        path = Path((await request.json())["imgPath"])
        roots = [self._root, Path(self._settings()["TRAINING_FOLDER"])]
        if not any(path.is_relative_to(root) for root in roots):
            return JSONResponse({"error": "Invalid image path"}, 400)
        if not _DELETABLE.search(path.name):
            return JSONResponse({"error": "Not an image"}, 400)
        if path.exists():
            path.unlink()
            path.with_suffix(".txt").unlink(missing_ok=True)
        return JSONResponse({"success": True})

    async def _upload_control(self, request: Request) -> Response:
        self._data_folder.mkdir(parents=True, exist_ok=True)
        paths: list[str] = []
        async with request.form() as form:
            for file in form.getlist("files"):
                if isinstance(file, UploadFile):
                    path = self._data_folder / f"{uuid4()}{Path(str(file.filename)).suffix}"
                    path.write_bytes(await file.read())
                    paths.append(str(path))
        return JSONResponse({"message": "Files uploaded successfully", "files": paths})

    async def _zip(self, request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        if body["zipTarget"] == "samples":
            job = Path(self._settings()["TRAINING_FOLDER"]) / body["jobName"]
            folder, target, wanted = job / "samples", job / "samples.zip", "*"
        else:
            folder, wanted = self._root / body["datasetName"], "*.txt" if "captions" in body["zipTarget"] else "*"
            name = f"{body['datasetName']}_{'captions' if 'captions' in body['zipTarget'] else 'dataset'}.zip"
            target = self._root / ".zips" / name
        if not folder.is_dir():
            return PlainTextResponse("Internal Server Error", 500)
        target.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(target, "w") as archive:
            for path in sorted(path for path in folder.glob(wanted) if path.is_file()):
                archive.write(path, path.name)
        return JSONResponse({"ok": True, "zipPath": str(target), "fileName": target.name})


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "_controls" for part in path.parts)


def _caption_of(image: str) -> str:
    try:
        return Path(image).with_suffix(".txt").read_text(errors="replace")
    except OSError:
        return ""
