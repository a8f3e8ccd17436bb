"""What a stand-in for AI Toolkit's server answers about the files of its jobs."""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.fakes.aitk_ui_jobs import Tables

_MOST_LOG_BYTES = 5 * 1024 * 1024
_MOST_POINTS = 20_000
_KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


def file_routes(
    tables: Tables, training_folder: Callable[[], Path], roots: Callable[[], tuple[Path, ...]]
) -> list[Route]:
    """Return the routes; files are given away from below `roots` only."""

    def folder_of(request: Request) -> Path:
        return training_folder() / tables.jobs[request.path_params["job_id"]].name

    async def log(request: Request) -> Response:
        path = folder_of(request) / "log.txt"
        if not path.exists():
            return JSONResponse({"log": "", "offset": 0, "reset": True})
        content = path.read_bytes()
        offset = int(request.query_params.get("offset", "-1"))
        if 0 <= offset <= len(content):
            text = content[offset:].decode(errors="replace")
            return JSONResponse({"log": text, "offset": len(content), "reset": False})
        text = content[-_MOST_LOG_BYTES:].decode(errors="replace")
        return JSONResponse({"log": text, "offset": len(content), "reset": True})

    async def files(request: Request) -> Response:
        folder = folder_of(request)
        paths = [*sorted(folder.glob("*.safetensors")), *folder.glob("optimizer.pt")]
        try:
            return JSONResponse({"files": [{"path": str(path), "size": path.stat().st_size} for path in paths]})
        except FileNotFoundError:
            # The real server, too, stumbles over what the trainer deletes after the listing.
            return Response(status_code=500)

    async def samples(request: Request) -> Response:
        return JSONResponse({"samples": [str(path) for path in sorted(folder_of(request).glob("samples/*.jpg"))]})

    async def loss(request: Request) -> Response:
        query = request.query_params
        key = query.get("key", "loss")
        path = folder_of(request) / "loss_log.db"
        if not path.exists():
            return JSONResponse({"keys": [], "key": key, "points": []})
        with closing(sqlite3.connect(path)) as database:
            keys = [name for (name,) in database.execute("SELECT key FROM metric_keys ORDER BY key")]
            rows: Iterable[tuple[int, float, float]] = database.execute(
                "SELECT steps.step, wall_time, value_real FROM metrics JOIN steps ON steps.step = metrics.step"
                " WHERE key = ? AND steps.step > ? ORDER BY steps.step",
                (key, int(query.get("since_step", "-1"))),
            ).fetchall()
        stride = int(query.get("stride", "1"))
        limit = min(_MOST_POINTS, int(query.get("limit", str(_MOST_POINTS))))
        points: list[Any] = [
            {"step": step, "wall_time": time, "value": value} for step, time, value in rows if step % stride == 0
        ]
        return JSONResponse({"key": key, "keys": keys, "points": points[:limit]})

    async def file(request: Request) -> Response:
        # Slashes of the folder come encoded; a router sees them decoded.
        path = Path(request.path_params["path"])
        is_image = request.url.path.startswith("/api/img/")
        if not any(path.is_relative_to(root) for root in roots()):
            return PlainTextResponse("Access denied", 403)
        small = path.parent / ".thumbs" / f"{path.name}.jpg"
        if is_image and "thumb" in request.query_params and small.is_file():
            path = small
        if not path.is_file():
            return PlainTextResponse("File not found", 404)
        state = path.stat()
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Type": _KINDS.get(path.suffix.lower(), "application/octet-stream"),
        }
        if is_image:
            tag = "-".join(_base36(number) for number in (state.st_ino, state.st_size, int(state.st_mtime * 1000)))
            headers |= {"Cache-Control": "public, max-age=86400, immutable", "ETag": f'W/"{tag}.pxq"'}
        else:
            name = quote(path.name, safe="")
            headers |= {
                "Cache-Control": "public, max-age=86400",
                "Content-Disposition": f'attachment; filename="{name}"',
            }
        return await to_thread.run_sync(_span, path, request.headers.get("range"), headers)

    async def delete(request: Request) -> Response:
        # Decoded once more, as there.
        path = Path(unquote((await request.json())["filePath"]))
        if not any(path.is_relative_to(root) for root in roots()):
            return PlainTextResponse("Access denied", 403)
        if not path.exists():
            return PlainTextResponse("File not found", 404)
        if not path.is_file():
            return PlainTextResponse("Not a file", 400)
        path.unlink()
        return JSONResponse({"success": True})

    async def plugin(request: Request) -> Response:
        return JSONResponse({"exists": False, "html": None})

    return [
        Route("/api/jobs/{job_id}/log", log),
        Route("/api/jobs/{job_id}/files", files),
        Route("/api/jobs/{job_id}/samples", samples),
        Route("/api/jobs/{job_id}/loss", loss),
        Route("/api/jobs/{job_id}/plugin", plugin),
        Route("/api/files/delete", delete, methods=["POST"]),
        Route("/api/files/{path:path}", file),
        Route("/api/img/{path:path}", file),
    ]


def _span(path: Path, asked: str | None, headers: dict[str, str]) -> Response:
    content = path.read_bytes()
    if asked is None:
        return Response(content, headers=headers)
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start, end = int(first), int(last) if last else len(content) - 1
    if start > end or start >= len(content):
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(content)}"})
    # A range past the end is announced whole, and breaks off where the file ends.
    headers |= {"Content-Range": f"bytes {start}-{end}/{len(content)}", "Content-Length": str(end - start + 1)}
    return Response(content[start : end + 1], 206, headers=headers)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits or "0"
