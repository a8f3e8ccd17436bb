"""See from outside whether a job of AI Toolkit's server still has its process. Blocks.

The row's pid proves nothing: it may have been given to another program, and a container counts its own. Every
trainer's command line names its job's config file, and that is visible to the whole machine.
"""

import subprocess
from pathlib import Path

_PROC = Path("/proc")


def is_trained(config_path: str) -> bool | None:
    """Tell whether a process on this machine trains from that config file; None where that cannot be seen."""
    lines = _command_lines_by_proc() if _PROC.is_dir() else _command_lines_by_ps()
    return None if lines is None else any(config_path in line for line in lines)


def _command_lines_by_proc() -> list[str] | None:
    if not (_PROC / "1").exists():
        # Hidden from this user, as everybody else's processes then are.
        return None
    lines: list[str] = []
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                lines.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return lines


def _command_lines_by_ps() -> list[str] | None:
    try:
        answer = subprocess.run(["ps", "-axww", "-o", "command="], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return answer.stdout.splitlines() if answer.returncode == 0 else None
