"""Keep job records in SQLite, so that a job outlives the call that began it, and this server too."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiosqlite
from anyio import to_thread
from pydantic import BaseModel, ConfigDict

from mcp_toolserver.files import make_folder

JobStatus = Literal["queued", "running", "completed", "failed", "cancelled"]

UNFINISHED: tuple[JobStatus, ...] = ("queued", "running")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, number);
"""


class JobFile(BaseModel):
    """Name a file that a job made, as ComfyUI's /view takes it; the size in pixels is None for videos."""

    model_config = ConfigDict(frozen=True)

    node_id: str
    filename: str
    subfolder: str
    kind: str
    animated: bool
    width: int | None = None
    height: int | None = None


class JobRecord(BaseModel):
    """Everything that is known of a job. Times are seconds since 1970.

    `job_id` is also the id under which ComfyUI knows the prompt; `engine_url` is where it was sent; `server` is the id
    of the server that follows it, and None where nobody knows.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    tool: str
    status: JobStatus
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    engine: str
    engine_url: str
    server: str | None = None
    workflow_name: str
    seed: int | None = None
    graph: dict[str, dict[str, Any]]
    warnings: tuple[str, ...] = ()
    files: tuple[JobFile, ...] = ()
    cached: bool = False
    error: str | None = None
    error_details: dict[str, str] | None = None

    @property
    def is_finished(self) -> bool:
        """Tell whether the status is final."""
        return self.status not in UNFINISHED


class JobStore:
    """The table of jobs, newest last. One file may serve several servers at once (SQLite's WAL)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: aiosqlite.Connection | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Keep the file open while the block runs; creates it, and its folder, where needed."""
        await to_thread.run_sync(make_folder, self._path.parent)
        async with aiosqlite.connect(self._path, isolation_level=None, timeout=10.0) as connection:
            # WAL with NORMAL loses nothing when a process is killed, and costs no fsync for each change.
            await connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_SCHEMA}")
            self._connection = connection
            try:
                yield
            finally:
                self._connection = None

    async def add(self, record: JobRecord) -> None:
        """Write a new job."""
        await self._db.execute(
            "INSERT INTO jobs (job_id, status, record) VALUES (?, ?, ?)",
            (record.job_id, record.status, record.model_dump_json()),
        )

    async def update(self, record: JobRecord) -> None:
        """Write what has become of a job."""
        await self._db.execute(
            "UPDATE jobs SET status = ?, record = ? WHERE job_id = ?",
            (record.status, record.model_dump_json(), record.job_id),
        )

    async def remove(self, job_id: str) -> None:
        """Forget a job that was never queued."""
        await self._db.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))

    async def get(self, job_id: str) -> JobRecord | None:
        """Return a job, or None."""
        found = await self._select("SELECT number, record FROM jobs WHERE job_id = ?", job_id)
        return found[0][1] if found else None

    async def followers(self) -> set[str | None]:
        """Return the ids of the servers that follow unfinished jobs."""
        rows = await self._db.execute_fetchall(
            "SELECT DISTINCT json_extract(record, '$.server') FROM jobs WHERE status IN (?, ?)", UNFINISHED
        )
        return {row[0] for row in rows}

    async def followed_by(self, server: str | None) -> list[JobRecord]:
        """Return every unfinished job that a server follows, oldest first."""
        rows = await self._select(
            "SELECT number, record FROM jobs WHERE status IN (?, ?) AND json_extract(record, '$.server') IS ? "
            "ORDER BY number",
            *UNFINISHED,
            server,
        )
        return [record for _, record in rows]

    async def take_over(self, record: JobRecord, server: str) -> JobRecord | None:
        """Give an unfinished job to another server, and return it; None where a third one was faster."""
        taken = record.model_copy(update={"server": server})
        cursor = await self._db.execute(
            "UPDATE jobs SET record = ? "
            "WHERE job_id = ? AND status IN (?, ?) AND json_extract(record, '$.server') IS ?",
            (taken.model_dump_json(), record.job_id, *UNFINISHED, record.server),
        )
        return taken if cursor.rowcount else None

    async def page(self, status: JobStatus | None, limit: int, before: int | None) -> list[tuple[int, JobRecord]]:
        """Return up to `limit` jobs, newest first, each with its number; `before` is the number to go on from."""
        return await self._select(
            "SELECT number, record FROM jobs WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR number < ?2) "
            "ORDER BY number DESC LIMIT ?3",
            status,
            before,
            limit,
        )

    async def _select(self, statement: str, *values: Any) -> list[tuple[int, JobRecord]]:
        rows = await self._db.execute_fetchall(statement, values)
        return [(row[0], JobRecord.model_validate_json(row[1])) for row in rows]

    @property
    def _db(self) -> aiosqlite.Connection:
        if self._connection is None:
            raise RuntimeError("the job store is closed")
        return self._connection
