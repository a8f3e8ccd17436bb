"""What a stand-in for AI Toolkit's server answers about the files of its jobs."""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.fakes.aitk_ui_jobs import Tables

_MOST_LOG_BYTES = 5 * 1024 * 1024
_MOST_POINTS = 20_000


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
        return JSONResponse({"files": [{"path": str(path), "size": path.stat().st_size} for path in paths]})

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
        if not any(path.is_relative_to(root) for root in roots()):
            return PlainTextResponse("Access denied", 403)
        if not path.is_file():
            return PlainTextResponse("File not found", 404)
        return FileResponse(
            path,
            media_type="application/octet-stream",
            filename=path.name,
            headers={"Cache-Control": "public, max-age=86400"},
        )

    return [
        Route("/api/jobs/{job_id}/log", log),
        Route("/api/jobs/{job_id}/files", files),
        Route("/api/jobs/{job_id}/samples", samples),
        Route("/api/jobs/{job_id}/loss", loss),
        Route("/api/files/{path:path}", file),
    ]
