"""Train by a command line: AI Toolkit's `run.py`, or the embedded trainer, which takes the same arguments."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import to_thread

from aitk_mcp.loss_log import FILE_NAME as LOSS_FILE
from aitk_mcp.loss_log import LossPoint, read_points
from aitk_mcp.trainers.job_folders import JobFolder, JobFolders, read_log
from aitk_mcp.trainers.output_folder import read_checkpoints, read_samples
from aitk_mcp.trainers.port import ENDED, Checkpoint, JobLog, JobStatus, Order, Sample, TrainerJob
from aitk_mcp.trainers.run_folder import Exit, Launch, RunFolder, StopRequest
from mcp_toolserver.errors import BackendUnavailable, Conflict

# What is printed must reach the log at once, and in UTF-8, whatever the locale.
_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
# GPU ids are nvidia-smi's; the paths of this server's Python are none of AI Toolkit's.
_AI_TOOLKIT_ENVIRONMENT = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTHONPATH": ""}
# More threads than free cores slow numpy down many times over on matrices as small as tinyflux's.
_EMBEDDED_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
_KEEPER_START_S = 60


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """How a trainer is started: the command before the config's path, and the folder that it runs in.

    `saves_on_signal`: SIGUSR1 makes it save. `only_slot`: it uses no GPU, and one job runs at a time.
    """

    engine: str
    command: tuple[str, ...]
    working_folder: Path
    environment: Mapping[str, str]
    saves_on_signal: bool = False
    only_slot: str | None = None

    @classmethod
    def ai_toolkit(cls, folder: Path, python: Path | None = None) -> "CommandLine":
        """Return AI Toolkit's own; its virtual environment's Python where it has one and none is given."""
        own = [folder / "venv" / "bin" / "python", folder / ".venv" / "bin" / "python"]
        chosen = python or next((path for path in own if path.exists()), Path(sys.executable))
        return cls(
            engine="cli",
            command=(str(chosen), str(folder / "run.py")),
            working_folder=folder,
            environment=_AI_TOOLKIT_ENVIRONMENT,
        )

    @classmethod
    def embedded(cls, folder: Path) -> "CommandLine":
        """Return the embedded trainer's."""
        return cls(
            engine="embedded",
            command=(sys.executable, "-m", "aitk_mcp.embedded.run"),
            working_folder=folder,
            environment=_EMBEDDED_ENVIRONMENT,
            saves_on_signal=True,
            only_slot="cpu",
        )


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
        self._default_gpu_ids = default_gpu_ids
        self._stop_patience_s = stop_patience_s

    @property
    def engine(self) -> str:
        """Return `cli` or `embedded`."""
        return self._command_line.engine

    @property
    def can_save(self) -> bool:
        """Tell whether a running job can be asked to save."""
        return self._command_line.saves_on_signal

    async def submit(self, order: Order) -> str:
        """Queue a job and start it if its GPU is free; return its id. Raise Conflict if its output is being written."""
        return await to_thread.run_sync(self._submit, order)

    async def job(self, job_id: str) -> TrainerJob:
        """Return a job as it is now."""
        return await to_thread.run_sync(self._job, job_id)

    async def jobs(self) -> list[TrainerJob]:
        """Return every job, newest first."""
        return await to_thread.run_sync(self._jobs)

    async def stop(self, job_id: str, *, save: bool) -> None:
        """Ask a job to end, after saving where that is wanted and possible; it may end later."""
        await to_thread.run_sync(partial(self._stop, job_id, save=save))

    async def save(self, job_id: str) -> None:
        """Ask a running job to save; raise Conflict where it cannot."""
        await to_thread.run_sync(self._save, job_id)

    async def resume(self, job_id: str) -> None:
        """Queue a job that has ended again; it goes on from its newest checkpoint."""
        await to_thread.run_sync(self._resume, job_id)

    async def log(self, job_id: str, *, max_bytes: int) -> JobLog:
        """Return at most `max_bytes` of each end of the log of the latest run."""
        return await to_thread.run_sync(lambda: read_log(self._folders.find(job_id).run, max_bytes))

    async def losses(self, job_id: str) -> list[LossPoint]:
        """Return the loss of each step that the trainer recorded; empty where it records none."""
        return await to_thread.run_sync(lambda: read_points(self._folders.find(job_id).output_folder / LOSS_FILE))

    async def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Return the saved LoRAs, oldest step first."""
        return await to_thread.run_sync(self._checkpoints, job_id)

    async def samples(self, job_id: str) -> list[Sample]:
        """Return the pictures, oldest first."""
        return await to_thread.run_sync(lambda: read_samples(self._folders.find(job_id).output_folder))

    async def tend(self) -> None:
        """Start what can be started, and end what was asked to end and did not."""
        await to_thread.run_sync(self._tend)

    def _submit(self, order: Order) -> str:
        document = order.document
        output_folder = self._command_line.working_folder / document.training_folder / document.name
        gpu_ids = self._command_line.only_slot or order.gpu_ids or self._default_gpu_ids
        with self._folders.locked():
            self._refuse_shared_output(output_folder)
            job = self._folders.create(order, output_folder, partial(self._launch, gpu_ids))
            self._start_waiting()
        return job.order.job_id

    def _launch(self, gpu_ids: str, config: Path, log: Path) -> Launch:
        environment = {**_ENVIRONMENT, **self._command_line.environment}
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
        position = self._queue().index(job_id) + 1 if status == "queued" else None
        return self._describe(job, status, ended, position)

    def _jobs(self) -> list[TrainerJob]:
        known = [(job, *job.status()) for job in self._folders.all()]
        waiting = [job for job, status, _ in known if status == "queued"]
        position = {job.order.job_id: place for place, job in enumerate(_in_turn(waiting), start=1)}
        return [self._describe(job, status, ended, position.get(job.order.job_id)) for job, status, ended in known]

    def _queue(self) -> Sequence[str]:
        waiting = [job for job in self._folders.all() if job.status()[0] == "queued"]
        return [job.order.job_id for job in _in_turn(waiting)]

    def _describe(self, job: JobFolder, status: JobStatus, ended: Exit | None, position: int | None) -> TrainerJob:
        order, run = job.order, job.run
        return TrainerJob(
            job_id=order.job_id,
            name=order.name,
            config_name=order.config_name,
            status=status,
            engine=self.engine,
            gpu_ids=run.launch().gpu_ids,
            total_steps=order.total_steps,
            output_folder=job.output_folder,
            prompts=order.prompts,
            created_at=order.created_at,
            started_at=run.started_at(),
            ended_at=ended.ended_at if ended else None,
            queue_position=position,
            stop_requested=run.stop_request() is not None,
            returncode=ended.returncode if ended else None,
            signal_name=ended.signal_name if ended else None,
            start_error=ended.start_error if ended else None,
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
                if save and self.can_save:
                    run.send(signal.SIGUSR1)
                run.send(signal.SIGINT)

    def _save(self, job_id: str) -> None:
        job = self._folders.find(job_id)
        status, _ = job.status()
        if not self.can_save:
            raise Conflict(
                "AI Toolkit's command line cannot be asked to save: it saves every `save_every` steps.",
                hint="Set `save_every` lower in the training config; list-training-jobs shows the newest checkpoint.",
                details={"job_id": job_id, "engine": self.engine},
            )
        if status != "running" or not job.run.send(signal.SIGUSR1):
            raise Conflict(
                f"Job `{job_id}` is not running: it is {status}.",
                hint="What it saved stays: get-training-status names the newest checkpoint.",
                details={"job_id": job_id, "status": status},
            )

    def _resume(self, job_id: str) -> None:
        job = self._folders.find(job_id)
        with self._folders.locked():
            status, _ = job.status()
            if status not in ("failed", "stopped"):
                raise Conflict(
                    f"Job `{job_id}` is {status}; only a failed or stopped job can be resumed.",
                    hint="To train further, raise `steps` in the training config and call start-training:"
                    " it goes on from the newest checkpoint.",
                    details={"job_id": job_id, "status": status},
                )
            self._refuse_shared_output(job.output_folder)
            job.add_run(partial(self._launch, job.run.launch().gpu_ids))
            self._start_waiting()

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
        if not self._folders.root.is_dir():
            return
        with self._folders.locked():
            for job in self._folders.all():
                if job.status()[0] == "running":
                    self._press(job.run)
            self._start_waiting()

    def _press(self, run: RunFolder) -> None:
        """End a job that was asked to end long ago: a trainer that hangs in a driver does not hear SIGINT."""
        request = run.stop_request()
        if request is None:
            return
        waited_s = time.time() - request.requested_at
        if waited_s > 2 * self._stop_patience_s:
            run.send(signal.SIGKILL)
        elif waited_s > self._stop_patience_s:
            run.send(signal.SIGTERM)

    def _start_waiting(self) -> None:
        """Start each job whose GPUs are free and that no earlier job waits for; the queue is held."""
        known = [(job, job.status()[0]) for job in self._folders.all()]
        taken = {gpu for job, status in known if status == "running" for gpu in _gpus(job)}
        for job in _in_turn(job for job, status in known if status == "queued"):
            wanted = _gpus(job)
            if not taken & wanted:
                self._start(job.run)
            # Where it has to wait, later jobs must not overtake it on the GPUs that it waits for.
            taken |= wanted

    def _start(self, run: RunFolder) -> None:
        command = [sys.executable, "-m", "aitk_mcp.trainers.keeper", str(run.path)]
        with run.log.open("ab") as log:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=_KEEPER_START_S,
                check=False,
            )
        if done.returncode != 0:
            raise BackendUnavailable(
                "The trainer could not be started.",
                hint=f"{run.log} has the cause.",
                details={"exit_code": done.returncode},
            )


def _in_turn(jobs: Iterable[JobFolder]) -> list[JobFolder]:
    return sorted(jobs, key=lambda job: (job.run.launch().queued_at, job.order.job_id))


def _gpus(job: JobFolder) -> set[str]:
    return {part.strip() for part in job.run.launch().gpu_ids.split(",") if part.strip()}
