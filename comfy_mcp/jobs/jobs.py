"""Run graphs as jobs that outlive the call that began them, this server, and, as far as it remembers, ComfyUI."""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from comfy_mcp.engines.comfyui_events import Executed, JobEvent, Preview
from comfy_mcp.engines.comfyui_history import Ending
from comfy_mcp.engines.port import Engine
from comfy_mcp.engines.selection import Selected
from comfy_mcp.jobs.live import JobState, LiveJob, Reported
from comfy_mcp.jobs.progress import advance
from comfy_mcp.jobs.servers import Servers
from comfy_mcp.jobs.store import JobRecord, JobStatus, JobStore
from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, ToolError
from mcp_toolserver.tools import Report, unheard

log = logging.getLogger(__name__)

_ANOTHER_SERVERS_JOB_S = 0.5
_CANCEL_SETTLE_S = 10.0
_LOOK_FOR_THE_DEAD_S = 2.0

_SAYS_CACHED = (
    "Nothing was rendered: this is the picture of an earlier run with the same graph and seed, from ComfyUI's cache. "
    "Another seed gives another picture."
)


@dataclass(frozen=True, kw_only=True)
class JobPage:
    """A page of jobs, newest first; `next_cursor` is None on the last."""

    jobs: tuple[JobState, ...]
    next_cursor: str | None


