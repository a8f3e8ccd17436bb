"""The yardsticks of the shell: copy a file on the disk, send it by curl. Everything here blocks."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

CURL = shutil.which("curl")


def copy_to_disk(source: Path, target: Path) -> None:
    """Copy a file, wait until the disk has it, compute its sha256, and remove the copy."""
    run(["cp", source, target], ["sync", target], ["sha256sum", target])
    target.unlink()


def copy(source: Path, target: Path) -> None:
    """Copy a file, compute its sha256, and remove the copy."""
    run(["cp", source, target], ["sha256sum", target])
    target.unlink()


def curl(source: Path, url: str, *options: str) -> None:
    """Send a file by `curl -T`."""
    assert CURL is not None
    run([CURL, "--silent", "--show-error", "--fail", "--noproxy", "*", *options, "-T", source, url])


def run(*commands: Sequence[str | Path]) -> None:
    """Run commands one after the other; raises CalledProcessError."""
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
