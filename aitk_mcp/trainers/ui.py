"""Train on AI Toolkit's own server, through its HTTP API: jobs stand in its pages and share its queue.

What the API leaves to its callers is done here. A start only queues, so the queue is started too. Only a running job
is ever stopped (`stop` leaves a waiting one in the queue, and signals whoever now has the pid of an ended one), after
it has saved. A row whose process is gone says `running` for ever and blocks the queue of its GPU, so it is repaired.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio
from anyio import to_thread

from aitk_mcp.documents import TrainingDocument
from aitk_mcp.loss_log import LossPoint
from aitk_mcp.trainers.port import ENDED, Checkpoint, JobLog, JobStatus, Order, Sample, TrainerJob
from aitk_mcp.trainers.ui_disk import UiDisk
from aitk_mcp.trainers.ui_files import UiFiles
from aitk_mcp.trainers.ui_http import UiHttp
from aitk_mcp.trainers.ui_jobs import UiJobs, place_of
from aitk_mcp.trainers.ui_logs import UiLogs
from aitk_mcp.trainers.ui_notes import Note, Notes, StopWish, lost, ordered, restarted, settled, wished
from aitk_mcp.trainers.ui_rows import Row
from aitk_mcp.trainers.ui_sight import Sight
from mcp_toolserver.errors import BackendUnavailable, Conflict, InvalidArguments
from mcp_toolserver.files import make_folder

log = logging.getLogger(__name__)

# AI Toolkit's worker looks into its queues once a second.
_START_PATIENCE_S = 5.0
_LOOK_EVERY_S = 0.1
# Longer than a save takes, and shorter than a person waits for a stop.
_SAVE_PATIENCE_S = 300.0
# A process that can be signalled is marked stopped at once; past this, the row waits for one that is not there.
_STOP_PATIENCE_S = 90.0


class UiTrainer:
    """Run jobs on one AI Toolkit server."""

    def __init__(
        self, http: UiHttp, notes_folder: Path, *, default_gpu_ids: str = "0", copies: Path | None = None
    ) -> None:
        """Take where to keep what the server has no column for.

        `copies` is where to put what lies on the server's disk and is wanted here; None where that disk is this one.
        """
        self._http = http
        self._jobs = UiJobs(http)
        self._files = UiFiles(http)
        self._notes = Notes(notes_folder)
        self._sight = Sight(http, is_here=copies is None)
        self._copies = copies
        self._default_gpu_ids = default_gpu_ids
        self._logs = UiLogs(self._files)
        self._changing = anyio.Lock()
        self._is_away = False

    @property
    def engine(self) -> str:
        """Return `ui`."""
        return "ui"

    @property
    def can_save(self) -> bool:
        """Return True: the server saves on demand."""
        return True

    @property
    def can_keep_models(self) -> bool:
        """Return False: the server deletes a job's whole folder."""
        return False

    async def submit(self, order: Order) -> str:
        """Queue a job, start its queue, and return its id when the server has taken it up or others are before it.

        Raises Conflict if a job of that name waits or runs, or is somebody else's: the server has one job, and one
        folder, for each name.
        """
        document = order.document
        await self._refuse_unfit(document)
        async with self._changing:
            same = next((row for row in await self._jobs.all() if row.name == document.name), None)
            if same is not None:
                await self._refuse_taken(same)
            gpu_ids = order.gpu_ids or self._default_gpu_ids
            row = await self._jobs.put(document.name, gpu_ids, document.raw, same.job_id if same else None)
            await self._note(row.job_id, ordered)
            await self._start(row.job_id)
        return row.job_id

    async def job(self, job_id: str) -> TrainerJob:
        """Return a job as it is now."""
        row = await self._jobs.find(job_id)
        return await self._describe(row, await self._jobs.all() if row.status == "queued" else [])

    async def jobs(self) -> list[TrainerJob]:
        """Return every training job of the server, newest first, whoever ordered it."""
        rows = await self._jobs.all()
        return [await self._describe(row, rows) for row in rows]

    async def stop(self, job_id: str, *, save: bool) -> None:
        """Take a waiting job out of the queue; make a running one save where that is wanted, and then stop it."""
        async with self._changing:
            row = await self._jobs.find(job_id)
            status = await self._status(row)
            if status in ENDED:
                raise _not_running(row, status)
            if row.status == "queued":
                row = await self._jobs.change(job_id, "mark_stopped")
                if row.status == "queued":
                    raise self._http.strange(f"/api/jobs/{job_id}/mark_stopped", "the job is still in the queue")
            if row.status != "running" or row.stop:
                return
            if save and row.has_begun_training:
                await self._jobs.change(job_id, "save_now")
                await self._note(job_id, partial(wished, wish=StopWish(time.time(), row.step)))
            else:
                await self._interrupt(row)

    async def save(self, job_id: str) -> None:
        """Ask a running job to save; raise Conflict where it does not run, or has trained nothing yet."""
        await self._wish(job_id, "save_now")

    async def sample_now(self, job_id: str) -> None:
        """Ask a running job to draw its sample pictures; raise Conflict where it does not run, or not yet trains."""
        await self._wish(job_id, "sample_now")

    async def delete(self, job_id: str, *, models: bool) -> None:
        """Delete a job that has ended and its whole folder; raise Conflict where LoRAs in it were to stay."""
        async with self._changing:
            row = await self._jobs.find(job_id)
            status = await self._status(row)
            if status not in ENDED:
                raise Conflict(
                    f"Job `{job_id}` is {status}; only a job that has ended can be deleted.",
                    hint="End it with stop-training first.",
                    details={"job_id": job_id, "status": status},
                )
            if not models and await self._files.checkpoints(row):
                raise Conflict(
                    f"AI Toolkit's server deletes the LoRAs of job `{job_id}` with it.",
                    hint="Keep them with export-model first, or let them go too.",
                    details={"job_id": job_id, "status": status},
                )
            if row.stop and await self._sight.is_trained(row) is None:
                await self._logs.require_silence(row)
            await self._jobs.delete(job_id)
            await to_thread.run_sync(self._notes.forget, job_id)
            self._logs.forget(job_id)

    async def _wish(self, job_id: str, verb: str) -> None:
        row = await self._jobs.find(job_id)
        status = await self._status(row)
        if status != "running" or row.stop:
            raise _not_running(row, status)
        if not row.has_begun_training:
            raise Conflict(
                f"Job `{job_id}` has trained nothing yet: {row.info}",
                hint="Call again when get-training-status says `training`.",
                details={"job_id": job_id, "status": status},
            )
        await self._jobs.change(job_id, verb)

    async def resume(self, job_id: str) -> None:
        """Queue a failed or stopped job again; it goes on from its newest checkpoint."""
        async with self._changing:
            row = await self._jobs.find(job_id)
            status = await self._status(row)
            if status not in ("failed", "stopped"):
                raise Conflict(
                    f"Job `{job_id}` is {status}; only a failed or stopped job can be resumed.",
                    hint="To train further, raise `steps` in the training config and call start-training:"
                    " it goes on from the newest checkpoint.",
                    details={"job_id": job_id, "status": status},
                )
            if row.status == "running":
                await self._repair(row)
            await self._note(job_id, restarted)
            await self._start(job_id)

    async def log(self, job_id: str, *, max_bytes: int) -> JobLog:
        """Return at most `max_bytes` of each end of the log of the latest run."""
        row = await self._jobs.find(job_id)
        return await self._logs.of(row, await self._sight.of(row), max_bytes)

    async def losses(self, job_id: str) -> list[LossPoint]:
        """Return the loss of each step that the trainer recorded; empty where it records none."""
        return await self._files.losses((await self._jobs.find(job_id)).job_id)

    async def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Return the saved LoRAs, oldest step first."""
        return await self._files.checkpoints(await self._jobs.find(job_id))

    async def samples(self, job_id: str) -> list[Sample]:
        """Return the pictures, oldest first."""
        return await self._files.samples((await self._jobs.find(job_id)).job_id)

    async def picture_file(self, sample: Sample) -> Path:
        """Return a file of this machine with a sample picture, a copy where the server's disk is another machine's."""
        if self._copies is None:
            return sample.path
        # A name holds the millisecond, so that no other picture ever bears it.
        target = self._copies / sample.path.name
        if not await to_thread.run_sync(target.is_file):
            await to_thread.run_sync(make_folder, self._copies)
            work = target.with_name(f".{uuid4().hex}.part")
            await UiDisk(self._http).copy(str(sample.path), work)
            await to_thread.run_sync(work.replace, target)
        return target

    async def tend(self) -> None:
        """Stop what was to be saved first and now is, and repair rows whose process is gone."""
        async with self._changing:
            try:
                for row in await self._jobs.all():
                    await self._tend(row)
            except BackendUnavailable as error:
                # Whoever asks for a job hears it himself; the watch, which asks every second, tells it once.
                if not self._is_away:
                    log.warning("AI Toolkit is away", extra={"url": self._http.url, "reason": error.message})
                self._is_away = True
            else:
                self._is_away = False

    async def _tend(self, row: Row) -> None:
        note = await self._note(row.job_id)
        if row.is_active and note.was_lost:
            note = await self._note(row.job_id, restarted)
        if row.status == "running" and await self._is_dead(row):
            await self._repair(row)
            return
        wish = note.stop_wish
        if wish is None:
            return
        if row.status != "running" or row.stop:
            await self._note(row.job_id, settled)
            return
        newest = max((entry.step or 0 for entry in await self._files.checkpoints(row)), default=0)
        is_saved = not row.is_saving and newest >= max(1, wish.step)
        if is_saved or time.time() - wish.asked_at > _SAVE_PATIENCE_S:
            await self._interrupt(row)
            await self._note(row.job_id, settled)

    async def _status(self, row: Row) -> JobStatus:
        """Return how a job really stands."""
        if row.status == "running" and await self._is_dead(row):
            return "stopped" if row.stop else "failed"
        if row.status == "stopped" and (await self._note(row.job_id)).was_lost:
            return "failed"
        if row.status == "stopped" and await self._sight.is_trained(row):
            # The row says so as soon as the signal is sent; until the process is gone its folder is not free.
            return "running"
        return row.status

    async def _describe(self, row: Row, rows: list[Row]) -> TrainerJob:
        seen = await self._sight.of(row)
        status = await self._status(row)
        document = row.document
        return TrainerJob(
            job_id=row.job_id,
            name=row.name,
            config_name=row.name,
            status=status,
            engine=self.engine,
            gpu_ids=row.gpu_ids,
            total_steps=document.steps if document else 0,
            output_folder=seen.folder,
            prompts=document.prompts if document else (),
            created_at=row.created_at,
            started_at=None if status == "queued" else seen.started_at,
            ended_at=seen.log_changed_at if status in ENDED and seen.started_at else None,
            queue_position=place_of(row, rows) if status == "queued" else None,
            stop_requested=status == "running" and (row.stop or (await self._note(row.job_id)).stop_wish is not None),
            returncode=row.returncode,
            signal_name=row.signal_name,
            start_error=row.start_error,
            dataset_paths=document.dataset_paths if document else (),
        )

    async def _refuse_unfit(self, document: TrainingDocument) -> None:
        kind = document.process.get("type")
        if kind != "diffusion_trainer":
            raise InvalidArguments(
                f"The process type is {kind!r}; AI Toolkit's server follows only `diffusion_trainer`.",
                hint="Create the config again with create-training-config.",
                details={"field": "type", "value": kind, "closest_matches": ["diffusion_trainer"]},
            )
        folder = (await self._http.folders()).training
        if document.training_folder.rstrip("/") != folder.rstrip("/"):
            raise InvalidArguments(
                f"`training_folder` is {document.training_folder}, but AI Toolkit saves to {folder}: log and LoRA would"
                " lie in different folders.",
                hint="Create the config again with create-training-config; if AI Toolkit's settings were changed,"
                " restart this server first.",
                details={"field": "training_folder", "value": document.training_folder, "allowed": folder},
            )

    async def _refuse_taken(self, row: Row) -> None:
        status = await self._status(row)
        details = {"job_id": row.job_id, "status": status, "name": row.name}
        if status not in ENDED:
            raise Conflict(
                f"Job `{row.job_id}` is {status} and writes to the same output folder ({row.name}).",
                hint="Wait for it with wait-training, end it with stop-training, or create a config with another name.",
                details=details,
            )
        if not (await self._note(row.job_id)).is_ours:
            raise Conflict(
                f"AI Toolkit already has a job `{row.name}` ({status}), which this server did not order.",
                hint="Create a config with another name, or let that job go on with resume-training.",
                details=details,
            )
        if row.status == "running":
            await self._repair(row)

    async def _start(self, job_id: str) -> None:
        """Queue a job and start its queue; wait a moment for the worker, which has to take it up by itself."""
        row = await self._jobs.change(job_id, "start")
        if not row.is_active:
            raise self._http.strange(f"/api/jobs/{job_id}/start", f"the job is not queued but {row.status}")
        await self._jobs.start_queue(row.gpu_ids)
        with anyio.move_on_after(_START_PATIENCE_S):
            while row.status == "queued":
                others = [other for other in await self._jobs.all() if other.gpu_ids == row.gpu_ids]
                if any(other.status == "running" for other in others) or place_of(row, others) > 1:
                    return
                await anyio.sleep(_LOOK_EVERY_S)
                row = await self._jobs.find(job_id)
                if row.status == "queued":
                    # A queue stops itself when it is empty, which may have been just before the job came.
                    await self._jobs.start_queue(row.gpu_ids)

    async def _interrupt(self, row: Row) -> None:
        after = await self._jobs.change(row.job_id, "stop")
        if after.status == "running" and await self._is_dead(after):
            await self._repair(after)

    async def _is_dead(self, row: Row) -> bool:
        """Tell whether no process does the work of a row that says running."""
        is_trained = await self._sight.is_trained(row)
        if is_trained is None:
            return row.stop and time.time() - row.updated_at > _STOP_PATIENCE_S
        if is_trained or row.pid is None or not await self._sight.is_quiet(row):
            return False
        # It may have ended properly between the answer and the look.
        return (await self._jobs.find(row.job_id)).status == "running"

    async def _repair(self, row: Row) -> None:
        """Take a row whose process is gone out of the way of its queue."""
        log.warning("a training job has lost its process", extra={"job_id": row.job_id, "pid": row.pid})
        if not row.stop:
            await self._note(row.job_id, lost)
        await self._jobs.change(row.job_id, "mark_stopped")

    async def _note(self, job_id: str, change: Callable[[Note], Note] | None = None) -> Note:
        if change is None:
            return await to_thread.run_sync(self._notes.get, job_id)
        return await to_thread.run_sync(self._notes.change, job_id, change)


def _not_running(row: Row, status: JobStatus) -> Conflict:
    return Conflict(
        f"Job `{row.job_id}` is not running: it is {status}.",
        hint="list-training-jobs shows what runs; what it saved stays.",
        details={"job_id": row.job_id, "status": status},
    )