class Jobs:
    """Submit, follow, wait for, cancel and list jobs.

    A job goes to the engine of its record's name in `engines`, which are those inside this process, and else to
    `comfyui`; `at` gives the ComfyUI at another address than today's. Of the `servers` on one store, each job is
    followed by the one that submitted it, and once that is gone by one of those that live.
    """

    def __init__(
        self,
        store: JobStore,
        servers: Servers,
        comfyui: Engine,
        *,
        selected: Callable[[], Awaitable[Selected]],
        at: Callable[[str], Engine],
        engines: Mapping[str, Engine],
    ) -> None:
        self._store = store
        self._servers = servers
        self._comfyui = comfyui
        self._engines = engines
        self._selected = selected
        self._at = at
        self._live: dict[str, LiveJob] = {}
        self._tasks: TaskGroup | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Follow jobs while the block runs, also those that servers leave unfinished."""
        async with self._store.opened(), self._servers.joined(), anyio.create_task_group() as tasks:
            self._tasks = tasks
            await self._take_over(tasks)
            tasks.start_soon(self._keep_taking_over, tasks)
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def start(self, record: JobRecord) -> JobState:
        """Record a job, submit its graph and follow it from then on; returns when its engine has accepted it.

        Raises what the engine's refusal comes to; then there is no job. When the caller goes away, the job goes on.
        """
        if self._tasks is None:
            raise RuntimeError("jobs are not running")
        live = LiveJob(record.model_copy(update={"server": self._servers.own_id}), self.engine_of(record))
        self._tasks.start_soon(self._guarded, live, self._submit_and_follow)
        await live.accepted.wait()
        if live.refusal is not None:
            raise live.refusal
        return live.state

    def engine_of(self, record: JobRecord) -> Engine:
        """Return what renders a job, or has rendered it."""
        return self._engines.get(record.engine, self._comfyui)

    async def get(self, job_id: str) -> JobState:
        """Return a job; raises NotFound."""
        live = self._live.get(job_id)
        if live is not None:
            return live.state
        record = await self._store.get(job_id)
        if record is None:
            raise NotFound(
                f"There is no job `{job_id}`.",
                hint="`list-jobs` lists every job with its id.",
                details={"job_id": job_id},
            )
        return JobState(record=record)

    async def wait(self, job_id: str, wait_s: float, report: Report = unheard) -> JobState:
        """Return a job when it has ended, or as it is after `wait_s` seconds; reports percent done meanwhile."""
        state = await self.get(job_id)
        with anyio.move_on_after(wait_s):
            reported = Reported(report)
            while not state.record.is_finished:
                live = self._live.get(job_id)
                if live is None:
                    # Another server on the same data folder follows it, as far as is known yet.
                    await anyio.sleep(_ANOTHER_SERVERS_JOB_S)
                else:
                    changed = live.changed
                    await reported.tell(live.state)
                    if not live.record.is_finished:
                        await changed.wait()
                state = live.state if live is not None else await self.get(job_id)
        return state if state.record.is_finished else await self.get(job_id)

    async def cancel(self, job_id: str) -> JobState:
        """Cancel a job and return it as it is then: `cancelled`, or unfinished where its engine has yet to obey.

        Raises Conflict when it had ended otherwise: then there was nothing left to cancel; and for a job of another
        server, when only that one can cancel it.
        """
        state = await self.get(job_id)
        live = self._live.get(job_id)
        if not state.record.is_finished:
            state = await (self._cancel_elsewhere(state.record) if live is None else self._cancel_live(live))
        if state.record.is_finished and state.record.status != "cancelled":
            raise Conflict(
                f"It was too late to cancel the job `{job_id}`: it had {_ended_as(state.record.status)}.",
                hint="`get-job` has its outcome.",
                details={"job_id": job_id, "status": state.record.status},
            )
        return state

    async def page(self, status: JobStatus | None, limit: int, cursor: str | None) -> JobPage:
        """Return jobs, newest first; raises InvalidArguments for a cursor that this list did not give."""
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise InvalidArguments(
                f"Argument `cursor` is {cursor!r}, which no list gave.",
                hint="Pass `next_cursor` of the page before, or leave it out for the first page.",
                details={"field": "cursor", "value": cursor},
            )
        rows = await self._store.page(status, limit + 1, int(cursor) if cursor else None)
        shown = rows[:limit]
        lives = {record.job_id: self._live.get(record.job_id) for _, record in shown}
        states = (live.state if (live := lives[record.job_id]) else JobState(record=record) for _, record in shown)
        return JobPage(jobs=tuple(states), next_cursor=str(shown[-1][0]) if len(rows) > limit else None)

    def preview(self, job_id: str) -> Preview | None:
        """Return the latest picture of the work in progress."""
        live = self._live.get(job_id)
        return live.preview if live is not None else None

    async def _cancel_live(self, live: LiveJob) -> JobState:
        await live.accepted.wait()
        live.cancel_asked = True
        outcome = await live.engine.cancel(live.record.job_id)
        if outcome != "asked":
            with anyio.move_on_after(_CANCEL_SETTLE_S):
                while not live.record.is_finished:
                    await live.changed.wait()
        return live.state

    async def _cancel_elsewhere(self, record: JobRecord) -> JobState:
        """Cancel a job that another server follows: the engine has it under the same id, whoever asks."""
        if record.engine in self._engines:
            raise _is_elsewhere(record)
        async with self._reached(record) as engine:
            outcome = await engine.cancel(record.job_id)
        if outcome == "asked":
            return await self.get(record.job_id)
        state = await self.wait(record.job_id, _CANCEL_SETTLE_S)
        if outcome == "unknown" and not state.record.is_finished:
            raise _is_elsewhere(record)
        return state

    async def _keep_taking_over(self, tasks: TaskGroup) -> None:
        while True:
            await anyio.sleep(_LOOK_FOR_THE_DEAD_S)
            try:
                await self._take_over(tasks)
            except Exception:
                # A disk that was full or busy for a moment must not take down the group in which all jobs run.
                log.exception("looking for jobs of servers that are gone failed")

    async def _take_over(self, tasks: TaskGroup) -> None:
        """Follow the jobs of servers that are gone."""
        # In this order: whoever follows a job lived before that was written.
        followers = await self._store.followers() - {self._servers.own_id}
        for server in followers - await self._servers.living() if followers else ():
            for record in await self._store.followed_by(server):
                if (taken := await self._store.take_over(record, self._servers.own_id)) is not None:
                    live = self._live[taken.job_id] = LiveJob(taken, self.engine_of(taken))
                    tasks.start_soon(self._guarded, live, self._find_again)

    async def _guarded(self, live: LiveJob, work: Callable[[LiveJob], Awaitable[None]]) -> None:
        try:
            await work(live)
        except Exception as error:
            # One job must not take down the group in which all others run.
            log.exception("job failed inside the server", extra={"job_id": live.record.job_id})
            if live.accepted.is_set():
                await self._end(live, Ending("failed", error="The server failed while it followed this job."))
            else:
                live.refusal = error
        finally:
            live.accepted.set()
            self._live.pop(live.record.job_id, None)

    async def _submit_and_follow(self, live: LiveJob) -> None:
        record = live.record
        await self._store.add(record)
        self._live[record.job_id] = live
        with live.engine.watch(record.job_id) as live.watch:
            try:
                warnings = await live.engine.submit(record.graph, record.job_id)
            except ToolError as refusal:
                await self._store.remove(record.job_id)
                live.refusal = refusal
                return
            if warnings:
                await self._record(live, record.model_copy(update={"warnings": (*record.warnings, *warnings)}))
            live.accepted.set()
            ending = await live.watch.ended(lambda event: self._heard(live, event))
            await self._end(live, ending)

    async def _find_again(self, live: LiveJob) -> None:
        """Follow a job that a server which is gone submitted: it may wait, run, or have ended meanwhile."""
        record = live.record
        async with self._reached(record) as engine:
            live.engine = engine
            live.accepted.set()
            with engine.watch(record.job_id, foreign=True) as live.watch:
                ending = await live.watch.ended(lambda event: self._heard(live, event))
            lost = ending.status == "failed" and (ending.details or {}).get("code") == "backend_unavailable"
            if lost and record.engine == "embedded":
                ending = Ending("failed", error="The embedded engine ended together with the server that ran it.")
            await self._end(live, ending)

    @asynccontextmanager
    async def _reached(self, record: JobRecord) -> AsyncGenerator[Engine]:
        """Give the engine that a job was sent to, whichever server did that."""
        selected = await self._current()
        if record.engine in self._engines or (selected is not None and selected.url == record.engine_url):
            yield self.engine_of(record)
            return
        # Another address than today's: what answers there, if anything, still knows the truth.
        engine = self._at(record.engine_url)
        async with engine.running():
            yield engine

    async def _current(self) -> Selected | None:
        try:
            return await self._selected()
        except ToolError:
            return None

    async def _heard(self, live: LiveJob, event: JobEvent) -> None:
        if isinstance(event, Preview):
            live.preview = event
        else:
            live.progress = advance(live.progress, event, live.record.graph)
        if isinstance(event, Executed) and self._tasks is not None:
            live.measuring.begin(live.engine, event.files, self._tasks)
        if live.record.status == "queued":
            await self._record(live, live.record.model_copy(update={"status": "running", "started_at": time.time()}))
        live.notify()

    async def _end(self, live: LiveJob, ending: Ending) -> None:
        status: JobStatus = ending.status
        if live.cancel_asked and (ending.details or {}).get("code") == "engine_forgot":
            # A waiting prompt that was deleted is forgotten: that is what was asked for.
            status, ending = "cancelled", Ending("cancelled")
        async with anyio.create_task_group() as tasks:
            # Those of which no event told, as after a lost connection.
            live.measuring.begin(live.engine, ending.outputs, tasks)
        files = await live.measuring.finished(ending.outputs)
        record = live.record
        await self._record(
            live,
            record.model_copy(
                update={
                    "status": status,
                    "finished_at": time.time(),
                    "files": files,
                    "cached": ending.cached,
                    "warnings": (*record.warnings, _SAYS_CACHED) if ending.cached else record.warnings,
                    "error": ending.error,
                    "error_details": dict(ending.details) if ending.details else None,
                }
            ),
        )
        live.notify()

    async def _record(self, live: LiveJob, record: JobRecord) -> None:
        await self._store.update(record)
        live.record = record


def _ended_as(status: JobStatus) -> str:
    return "failed already" if status == "failed" else "completed already"


def _is_elsewhere(record: JobRecord) -> Conflict:
    return Conflict(
        f"The job `{record.job_id}` belongs to another server on the same data folder, which alone can cancel it now.",
        hint="Cancel it there.",
        details={"job_id": record.job_id, "status": record.status},
    )
