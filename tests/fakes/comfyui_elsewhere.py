"""A ComfyUI on another machine: it names folders that are not here, and stores what is sent to it, by either route.

With `assets`, /api/assets takes files of any size and stores them under the digest of their bytes, as 0.30 does with
--enable-assets; without, /upload/image takes what `limit_bytes` allows. `detailed` is /experiment/models, which older
ones lack.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass(slots=True)
class Elsewhere:
    """What the other machine has, under `folder`, and what it was asked."""

    folder: Path
    assets: bool = False
    limit_bytes: int = 104_857_600
    detailed: bool = True
    forms: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list[tuple[str, dict[str, list[str]]]])
    freed: int = 0

    def app(self) -> Starlette:
        """Return the server."""
        return Starlette(
            routes=[
                Route("/system_stats", self._stats),
                Route("/queue", self._queue),
                Route("/features", self._features),
                Route("/internal/folder_paths", self._folder_paths),
                Route("/models/loras", self._names),
                Route("/experiment/models/loras", self._rows),
                Route("/view_metadata/loras", self._metadata),
                Route("/free", self._free, methods=["POST"]),
                Route("/upload/image", self._upload, methods=["POST"]),
                Route("/api/assets", self._asset, methods=["POST"]),
            ]
        )

    def _files(self) -> list[tuple[int, str, Path]]:
        return [
            (index, path.relative_to(root).as_posix(), path)
            for index, root in enumerate((self.folder / "models" / "loras", self.folder / "output" / "loras"))
            for path in sorted(root.rglob("*.*"))
            if path.is_file()
        ]

    def _stats(self, request: Request) -> Response:
        return JSONResponse({"system": {"comfyui_version": "0.30.0"}, "devices": []})

    def _queue(self, request: Request) -> Response:
        return JSONResponse({"queue_running": [], "queue_pending": []})

    def _features(self, request: Request) -> Response:
        return JSONResponse({"assets": self.assets, "max_upload_size": self.limit_bytes})

    def _folder_paths(self, request: Request) -> Response:
        return JSONResponse({"loras": ["/comfyui/models/loras", "/comfyui/output/loras"]})

    def _names(self, request: Request) -> Response:
        return JSONResponse(sorted({name for _, name, _ in self._files()}))

    def _rows(self, request: Request) -> Response:
        if not self.detailed:
            return Response(status_code=404)
        return JSONResponse(
            [
                {
                    "name": name,
                    "pathIndex": index,
                    "modified": path.stat().st_mtime_ns / 1e9,
                    "size": path.stat().st_size,
                }
                for index, name, path in self._files()
            ]
        )

    def _metadata(self, request: Request) -> Response:
        for _, name, path in self._files():
            if name == request.query_params.get("filename"):
                content = path.read_bytes()
                header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
                if "__metadata__" in header:
                    return JSONResponse(header["__metadata__"])
        return Response(status_code=404)

    def _free(self, request: Request) -> Response:
        self.freed += 1
        return Response()

    async def _upload(self, request: Request) -> Response:
        if int(request.headers["content-length"]) > self.limit_bytes:
            return Response(f"Maximum request body size {self.limit_bytes} exceeded.", 413)
        async with request.form() as form:
            self.forms.append(("/upload/image", {key: [str(form[key])] for key in ("type", "subfolder", "overwrite")}))
            image = form["image"]
            assert isinstance(image, UploadFile)
            assert image.filename
            content = await image.read()
            subfolder = str(form["subfolder"])
        folder, name = self.folder / "output" / subfolder, image.filename
        folder.mkdir(parents=True, exist_ok=True)
        if self.forms[-1][1]["overwrite"] != ["true"] and (folder / name).exists():
            name = f"{Path(name).stem} (1){Path(name).suffix}"
        (folder / name).write_bytes(content)
        return JSONResponse({"name": name, "subfolder": subfolder, "type": "output"})

    async def _asset(self, request: Request) -> Response:
        async with request.form() as form:
            self.forms.append(("/api/assets", {"tags": [str(tag) for tag in form.getlist("tags")]}))
            file = form["file"]
            assert isinstance(file, UploadFile)
            content = await file.read()
        name = f"{hashlib.sha256(content).hexdigest()}.safetensors"
        path = self.folder / "models" / "loras" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return JSONResponse({"id": "1", "loader_path": name}, 201)
