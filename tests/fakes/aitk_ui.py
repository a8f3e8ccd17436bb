"""A stand-in for AI Toolkit's server (0.12): its API on a real socket, over a worker that really trains.

It answers as the captured exchanges do, with what is awkward in them: changing requests are GETs that answer the row as
it was, a start only queues, a stop of a waiting job sets a flag and no more, unknown ids are empty 500s.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.conftest import served
from tests.fakes.aitk_ui_datasets import DatasetRoutes
from tests.fakes.aitk_ui_files import file_routes
from tests.fakes.aitk_ui_jobs import Job, Tables
from tests.fakes.aitk_ui_worker import Worker
from tests.fakes.other_machine import OtherMachine

_SETTINGS = ("HF_TOKEN", "TRAINING_FOLDER", "DATASETS_FOLDER", "MODELS_PATH")
_OPEN_PATHS = ("/api/files/", "/api/img/")
_PAGE = "<!DOCTYPE html><html><body>404: This page could not be found.</body></html>"


class FakeAitkUi:
    """One server, with everything below `root`."""

    def __init__(
        self, root: Path, *, token: str | None = None, machine: str | None = None, worker: type[Worker] = Worker
    ) -> None:
        """Take the token that AI_TOOLKIT_AUTH would hold, and what works off the queues.

        With `machine`, it tells and hears that path for `root`, as a server does whose disk is another machine's.
        """
        self.root = root
        self._machine = machine
        self.settings = {
            "TRAINING_FOLDER": str(root / "output"),
            "DATASETS_FOLDER": str(root / "datasets"),
            "MODELS_PATH": str(root / "models"),
        }
        self.tables = Tables()
        self.worker = worker(self.tables, root / "output", root)
        self.token = token
        self.requests: list[str] = []
        # What it answers to the next requests of a path, such as an error; None as always.
        self.answers: dict[str, list[Response | None]] = {}
        self.url = ""

    @contextmanager
    def serving(self, port: int = 0) -> Generator[str]:
        """Serve until the block ends; yields the address."""
        app = self.app()
        with served(OtherMachine(app, self._machine, str(self.root)) if self._machine else app, port) as self.url:
            try:
                yield self.url
            finally:
                self.worker.close()

    def app(self) -> Starlette:
        """Return the app."""
        routes = [
            Route("/api/auth", self._auth),
            Route("/api/settings", self._read_settings),
            Route("/api/settings", self._write_settings, methods=["POST"]),
            Route("/api/gpu", self._gpu),
            Route("/api/cpu", self._cpu),
            *DatasetRoutes(lambda: self.settings, self.root / "data" / "images").all(),
            Route("/api/jobs", self._jobs),
            Route("/api/jobs", self._put_job, methods=["POST"]),
            Route("/api/jobs/{job_id}/start", self._changing(self._start, missing=404)),
            Route("/api/jobs/{job_id}/stop", self._changing(self._stop, missing=404)),
            Route("/api/jobs/{job_id}/mark_stopped", self._changing(self._mark_stopped, missing=500)),
            Route("/api/jobs/{job_id}/delete", self._changing(self._delete, missing=404)),
            Route("/api/jobs/{job_id}/save_now", self._wish("save_now")),
            Route("/api/jobs/{job_id}/sample_now", self._wish("sample_now")),
            Route("/api/queue", self._queues),
            Route("/api/queue/{gpu_ids}/start", self._start_queue),
            Route("/api/queue/{gpu_ids}/stop", self._stop_queue),
            *file_routes(
                self.tables,
                lambda: Path(self.settings["TRAINING_FOLDER"]),
                lambda: (Path(self.settings["TRAINING_FOLDER"]), Path(self.settings["DATASETS_FOLDER"])),
            ),
        ]

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncGenerator[None]:
            task = asyncio.create_task(self.worker.run())
            yield
            task.cancel()

        return Starlette(
            routes=routes,
            lifespan=lifespan,
            middleware=[Middleware(_Guard, self)],
            exception_handlers={
                404: lambda request, error: HTMLResponse(_PAGE, 404, headers={"Cache-Control": "no-store"}),
                405: lambda request, error: Response(status_code=405),
            },
        )

    async def _auth(self, request: Request) -> Response:
        return JSONResponse({"isAuthenticated": True})

    async def _read_settings(self, request: Request) -> Response:
        return JSONResponse(self.settings)

    async def _write_settings(self, request: Request) -> Response:
        body = await request.json()
        if set(body) != set(_SETTINGS):
            return JSONResponse({"error": "Failed to update settings"}, 500)
        self.settings = body
        self.worker.training_folder = Path(body["TRAINING_FOLDER"])
        return JSONResponse({"success": True})

    async def _gpu(self, request: Request) -> Response:
        error = "nvidia-smi not found or not accessible"
        return JSONResponse({"hasNvidiaSmi": False, "isMac": False, "gpus": [], "error": error})

    async def _cpu(self, request: Request) -> Response:
        memory = {"totalMemory": 24152.05, "availableMemory": 22503.63, "freeMemory": 11592.77}
        return JSONResponse(
            {"name": "Intel Xeon® Processor", "cores": 2, "temperature": 0, **memory, "currentLoad": 59.1}
        )

    async def _jobs(self, request: Request) -> Response:
        query = request.query_params
        if "id" in query:
            job = self.tables.jobs.get(query["id"])
            return JSONResponse(job.row() if job else None)
        jobs = self.tables.newest_first()
        if query.get("only_active") == "true":
            jobs = [job for job in jobs if job.status in ("queued", "running", "stopping")]
        return JSONResponse({"jobs": [job.row() for job in jobs]})

    async def _put_job(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            names = {job.name for job in self.tables.jobs.values() if job.id != body.get("id")}
            if body["name"] in names:
                return JSONResponse({"error": "Job name already exists"}, 409)
            job = self.tables.update(body) if body.get("id") else self.tables.create(body)
        except (json.JSONDecodeError, KeyError):
            return JSONResponse({"error": "Failed to save training data"}, 500)
        return JSONResponse(job.row())

    def _changing(self, change: Callable[[Job], None], *, missing: int) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            job = self.tables.jobs.get(request.path_params["job_id"])
            if job is None:
                return JSONResponse({"error": "Job not found"}, 404) if missing == 404 else Response(status_code=500)
            before = job.row()
            change(job)
            return JSONResponse(before)

        return endpoint

    def _start(self, job: Job) -> None:
        self.tables.enqueue(job)

    def _stop(self, job: Job) -> None:
        job.change(stop=True, info="Stopping job...")
        self.worker.interrupt(job)

    def _mark_stopped(self, job: Job) -> None:
        job.change(status="stopped", stop=True, info="Job stopped", pid=None)

    def _delete(self, job: Job) -> None:
        shutil.rmtree(Path(self.settings["TRAINING_FOLDER"]) / job.name, ignore_errors=True)
        del self.tables.jobs[job.id]

    def _wish(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            job = self.tables.jobs.get(request.path_params["job_id"])
            if job is None:
                return Response(status_code=500)
            job.change(**{name: True})
            return JSONResponse(job.row())

        return endpoint

    async def _queues(self, request: Request) -> Response:
        return JSONResponse({"queues": [queue.row() for queue in self.tables.queues.values()]})

    async def _start_queue(self, request: Request) -> Response:
        queue = self.tables.queue_of(request.path_params["gpu_ids"])
        before = queue.row()
        queue.is_running = True
        return JSONResponse(before)

    async def _stop_queue(self, request: Request) -> Response:
        queue = self.tables.queues.get(request.path_params["gpu_ids"])
        if queue is None:
            return JSONResponse({"error": "Queue not found"}, 404)
        before = queue.row()
        queue.is_running = False
        return JSONResponse(before)


class _Guard:
    """Ask for the token where one is set, and remember what was asked for."""

    def __init__(self, app: ASGIApp, fake: FakeAitkUi) -> None:
        self._app, self._fake = app, fake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            self._fake.requests.append(f"{request.method} {request.url.path}")
            words: list[Any] = request.headers.get("authorization", "").split()
            is_open = not request.url.path.startswith("/api/") or request.url.path.startswith(_OPEN_PATHS)
            if self._fake.token and not is_open and words[1:2] != [self._fake.token]:
                await JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
                return
            answers = self._fake.answers.get(request.url.path, [])
            answer = answers.pop(0) if answers else None
            if answer is not None:
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)
