"""Send to a stand-in what was once sent to the real server, and compare what comes back."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import anyio
import httpx

from tests.fakes.aitk_ui import FakeAitkUi

PATIENCE_S = 180
# What an answer must say word for word; of everything else the kind.
_WORDS = {
    *("status", "info", "stop", "return_to_queue", "save_now", "sample_now", "job_type", "job_ref", "total_steps"),
    *("name", "gpu_ids", "queue_position", "is_running", "error", "success", "isAuthenticated", "key", "keys", "reset"),
    *("HF_TOKEN", "TRAINING_FOLDER", "DATASETS_FOLDER", "MODELS_PATH"),
}
# The trainers word a missing dataset differently, and ours may be past a save, or its end, before the next request.
_OTHER_WORDS = {
    ("209_badds_job", "info"),
    *((name, word) for name in ("120_save_now", "121_sample_now") for word in ("status", "info", "save_now")),
}
_CHANGES = ("start", "stop", "mark_stopped", "delete")


class Replay:
    """Replay captured exchanges, with the ids and folders of this run in the place of theirs."""

    def __init__(self, fake: FakeAitkUi, client: httpx.AsyncClient) -> None:
        self.fake, self._client = fake, client
        root = f"{fake.root}/"
        self._ours = {"/ai-toolkit/": root, quote("/ai-toolkit/", safe=""): quote(root, safe="")}
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
        deadline = time.monotonic() + (PATIENCE_S if is_look else 0)
        while differences := self._compare(name, capture, await self._send(capture)):
            assert time.monotonic() < deadline, f"{name}: {differences}"

    async def comes(self, name: str, expected: Mapping[str, Any]) -> None:
        """Wait until the row of a job or queue is as captured."""
        deadline = time.monotonic() + PATIENCE_S
        while differences := _differences(name, self._here(expected), await self._row(expected)):
            assert time.monotonic() < deadline, f"before {name}: {differences}"

    async def trains(self, job_name: str) -> int:
        """Wait until a job trains, and return its pid."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            rows = (await self._client.get("/api/jobs")).json()["jobs"]
            row = next(row for row in rows if row["name"] == job_name)
            if row["status"] == "running" and row["info"] == "Training":
                return int(row["pid"])
            assert time.monotonic() < deadline, row

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
            headers=request.get("headers"),
        )
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
            return _differences(name, self._here(capture["response"]), response.json())
        if kind == "application/octet-stream":
            return []
        return [] if response.text.startswith(capture["response"]) else [f"{response.text[:80]!r}"]

    def _here(self, value: Any) -> Any:
        text = json.dumps(value, ensure_ascii=False)
        for theirs, ours in self._ours.items():
            text = text.replace(theirs, ours)
        return json.loads(text)


def _differences(name: str, expected: Any, found: Any, where: str = "") -> list[str]:
    if where in _WORDS and (name, where) not in _OTHER_WORDS:
        return [] if expected == found else [f"{where}: {found!r} for {expected!r}"]
    if where == "job_config":
        return [] if json.loads(expected) == json.loads(found) else ["another config"]
    if isinstance(expected, dict) and isinstance(found, dict):
        theirs, ours = cast(dict[str, Any], expected), cast(dict[str, Any], found)
        if set(theirs) != set(ours):
            return [f"{where}: fields {set(theirs) ^ set(ours)}"]
        return [each for key in theirs for each in _differences(name, theirs[key], ours[key], key)]
    if isinstance(expected, list) and isinstance(found, list):
        captured, entries = cast(list[Any], expected), cast(list[Any], found)
        if bool(captured) != bool(entries):
            return [f"{where}: {len(entries)} entries"]
        return _differences(name, captured[0], entries[0]) if captured else []
    return [] if _kind(expected) == _kind(found) else [f"{where}: {found!r} for {expected!r}"]


def _kind(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if is_number else type(value).__name__
