"""The files of one run of a job, from which its state is derived.

    <jobs>/<job id>/
      job.json              what was ordered; never changes
      config.yaml           the config document as it was then
      runs/0001/            the first run; a resume makes 0002
        launch.json         when it was queued, the GPU it wants, the command
        lock                held by the keeper for as long as it lives
        process.json        the trainer, by pid and birth: it has been started
        stop.json           somebody asked for the end
        log.txt             all that the trainer prints: its log, and what libraries write beside it
        trainer.log         what it writes to --log itself
        exit.json           how it ended

The keeper, a process that must start quickly and outlive the server, uses this module too: standard library only.
"""

import fcntl
import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from aitk_mcp.trainers.processes import ProcessIdentity, is_alive, signal_group

RunStatus = Literal["queued", "running", "ended"]


@dataclass(frozen=True, slots=True)
class Launch:
    """What starts a run: Unix times in seconds, the GPU ids it occupies, and the process."""

    queued_at: float
    gpu_ids: str
    command: tuple[str, ...]
    working_folder: str
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Somebody asked for the end of a run, at a Unix time, with or without saving first."""

    requested_at: float
    save: bool


@dataclass(frozen=True, slots=True)
class Exit:
    """How a run ended: an exit code, a signal, or why it could not be started; all None where nobody saw it."""

    ended_at: float | None = None
    returncode: int | None = None
    start_error: str | None = None

    @property
    def signal_name(self) -> str | None:
        """Return the name of the signal that ended the process, or None."""
        if self.returncode is None or self.returncode >= 0:
            return None
        return signal.Signals(-self.returncode).name


class RunFolder:
    """Read and write the files of one run; all methods block for a moment."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def log(self) -> Path:
        """Return where the trainer's standard output and error go.

        Not its `--log` file: that begins after the imports, and lacks what a library in C prints as it dies.
        """
        return self.path / "log.txt"

    @property
    def trainer_log(self) -> Path:
        """Return what the trainer takes as `--log`."""
        return self.path / "trainer.log"

    @property
    def lock(self) -> Path:
        """Return the file that the keeper locks while it lives."""
        return self.path / "lock"

    def launch(self) -> Launch:
        """Return what starts this run."""
        found = read_json(self.path / "launch.json")
        if found is None:
            raise FileNotFoundError(self.path / "launch.json")
        found["command"] = tuple(found["command"])
        return Launch(**found)

    def write_launch(self, launch: Launch) -> None:
        """Record what starts this run."""
        write_json(self.path / "launch.json", asdict(launch))

    def trainer(self) -> ProcessIdentity | None:
        """Return the trainer's process, or None where it has not been started."""
        found = read_json(self.path / "process.json")
        return ProcessIdentity(**found["trainer"]) if found else None

    def started_at(self) -> float | None:
        """Return when the trainer was started, as a Unix time."""
        found = read_json(self.path / "process.json")
        return found["started_at"] if found else None

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to the trainer and the processes that it started; False where it does not run."""
        trainer = self.trainer()
        return trainer is not None and signal_group(trainer, number)

    def write_process(self, trainer: ProcessIdentity, started_at: float) -> None:
        """Record the trainer's process."""
        write_json(self.path / "process.json", {"trainer": asdict(trainer), "started_at": started_at})

    def stop_request(self) -> StopRequest | None:
        """Return the request to stop, or None."""
        found = read_json(self.path / "stop.json")
        return StopRequest(**found) if found else None

    def write_stop(self, request: StopRequest) -> None:
        """Record a request to stop."""
        write_json(self.path / "stop.json", asdict(request))

    def exit(self) -> Exit | None:
        """Return how the run ended, or None where no keeper wrote it down."""
        found = read_json(self.path / "exit.json")
        return Exit(**found) if found else None

    def write_exit(self, exit_: Exit) -> None:
        """Record how the run ended."""
        write_json(self.path / "exit.json", asdict(exit_))

    def is_kept(self) -> bool:
        """Tell whether a keeper holds this run; ask only once it runs, or the question could keep the keeper out."""
        try:
            handle = os.open(self.lock, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def status(self) -> tuple[RunStatus, Exit | None]:
        """Derive how the run stands; an end that nobody recorded is an Exit without a code."""
        if ended := self.exit():
            return "ended", ended
        trainer = self.trainer()
        if trainer is None:
            return ("ended", Exit()) if self.stop_request() else ("queued", None)
        if is_alive(trainer) or self.is_kept():
            return "running", None
        # The keeper may have written it between our first look and its own end.
        return "ended", self.exit() or Exit()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, or None where the file does not exist."""
    try:
        return cast(dict[str, Any], json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object that a reader finds whole or not at all, also after a power cut."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
