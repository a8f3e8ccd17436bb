"""The worker of a stand-in for AI Toolkit's server: it runs what is queued, with the embedded trainer for a trainer.

The real trainer writes its row by itself; the embedded one does not know of it, so the worker reads the log instead.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from aitk_mcp.job_log import Progress, read_progress
from tests.fakes.aitk_ui_jobs import Job, Tables
from tests.fakes.scripted_trainer import ScriptedTrainer

_TICK_S = 0.05
_HEARS_WITHIN_S = 2.0
_SAVED = re.compile(r"^Saved checkpoint to ", re.MULTILINE)
_SAVING = re.compile(r"^Saving at step (\d+)$", re.MULTILINE)
_ERROR = re.compile(r"^Error running job: (.*)$", re.MULTILINE)
_WORDS = {"loading model": "Loading model", "loading dataset": "Loading dataset", "training": "Training"}


class Child(Protocol):
    """A running trainer."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self) -> int | None: ...

    def kill(self) -> None: ...

    def send_signal(self, number: int, /) -> None: ...


class Worker:
    """Start the next job of each running queue, and follow those that run."""

    def __init__(self, tables: Tables, training_folder: Path, root: Path) -> None:
        self.tables = tables
        self.training_folder = training_folder
        self.command = [sys.executable, "-m", "aitk_mcp.embedded.run"]
        self._root = root
        self._processes: dict[str, Child] = {}
        self._unwatched: list[Child] = []
        self._saves: dict[str, int] = {}
        self._told: set[str] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_TICK_S)

    def look(self) -> None:
        """Start what is due, and write into the rows what the trainers have done."""
        for queue in list(self.tables.queues.values()):
            self._process(queue.gpu_ids)
        for job_id in list(self._processes):
            self._follow(job_id)

    def living(self) -> list[int]:
        """Return the pids of the trainers that have not ended."""
        return [each.pid for each in [*self._processes.values(), *self._unwatched] if each.poll() is None]

    def forget(self) -> None:
        """Watch no running process any more, as a worker that was killed and started again."""
        self._unwatched += self._processes.values()
        self._processes.clear()

    def lose(self, pid: int) -> None:
        """Let a trainer die unseen: its row says running from now on. Blocks until it is dead."""
        self.forget()
        process = next(process for process in self._unwatched if process.pid == pid)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End what still runs."""
        self.forget()
        for process in self._unwatched:
            process.kill()
            process.wait()

    def interrupt(self, job: Job) -> None:
        """Do what the route `stop` does after it has set the flag: signal the pid, and believe the row ended if it is.

        A dead trainer's pid is nobody's; here it is that of a child that was not waited for, and is none of the living.
        """
        living = [*self._processes.values(), *self._unwatched]
        process = next((each for each in living if each.pid == job.pid and each.poll() is None), None)
        if process is not None:
            process.send_signal(signal.SIGINT)
            job.change(status="stopped", info="Job stopped")

    def log_of(self, job: Job) -> Path:
        """Return the log of a job's latest run."""
        return self.training_folder / job.name / "log.txt"

    def _is_overdue(self, job: Job) -> bool:
        """Tell whether the trainer has had its time to hear the signal; where none was sent it has."""
        if job.status == "running":
            return True
        return (datetime.now(UTC) - datetime.fromisoformat(job.updated_at)).total_seconds() > _HEARS_WITHIN_S

    def _process(self, gpu_ids: str) -> None:
        queue = self.tables.queues[gpu_ids]
        jobs = [job for job in self.tables.jobs.values() if job.gpu_ids == gpu_ids]
        running = [job for job in jobs if job.status in ("running", "stopping")]
        if not queue.is_running:
            for job in running:
                if not job.return_to_queue:
                    job.change(return_to_queue=True, info="Stopping job...")
            return
        waiting = sorted((job for job in jobs if job.status == "queued"), key=lambda job: job.queue_position)
        if running:
            return
        if waiting:
            self._start(waiting[0])
        else:
            queue.is_running = False

    def _start(self, job: Job) -> None:
        deaf = self._processes.pop(job.id, None)
        if deaf is not None:
            # Its row says stopped, yet an import swallowed the signal: two trainers must not share a folder.
            deaf.kill()
            deaf.wait()
        job.change(status="running", stop=False, return_to_queue=False, info="Starting job...")
        folder = self.training_folder / job.name
        folder.mkdir(parents=True, exist_ok=True)
        log = self.log_of(job)
        if log.exists():
            logs = folder / "logs"
            logs.mkdir(exist_ok=True)
            log.rename(logs / f"{len(list(logs.iterdir()))}_log.txt")
        config: Any = json.loads(job.job_config)
        process = config["config"]["process"][0]
        process["sqlite_db_path"] = str(self._root / "aitk_db.db")
        # The trainer that stands in has one model only.
        process["model"] = {**process["model"], "arch": "flux"}
        path = folder / ".job_config.json"
        path.write_text(json.dumps(config, indent=2))
        try:
            child = self._launched(job, path, log)
        except OSError as error:
            message = f"Error launching job process: {error}"
            log.write_text(f"{message}\n")
            job.change(status="error", info=message, pid=None)
            return
        self._processes[job.id] = child
        job.change(pid=child.pid)
        (folder / "pid.txt").write_text(str(child.pid))

    def _launched(self, job: Job, config: Path, log: Path) -> Child:
        environment = {**os.environ, "AITK_JOB_ID": job.id, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
        with log.open("ab") as out:
            return subprocess.Popen(
                [*self.command, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._root,
                env=environment,
                start_new_session=True,
            )

    def _follow(self, job_id: str) -> None:
        process = self._processes[job_id]
        returncode = process.poll()
        job = self.tables.jobs.get(job_id)
        if job is None:
            # Its row was deleted while it ran; nobody stops it.
            return
        text = self.log_of(job).read_text(errors="replace") if self.log_of(job).exists() else ""
        if returncode is not None:
            del self._processes[job_id]
            self._saves.pop(job_id, None)
            self._told.discard(job_id)
            self._end(job, returncode, text)
            return
        progress = read_progress(text, json.loads(job.job_config)["config"]["name"])
        if job.status == "running":
            self._tell(job, progress, len(_SAVED.findall(text)))
        is_asked = job.stop or (job.return_to_queue and job.status == "running")
        if is_asked and progress.phase == "training" and job_id not in self._told and self._is_overdue(job):
            # The real trainer reads the flags at each step, also where an import swallowed the signal.
            process.send_signal(signal.SIGINT)
            self._told.add(job_id)
            if job.stop:
                job.status, job.info = "stopped", "Job stopped"

    def _tell(self, job: Job, progress: Progress, saves: int) -> None:
        """Write into the row what the trainer would."""
        job.step = progress.step or job.step
        job.speed_string = progress.speed or job.speed_string
        if job.stop or job.return_to_queue:
            return
        if job.id in self._saves:
            if saves > self._saves[job.id]:
                del self._saves[job.id]
            else:
                job.info = "Saving model"
                return
        if progress.phase != "training":
            if progress.phase == "sampling":
                job.info = "Generating images - 0/1"
            job.info = _WORDS.get(progress.phase, job.info)
            return
        job.info = "Training"
        if job.sample_now and progress.step:
            job.sample_now = False
            self._processes[job.id].send_signal(signal.SIGUSR2)
        if job.save_now and progress.step:
            # The flag falls before the file is written.
            job.save_now, job.info = False, "Saving model"
            self._saves[job.id] = saves
            self._processes[job.id].send_signal(signal.SIGUSR1)

    def _end(self, job: Job, returncode: int, text: str) -> None:
        saved = [int(step) for step in _SAVING.findall(text)]
        if returncode == 0 and "\nJob stopped\n" in text:
            if job.return_to_queue and not job.stop:
                job.status, job.info = "queued", "Job queued"
            else:
                job.step = saved[-1] if saved else 0
        elif returncode == 0:
            steps = json.loads(job.job_config)["config"]["process"][0]["train"]["steps"]
            job.status, job.info, job.step = "completed", "Training completed", steps
        else:
            how = f"signal {signal.Signals(-returncode).name}" if returncode < 0 else f"exit code {returncode}"
            message = f"Job process terminated with {how}."
            with self.log_of(job).open("a") as log:
                log.write(f"\n{message}\n")
            own = _ERROR.findall(text)
            if job.status == "running" and own:
                job.status, job.info = "error", own[-1]
                job.step = saved[-1] if saved else 0
            elif job.status == "running":
                job.change(status="error", info=message, pid=None)


class SteppedWorker(Worker):
    """Work only when told to, with trainers that do one thing each time."""

    async def run(self) -> None:
        """Do nothing by itself."""

    def go_on(self) -> None:
        """Let every trainer do its next thing, and see to the queues."""
        for trainer in [*self._processes.values(), *self._unwatched]:
            if isinstance(trainer, ScriptedTrainer):
                trainer.go_on()
        self.look()

    def kill(self, job: Job) -> None:
        """Kill the trainer of a job."""
        self._processes[job.id].kill()

    def _launched(self, job: Job, config: Path, log: Path) -> Child:
        return ScriptedTrainer(config, log)
