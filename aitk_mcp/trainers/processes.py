"""Know a process again: a pid alone may have been given to another program since."""

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process by its pid and its birth (boot and start time), which no two processes share."""

    pid: int
    born: str


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of a living process, or None; one that has ended and was not waited for is not alive."""
    born = _born_by_proc(pid) if _BOOT_ID.exists() else _born_by_ps(pid)
    return ProcessIdentity(pid, born) if born else None


def is_alive(identity: ProcessIdentity) -> bool:
    """Tell whether this very process still runs."""
    return identify(identity.pid) == identity


def signal_group(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to the group that this process leads; False where it has ended."""
    if not is_alive(identity):
        return False
    try:
        os.killpg(identity.pid, number)
    except ProcessLookupError:
        return False
    return True


def _born_by_proc(pid: int) -> str | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold blanks and parentheses itself; the fields after it are numbered from 3.
    fields = stat[stat.rindex(")") + 2 :].split()
    state, start_ticks = fields[0], fields[19]
    if state in ("Z", "X"):
        return None
    return f"{_BOOT_ID.read_text().strip()}:{start_ticks}"


def _born_by_ps(pid: int) -> str | None:
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    state, _, start = answer.stdout.strip().partition(" ")
    return start.strip() if state and not state.startswith("Z") else None
