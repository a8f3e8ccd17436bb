"""Keep jobs on disk: what was ordered, and each run of it. Everything else is derived; all methods block."""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from aitk_mcp.job_failures import read_failure
from aitk_mcp.job_log import was_stopped
from aitk_mcp.trainers.output_folder import read_checkpoints
from aitk_mcp.trainers.port import JobLog, JobStatus, Order
from aitk_mcp.trainers.run_folder import Exit, Launch, RunFolder, read_json, write_json
from mcp_toolserver.errors import NotFound, closest

_TAIL_BYTES = 64 * 1024
_LONGEST_SLUG = 40

# From where the config and the log of a run will lie to what starts it.
MakeLaunch = Callable[[Path, Path], Launch]


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """What `job.json` holds."""

    job_id: str
    name: str
    config_name: str
    config_file: str
    engine: str
    total_steps: int
    output_folder: str
    prompts: tuple[str, ...]
    dataset_paths: tuple[str, ...]
    created_at: float


class JobFolder:
    """One job and its runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = read_json(path / "job.json")
        if found is None:
            raise FileNotFoundError(path / "job.json")
        for listed in ("prompts", "dataset_paths"):
            found[listed] = tuple(found.get(listed, ()))
        self.order = StoredOrder(**found)

    @property
    def config(self) -> Path:
        """Return the config document as it was when the job was ordered."""
        return self.path / self.order.config_file

    @property
    def output_folder(self) -> Path:
        """Return where the trainer saves."""
        return Path(self.order.output_folder)

    @property
    def run(self) -> RunFolder:
        """Return the latest run."""
        return RunFolder(max(path for path in (self.path / "runs").iterdir() if path.name.isdigit()))

    def add_run(self, launch: MakeLaunch) -> None:
        """Queue a further run, whole or not at all."""
        number = int(self.run.path.name) + 1
        final = self.path / "runs" / f"{number:04d}"
        _write_run(final.with_name(f".{final.name}.part"), launch(self.config, RunFolder(final).trainer_log)).replace(
            final
        )

    def status(self) -> tuple[JobStatus, Exit | None]:
        """Derive how the job stands from its latest run's files, its log, and what it saved."""
        run = self.run
        status, ended = run.status()
        if status != "ended" or ended is None:
            return ("running" if status == "running" else "queued"), None
        return self._how_it_ended(run, ended), ended

    def _how_it_ended(self, run: RunFolder, ended: Exit) -> JobStatus:
        asked = run.stop_request() is not None
        if run.trainer() is None:
            return "stopped" if asked and ended.start_error is None else "failed"
        tail = read_log(run, _TAIL_BYTES).tail
        if was_stopped(tail) or ended.signal_name == "SIGINT":
            return "stopped"
        if ended.returncode == 0 or (ended.returncode is None and self._is_finished(run)):
            return "completed"
        return "stopped" if asked and read_failure(tail) is None else "failed"

    def _is_finished(self, run: RunFolder) -> bool:
        """Tell whether this run saved its final file, for an end that nobody saw."""
        started = run.started_at() or 0.0
        checkpoints = read_checkpoints(self.output_folder, self.order.name)
        return any(entry.final and entry.path.stat().st_mtime >= started for entry in checkpoints)


class JobFolders:
    """Every job under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, order: Order, engine: str, output_folder: Path, launch: MakeLaunch) -> JobFolder:
        """Write a job with its first run; a reader finds it whole or not at all."""
        self.root.mkdir(parents=True, exist_ok=True)
        job_id = f"{_slug(order.document.name) or 'job'}-{uuid4().hex[:8]}"
        final = self.root / job_id
        work = final.with_name(f".{job_id}.part")
        try:
            self._write(work, final, order, engine, output_folder, launch)
            work.replace(final)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        return JobFolder(final)

    def _write(
        self, work: Path, final: Path, order: Order, engine: str, output_folder: Path, launch: MakeLaunch
    ) -> None:
        work.mkdir()
        config = f"config{order.source.suffix}"
        shutil.copyfile(order.source, work / config)
        stored = StoredOrder(
            job_id=final.name,
            name=order.document.name,
            config_name=order.config_name,
            config_file=config,
            engine=engine,
            total_steps=order.document.steps,
            output_folder=str(output_folder),
            prompts=order.document.prompts,
            dataset_paths=order.document.dataset_paths,
            created_at=time.time(),
        )
        write_json(work / "job.json", asdict(stored))
        first = Path("runs") / "0001"
        _write_run(work / first, launch(final / config, RunFolder(final / first).trainer_log))

    def find(self, job_id: str) -> JobFolder:
        """Return a job; raises NotFound with the closest ids."""
        known = self._ids()
        if job_id not in known:
            # Who gives the name of a config means one of its jobs.
            of_name = [job.order.job_id for job in self.all() if _slug(job.order.name) == _slug(job_id)]
            matches = of_name[:3] or closest(job_id, known)
            cure = f"Did you mean `{matches[0]}`? " if matches else ""
            raise NotFound(
                f"There is no training job `{job_id}`.",
                hint=f"{cure}list-training-jobs shows every job.",
                details={"job_id": job_id, "closest_matches": matches},
            )
        return JobFolder(self.root / job_id)

    def delete(self, job: JobFolder) -> None:
        """Forget a job; a reader finds it whole or not at all."""
        work = job.path.with_name(f".{job.path.name}.part")
        with self._holding(".reading", fcntl.LOCK_EX):
            job.path.rename(work)
        shutil.rmtree(work)

    def all(self) -> list[JobFolder]:
        """Return every job, newest first."""
        jobs = [JobFolder(self.root / job_id) for job_id in self._ids()]
        return sorted(jobs, key=lambda job: (job.order.created_at, job.order.job_id), reverse=True)

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold the queue, so that two servers on one folder cannot start two jobs on one GPU."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._holding(".lock", fcntl.LOCK_EX):
            yield

    @contextmanager
    def undisturbed(self) -> Generator[None]:
        """Read several files of a job, or of all, while none is deleted."""
        if not self.root.is_dir():
            yield
            return
        with self._holding(".reading", fcntl.LOCK_SH):
            yield

    @contextmanager
    def _holding(self, name: str, how: int) -> Generator[None]:
        handle = os.open(self.root / name, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, how)
            yield
        finally:
            os.close(handle)

    def _ids(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return [path.name for path in self.root.iterdir() if path.name[0] != "." and (path / "job.json").is_file()]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST_SLUG].rstrip("-")


def read_log(run: RunFolder, max_bytes: int) -> JobLog:
    """Read both ends of a run's log."""
    try:
        file = run.log.open("rb")
    except FileNotFoundError:
        return JobLog("", "", 0, None)
    with file:
        state = os.fstat(file.fileno())
        head = file.read(max_bytes)
        file.seek(max(0, state.st_size - max_bytes))
        tail = file.read(max_bytes)
    return JobLog(_text(head), _text(tail), state.st_size, state.st_mtime)


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


def _write_run(work: Path, launch: Launch) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    RunFolder(work).write_launch(launch)
    return work
