"""The jobs and queues of AI Toolkit's server as its API has them."""

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote

import anyio

from aitk_mcp.trainers.ui_http import UiHttp, UiRefused
from aitk_mcp.trainers.ui_rows import BadRow, Row
from mcp_toolserver.errors import Conflict, NotFound, closest

# Its database answers 500 while somebody else writes. These only set a flag, and may be sent again.
_REPEATABLE = frozenset({"mark_stopped", "save_now", "sample_now"})
_PAUSES_S = (0.2, 0.8)


class UiJobs:
    """Read and change the rows of one server.

    Requests that change a row are GETs and answer it as it was before: `change` returns the row as it then is.
    """

    def __init__(self, http: UiHttp) -> None:
        self._http = http

    async def find(self, job_id: str) -> Row:
        """Return a job; raises NotFound with the closest ids."""
        found = await self._http.get("/api/jobs", {"id": job_id}) if job_id else None
        if found is not None:
            return self._read(found)
        matches = closest(job_id, [row.job_id for row in await self.all()])
        cure = f"Did you mean `{matches[0]}`? " if matches else ""
        raise NotFound(
            f"There is no training job `{job_id}`.",
            hint=f"{cure}list-training-jobs shows every job.",
            details={"job_id": job_id, "closest_matches": matches},
        )

    async def all(self) -> list[Row]:
        """Return every training job, newest first."""
        found = await self._http.get("/api/jobs")
        entries: Any = cast(Mapping[str, Any], found).get("jobs") if isinstance(found, Mapping) else None
        if not isinstance(entries, list):
            raise self._http.strange("/api/jobs", "it lists no jobs")
        rows = [self._read(entry) for entry in cast(list[Any], entries)]
        return sorted(
            (row for row in rows if row.job_type == "train"), key=lambda row: (row.created_at, row.job_id), reverse=True
        )

    async def put(self, name: str, gpu_ids: str, document: Mapping[str, Any], job_id: str | None = None) -> Row:
        """Create a job, or replace the config of one; raises Conflict where its name is taken."""
        # An object, never its text: the server would encode a text a second time.
        body = {"name": name, "gpu_ids": gpu_ids, "job_config": document, **({"id": job_id} if job_id else {})}
        try:
            return self._read(await self._http.post("/api/jobs", body))
        except UiRefused as error:
            if error.answer_status != 409:
                raise
            raise Conflict(
                f"AI Toolkit already has a job `{name}`.",
                hint="Create a config with another name; list-training-jobs shows the jobs.",
                details={"name": name},
            ) from error

    async def change(self, job_id: str, verb: str) -> Row:
        """Do `start`, `stop`, `mark_stopped`, `save_now` or `sample_now` to a job, and return it as it then is."""
        path = f"/api/jobs/{quote(job_id, safe='')}/{verb}"
        for pause_s in _PAUSES_S if verb in _REPEATABLE else ():
            try:
                await self._http.get(path)
                return await self.find(job_id)
            except UiRefused as error:
                if error.answer_status != 500:
                    raise
                await anyio.sleep(pause_s)
        await self._http.get(path)
        return await self.find(job_id)

    async def delete(self, job_id: str) -> None:
        """Delete a job's row and its whole folder; its process, where one is left, goes on."""
        path = f"/api/jobs/{quote(job_id, safe='')}/delete"
        await self._http.get(path)
        if await self._http.get("/api/jobs", {"id": job_id}) is not None:
            raise self._http.strange(path, "the job is still there")

    async def start_queue(self, gpu_ids: str) -> None:
        """Let the jobs of a GPU run, one after the other."""
        await self._http.get(f"/api/queue/{quote(gpu_ids, safe='')}/start")

    def _read(self, found: object) -> Row:
        try:
            return Row.read(found)
        except BadRow as error:
            raise self._http.strange("/api/jobs", str(error)) from error


def place_of(row: Row, rows: list[Row]) -> int:
    """Return the place of a waiting job in its GPU's queue, 1 for the next."""
    before = [
        other
        for other in rows
        if other.status == "queued" and other.gpu_ids == row.gpu_ids and other.queue_position < row.queue_position
    ]
    return len(before) + 1
