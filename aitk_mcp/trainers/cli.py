"""Train by a command line: AI Toolkit's `run.py`, or the embedded trainer, which takes the same arguments."""

import errno
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from anyio import to_thread

from aitk_mcp.loss_log import FILE_NAME as LOSS_FILE
from aitk_mcp.loss_log import LossPoint, read_points
from aitk_mcp.trainers.command_lines import CommandLine
from aitk_mcp.trainers.job_folders import JobFolder, JobFolders, read_log
from aitk_mcp.trainers.job_queue import JobQueue, in_turn
from aitk_mcp.trainers.output_folder import delete_outputs, read_checkpoints, read_samples
from aitk_mcp.trainers.port import ENDED, Checkpoint, JobLog, JobStatus, Order, Sample, TrainerJob
from aitk_mcp.trainers.run_folder import Exit, Launch, StopRequest
from mcp_toolserver.errors import BackendUnavailable, Conflict, InsufficientStorage

_T = TypeVar("_T")


class CliTrainer:
    """Run jobs as processes of their own, first come first served on each GPU; the queue is on disk."""

    def __init__(
        self,
        command_line: CommandLine,
        jobs_folder: Path,
        *,
        default_gpu_ids: str = "0",
        stop_patience_s: float = 60.0,
    ) -> None:
        """Take where jobs are kept, and how long a job may take to end before it is ended harder."""
        self._command_line = command_line
        self._folders = JobFolders(jobs_folder)
        self._queue = JobQueue(self._folders, stop_patience_s)
        self._default_gpu_ids = default_gpu_ids

    @property
    def engine(self) -> str:
        """Return `cli` or `embedded`."""
        return self._command_line.engine

    @property
    def can_save(self) -> bool:
        """Tell whether a running job can be asked to save."""
        return self._command_line.heeds_wishes

    @property
    def can_keep_models(self) -> bool:
        """Return True: what is deleted is chosen here."""
        return True

    async def submit(self, order: Order) -> str:
        """Queue a job and start it if its GPU is free; return its id. Raise Conflict if its output is being written."""
        return await to_thread.run_sync(self._submit, order)

    async def job(self, job_id: str) -> TrainerJob:
        """Return a job as it is now."""
        return await self._read(partial(self._job, job_id))

    async def jobs(self) -> list[TrainerJob]:
        """Return every job, newest first."""
        return await self._read(self._jobs)

    async def stop(self, job_id: str, *, save: bool) -> None:
        """Ask a job to end, after saving where that is wanted and possible; it may end later."""
        await to_thread.run_sync(partial(self._stop, job_id, save=save))

    async def save(self, job_id: str) -> None:
        """Ask a running job to save; raise Conflict where it cannot."""
        await to_thread.run_sync(
            partial(
                self._wish,
                job_id,
                signal.SIGUSR1,
                "save: it saves every `save_every` steps",
                "Set `save_every` lower in the training config; list-training-jobs shows the newest checkpoint.",
            )
        )

    async def sample_now(self, job_id: str) -> None:
        """Ask a running job to draw its sample pictures after the next step; raise Conflict where it cannot."""
        await to_thread.run_sync(
            partial(
                self._wish,
                job_id,
                signal.SIGUSR2,
                "draw samples: it draws them every `sample_every` steps",
                "Set `sample_every` lower in the training config, or train on AI Toolkit's server"
                " (AITK_MCP_TRAINER=ui), which draws on demand; list-samples shows what was drawn.",
            )
        )

    async def delete(self, job_id: str, *, models: bool) -> None:
        """Forget a job that has ended, with its log, losses and pictures; with its LoRAs where `models` is set."""
        await to_thread.run_sync(partial(self._delete, job_id, models=models))

    async def resume(self, job_id: str) -> None:
        """Queue a job that has ended again; it goes on from its newest checkpoint."""
        await to_thread.run_sync(self._resume, job_id)

    async def log(self, job_id: str, *, max_bytes: int) -> JobLog:
        """Return at most `max_bytes` of each end of the log of the latest run."""
        return await self._read(lambda: read_log(self._folders.find(job_id).run, max_bytes))

    async def losses(self, job_id: str) -> list[LossPoint]:
        """Return the loss of each step that the trainer recorded; empty where it records none."""
        return await self._read(lambda: read_points(self._folders.find(job_id).output_folder / LOSS_FILE))

    async def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Return the saved LoRAs, oldest step first."""
        return await self._read(partial(self._checkpoints, job_id))

    async def samples(self, job_id: str) -> list[Sample]:
        """Return the pictures, oldest first."""
        return await self._read(lambda: read_samples(self._folders.find(job_id).output_folder))

    async def picture_file(self, sample: Sample) -> Path:
        """Return the file of a picture."""
        return sample.path

    async def tend(self) -> None:
        """Start what can be started, and end what was asked to end and did not."""
        await to_thread.run_sync(self._tend)

    async def _read(self, look: Callable[[], _T]) -> _T:
        def undisturbed() -> _T:
            with self._folders.undisturbed():
                return look()

        return await to_thread.run_sync(undisturbed)

    def _submit(self, order: Order) -> str:
        self._require_program()
        document = order.document
        output_folder = self._command_line.working_folder / document.training_folder / document.name
        gpu_ids = self._command_line.only_slot or order.gpu_ids or self._default_gpu_ids
        with self._folders.locked(), _enough_disk(self._folders.root):
            self._refuse_shared_output(output_folder)
            job = self._folders.create(order, self.engine, output_folder, partial(self._launch, gpu_ids))
            self._queue.start_waiting()
        return job.order.job_id

    def _require_program(self) -> None:
        program = self._command_line.program
        if program is not None and not program.is_file():
            raise BackendUnavailable(
                f"AI Toolkit is not there: {program} does not exist.",
                hint="Set AITK_DIR to a checkout of AI Toolkit, or unset it to train on the embedded engine.",
                details={"program": str(program)},
            )

    def _launch(self, gpu_ids: str, config: Path, log: Path) -> Launch:
        environment = dict(self._command_line.environment)
        if self._command_line.only_slot is None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu_ids
        return Launch(
            queued_at=time.time(),
            gpu_ids=gpu_ids,
            command=(*self._command_line.command, str(config), "--log", str(log)),
            working_folder=str(self._command_line.working_folder),
            environment=environment,
        )

    def _job(self, job_id: str) -> TrainerJob:
        job = self._folders.find(job_id)
        status, ended = job.status()
        place = self._queue.place_of(job_id) if status == "queued" else None
        return self._describe(job, status, ended, place)

    def _jobs(self) -> list[TrainerJob]:
        known = [(job, *job.status()) for job in self._folders.all()]
        waiting = in_turn(job for job, status, _ in known if status == "queued")
        places = {job.order.job_id: place for place, job in enumerate(waiting, start=1)}
        return [self._describe(job, status, ended, places.get(job.order.job_id)) for job, status, ended in known]

    def _describe(self, job: JobFolder, status: JobStatus, ended: Exit | None, place: int | None) -> TrainerJob:
        order, run = job.order, job.run
        return TrainerJob(
            job_id=order.job_id,
            name=order.name,
            config_name=order.config_name,
            status=status,
            engine=order.engine,
            gpu_ids=run.launch().gpu_ids,
            total_steps=order.total_steps,
            output_folder=job.output_folder,
            prompts=order.prompts,
            created_at=order.created_at,
            started_at=run.started_at(),
            ended_at=ended.ended_at if ended else None,
            queue_position=place,
            stop_requested=run.stop_request() is not None,
            returncode=ended.returncode if ended else None,
            signal_name=ended.signal_name if ended else None,
            start_error=ended.start_error if ended else None,
            dataset_paths=order.dataset_paths,
        )

    def _checkpoints(self, job_id: str) -> list[Checkpoint]:
        job = self._folders.find(job_id)
        return read_checkpoints(job.output_folder, job.order.name)

    def _stop(self, job_id: str, *, save: bool) -> None:
        job = self._folders.find(job_id)
        # With the queue held, the job cannot be started between the look at it and the request.
        with self._folders.locked():
            status, _ = job.status()
            if status in ENDED:
                raise Conflict(
                    f"Job `{job_id}` is not running: it is {status}.",
                    hint="list-training-jobs shows what runs.",
                    details={"job_id": job_id, "status": status},
                )
            run = job.run
            if run.stop_request() is None:
                run.write_stop(StopRequest(requested_at=time.time(), save=save))
                if save and self._heeds_wishes(job):
                    run.send(signal.SIGUSR1)
                run.send(signal.SIGINT)

    def _wish(self, job_id: str, number: signal.Signals, refusal: str, cure: str) -> None:
        job = self._folders.find(job_id)
        status, _ = job.status()
        if not self._heeds_wishes(job):
            raise Conflict(
                f"AI Toolkit's command line cannot be asked to {refusal}.",
                hint=cure,
                details={"job_id": job_id, "engine": job.order.engine},
            )
        if status != "running" or not job.run.send(number):
            raise Conflict(
                f"Job `{job_id}` is not running: it is {status}.",
                hint="What it saved stays: get-training-status names the newest checkpoint.",
                details={"job_id": job_id, "status": status},
            )

    def _delete(self, job_id: str, *, models: bool) -> None:
        job = self._folders.find(job_id)
        with self._folders.locked():
            status, _ = job.status()
            if status not in ENDED:
                raise Conflict(
                    f"Job `{job_id}` is {status}; only a job that has ended can be deleted.",
                    hint="End it with stop-training first.",
                    details={"job_id": job_id, "status": status},
                )
            others = (each for each in self._folders.all() if each.order.job_id != job_id)
            if all(each.output_folder != job.output_folder for each in others):
                delete_outputs(job.output_folder, models=models)
            self._folders.delete(job)

    def _resume(self, job_id: str) -> None:
        job = self._folders.find(job_id)
        self._require_program()
        with self._folders.locked(), _enough_disk(self._folders.root):
            status, _ = job.status()
            if status not in ("failed", "stopped"):
                raise Conflict(
                    f"Job `{job_id}` is {status}; only a failed or stopped job can be resumed.",
                    hint="To train further, raise `steps` in the training config and call start-training:"
                    " it goes on from the newest checkpoint.",
                    details={"job_id": job_id, "status": status},
                )
            if job.order.engine != self.engine:
                raise Conflict(
                    f"Job `{job_id}` was trained by the {job.order.engine} engine; this server now uses {self.engine}.",
                    hint="Create a config with another name and start that.",
                    details={"job_id": job_id, "engine": job.order.engine},
                )
            self._refuse_shared_output(job.output_folder)
            job.add_run(partial(self._launch, job.run.launch().gpu_ids))
            self._queue.start_waiting()

    def _heeds_wishes(self, job: JobFolder) -> bool:
        return self._command_line.heeds_wishes and job.order.engine == self.engine

    def _refuse_shared_output(self, output_folder: Path) -> None:
        for other in self._folders.all():
            status, _ = other.status()
            if status not in ENDED and other.output_folder == output_folder:
                raise Conflict(
                    f"Job `{other.order.job_id}` is {status} and writes to the same output folder"
                    f" ({output_folder.name}).",
                    hint="Wait for it with wait-training, end it with stop-training,"
                    " or create a config with another name.",
                    details={"job_id": other.order.job_id, "status": status, "name": other.order.name},
                )

    def _tend(self) -> None:
        if self._folders.root.is_dir():
            with self._folders.locked():
                self._queue.press_stopping()
                self._queue.start_waiting()


@contextmanager
def _enough_disk(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InsufficientStorage(
            f"The disk below {folder} is full; nothing was queued.",
            hint="Delete old models or datasets, then call again.",
            details={"folder": str(folder)},
        ) from error
