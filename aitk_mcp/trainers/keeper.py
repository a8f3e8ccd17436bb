"""Keep one trainer: start it, outlive the server, and write down how it ended.

`python -m aitk_mcp.trainers.keeper RUN_FOLDER` returns once the trainer runs (or could not be started); a copy of
itself stays behind in a session of its own, so that neither the server's death nor a closed terminal reaches it.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from aitk_mcp.trainers.processes import ProcessIdentity, identify
from aitk_mcp.trainers.run_folder import Exit, RunFolder


def main() -> int:
    """Start the trainer of a run and leave its keeper behind; the exit code is 0 once its state is on disk."""
    run = RunFolder(Path(sys.argv[1]))
    ready, started = os.pipe()
    if os.fork():
        os.close(started)
        # Ends when the keeper closes its side: after it wrote process.json or exit.json, or died.
        os.read(ready, 1)
        return 0
    os.close(ready)
    os.setsid()
    keep(run, started)
    return 0


def keep(run: RunFolder, started: int) -> None:
    """Run the trainer to its end; `started` is closed once that is under way."""
    lock = os.open(run.lock, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    if run.trainer() or run.exit() or run.stop_request():
        return
    _stand_signals()
    launch = run.launch()
    with run.log.open("ab") as log:
        try:
            trainer = subprocess.Popen(
                launch.command,
                cwd=launch.working_folder,
                env={**os.environ, **launch.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except OSError as error:
            run.write_exit(Exit(ended_at=time.time(), start_error=f"{error.strerror}: {error.filename}"))
            return
    # A trainer that has already ended has no birth to read any more, but its pid is still ours: we wait for it below.
    run.write_process(identify(trainer.pid) or ProcessIdentity(trainer.pid, "ended"), time.time())
    os.close(started)
    returncode = trainer.wait()
    run.write_exit(Exit(ended_at=time.time(), returncode=returncode))


def _stand_signals() -> None:
    """Let the signals that mean the trainer pass by.

    Handlers of one's own, unlike SIG_IGN, are not inherited: the trainer must still be ended by SIGINT. SIGUSR1 and
    SIGUSR2, which ask a trainer to save and to sample, must not kill one that has not yet come to install its handlers:
    those are inherited.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _pass_by)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _pass_by(number: int, frame: FrameType | None) -> None:
    """Take no notice of a signal."""


if __name__ == "__main__":
    sys.exit(main())
