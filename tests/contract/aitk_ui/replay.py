"""Send to a stand-in what was once sent to the real server, and compare what comes back."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import anyio
import httpx
from anyio import to_thread

from tests.fakes.aitk_ui import FakeAitkUi
from tests.fakes.aitk_ui_worker import SteppedWorker

# More than the longest training between two requests has steps.
_MOST_TURNS = 2000
# What an answer must say word for word; of everything else the kind.
_WORDS = {
    *("status", "info", "stop", "return_to_queue", "save_now", "sample_now", "job_type", "job_ref", "total_steps"),
    *("name", "gpu_ids", "queue_position", "is_running", "error", "success", "isAuthenticated", "key", "keys", "reset"),
    *("HF_TOKEN", "TRAINING_FOLDER", "DATASETS_FOLDER", "MODELS_PATH"),
    *("root", "images", "captions", "message", "ok", "zipPath", "fileName", "hasNvidiaSmi", "exists"),
}
_CAPTION = b"a photo of a cat, sitting"
_BYTES = re.compile(r"<(?P<count>\d+) bytes (?P<kind>.+)>")
_CHANGES = ("start", "stop", "mark_stopped", "delete")


class Replay:
    """Replay captured exchanges, with the ids and folders of this run in the place of theirs.

    Nothing happens between two requests, unless a captured answer shows that something has.
    """

    def __init__(self, fake: FakeAitkUi, worker: SteppedWorker, client: httpx.AsyncClient) -> None:
        self.fake, self.worker, self._client = fake, worker, client
        root = f"{fake.root}/"
        self._ours = {
            "/ai-toolkit/": root,
            quote("/ai-toolkit/", safe=""): quote(root, safe=""),
            "/sandbox_ds": f"{root}sandbox",
        }
        self._log_end = 0

    async def play(self, path: Path) -> None:
        """Replay one exchange; a state that the captured answer shows is waited for."""
        name = path.stem
        capture = json.loads(await anyio.Path(path).read_text(encoding="utf-8"))
        verb = capture["path"].rsplit("/", 1)[-1]
        is_change = capture["method"] == "GET" and verb in _CHANGES
        if is_change and isinstance(capture["response"], dict) and "id" in capture["response"]:
            # It was answered with the row as it was before.
            await self.comes(name, capture["response"])
        is_look = capture["method"] == "GET" and not is_change and not verb.endswith("_now")
        differences: list[str] = []
        for _ in range(_MOST_TURNS if is_look else 1):
            differences = self._compare(name, capture, await self._send(capture))
            if not differences:
                return
            await to_thread.run_sync(self.worker.go_on)
        raise AssertionError(f"{name}: {differences}")

    async def comes(self, name: str, expected: Mapping[str, Any]) -> None:
        """Let the trainers go on until the row of a job or queue is as captured."""
        found: Any = None
        for _ in range(_MOST_TURNS):
            found = await self._row(expected)
            if not _differences(self._here(expected), found):
                return
            await to_thread.run_sync(self.worker.go_on)
        raise AssertionError(f"before {name}: {_differences(self._here(expected), found)}")

    async def trains(self, job_name: str) -> int:
        """Let the trainers go on until a job trains, and return its pid."""
        row: Any = None
        for _ in range(_MOST_TURNS):
            rows = (await self._client.get("/api/jobs")).json()["jobs"]
            row = next(row for row in rows if row["name"] == job_name)
            if row["status"] == "running" and row["info"] == "Training":
                return int(row["pid"])
            await to_thread.run_sync(self.worker.go_on)
        raise AssertionError(row)

    async def start(self, *job_names: str) -> None:
        """Do what no capture shows: put jobs into their queue."""
        ids = {job.name: job.id for job in self.fake.tables.jobs.values()}
        for job_name in job_names:
            await self._client.get(f"/api/jobs/{ids[job_name]}/start")

    async def _row(self, expected: Mapping[str, Any]) -> Any:
        if "is_running" in expected:
            queues = (await self._client.get("/api/queue")).json()["queues"]
            return next((queue for queue in queues if queue["gpu_ids"] == expected["gpu_ids"]), None)
        return (await self._client.get("/api/jobs", params={"id": self._here(expected["id"])})).json()

    async def _send(self, capture: Mapping[str, Any]) -> httpx.Response:
        request = self._here(capture["request"])
        params = request.get("params")
        if params and 0 < params.get("offset", 0) <= 4967:
            # The end that the answer before told.
            params["offset"] = self._log_end
        response = await self._client.request(
            capture["method"],
            self._here(capture["path"]),
            params=params,
            json=request.get("json"),
            data=request.get("data"),
            files=_files(request),
            headers=request.get("headers"),
        )
        if capture["path"] == "/api/img/upload":
            self._ours.setdefault(capture["response"]["files"][0], response.json()["files"][0])
        if capture["path"] == "/api/jobs" and capture["method"] == "POST" and response.status_code == 200:
            self._ours.setdefault(capture["response"]["id"], response.json()["id"])
        if capture["path"].endswith("/log"):
            self._log_end = response.json()["offset"]
        return response

    def _compare(self, name: str, capture: Mapping[str, Any], response: httpx.Response) -> list[str]:
        if response.status_code != capture["status"]:
            return [f"status {response.status_code} for {capture['status']}"]
        headers = set(capture["response_headers"]) - {"content-encoding"}
        if missing := headers - set(response.headers):
            return [f"no header {missing}"]
        kind = capture["response_headers"].get("content-type", "").partition(";")[0]
        if kind == "application/json":
            return _differences(self._here(capture["response"]), response.json())
        if counted := _BYTES.fullmatch(capture["response"]):
            # Ours are other LoRAs.
            is_ours = response.content and kind == "application/octet-stream"
            told = (len(response.content), response.headers["content-type"])
            return [] if is_ours or told == (int(counted["count"]), counted["kind"]) else [f"{told}"]
        return [] if response.text.startswith(capture["response"]) else [f"{response.text[:80]!r}"]

    def _here(self, value: Any) -> Any:
        text = json.dumps(value, ensure_ascii=False)
        for theirs, ours in self._ours.items():
            text = text.replace(theirs, ours)
        return json.loads(text)


def _files(request: Mapping[str, Any]) -> list[tuple[str, tuple[str, bytes, str]]] | None:
    """Return files of the captured sizes; the caption is one that later answers show."""
    if "files(multipart)" not in request:
        return None
    files: list[tuple[str, tuple[str, bytes, str]]] = []
    for field, name, size, kind in cast(list[list[str]], request["files(multipart)"]):
        count = int(size.split()[0])
        files.append((field, (name, _CAPTION[:count] if kind == "text/plain" else bytes(count), kind)))
    return files


def _differences(expected: Any, found: Any, where: str = "") -> list[str]:
    if where in _WORDS or _are_names(expected):
        return [] if expected == found else [f"{where}: {found!r} for {expected!r}"]
    if where == "job_config":
        return [] if json.loads(expected) == json.loads(found) else ["another config"]
    if isinstance(expected, dict) and isinstance(found, dict):
        theirs, ours = cast(dict[str, Any], expected), cast(dict[str, Any], found)
        if set(theirs) != set(ours):
            return [f"{where}: fields {set(theirs) ^ set(ours)}"]
        return [each for key in theirs for each in _differences(theirs[key], ours[key], key)]
    if isinstance(expected, list) and isinstance(found, list):
        captured, entries = cast(list[Any], expected), cast(list[Any], found)
        if bool(captured) != bool(entries):
            return [f"{where}: {len(entries)} entries"]
        return _differences(captured[0], entries[0]) if captured else []
    return [] if _kind(expected) == _kind(found) else [f"{where}: {found!r} for {expected!r}"]


def _are_names(value: Any) -> bool:
    """Tell whether these are names that do not depend on the moment, as paths with times and ids do."""
    entries = cast(list[Any], value) if isinstance(value, list) else []
    return bool(entries) and all(isinstance(entry, str) and "/" not in entry for entry in entries)


def _kind(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if is_number else type(value).__name__
