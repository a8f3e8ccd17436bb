"""Decide which job may run: first come first served on each GPU. All methods block; hold the queue while you call."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterable

from aitk_mcp.trainers.job_folders import JobFolder, JobFolders
from aitk_mcp.trainers.run_folder import Exit
from aitk_mcp.trainers.unsharing import unshare

_KEEPER_START_S = 60


class JobQueue:
    """The waiting and running jobs of a folder."""

    def __init__(self, folders: JobFolders, stop_patience_s: float) -> None:
        """Take how long a job that was asked to stop may take before it is ended harder."""
        self._folders = folders
        self._stop_patience_s = stop_patience_s

    def place_of(self, job_id: str) -> int | None:
        """Return the place of a waiting job, 1 for the next; None where it waits no more."""
        waiting = in_turn(job for job in self._folders.all() if job.status()[0] == "queued")
        ids = [job.order.job_id for job in waiting]
        return ids.index(job_id) + 1 if job_id in ids else None

    def start_waiting(self) -> None:
        """Start each job whose GPUs are free and that no earlier job waits for."""
        known = [(job, job.status()[0]) for job in self._folders.all()]
        taken = {gpu for job, status in known if status == "running" for gpu in _gpus(job)}
        for job in in_turn(job for job, status in known if status == "queued"):
            wanted = _gpus(job)
            if not taken & wanted:
                _start(job)
            # Where it has to wait, later jobs must not overtake it on the GPUs that it waits for.
            taken |= wanted

    def press_stopping(self) -> None:
        """End what was asked to end long ago: a trainer that hangs in a driver does not hear SIGINT."""
        for job in self._folders.all():
            if job.status()[0] != "running":
                continue
            run = job.run
            request = run.stop_request()
            waited_s = time.time() - request.requested_at if request else 0.0
            if waited_s > 2 * self._stop_patience_s:
                run.send(signal.SIGKILL)
            elif waited_s > self._stop_patience_s:
                run.send(signal.SIGTERM)


def in_turn(jobs: Iterable[JobFolder]) -> list[JobFolder]:
    """Return waiting jobs, the next one first."""
    return sorted(jobs, key=lambda job: (job.run.launch().queued_at, job.order.job_id))


def _gpus(job: JobFolder) -> set[str]:
    return {part.strip() for part in job.run.launch().gpu_ids.split(",") if part.strip()}


def _start(job: JobFolder) -> None:
    run = job.run
    try:
        unshare(job.output_folder)
    except OSError as error:
        reason = f"its earlier LoRAs are linked elsewhere and could not be copied ({error.strerror})"
        run.write_exit(Exit(ended_at=time.time(), start_error=reason))
        return
    command = [sys.executable, "-m", "aitk_mcp.trainers.keeper", str(run.path)]
    with run.log.open("ab") as log:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=_KEEPER_START_S, check=False
        )
    if done.returncode != 0:
        error = f"the process that watches over it ended with exit code {done.returncode}; the job's log has the cause"
        run.write_exit(Exit(ended_at=time.time(), start_error=error))
