"""Let a disk fill up, or become read-only, after each step of an upload in turn: a program of its own.

`python -m tests.unit.uploads.small_disk_loop FAULT FOLDER`; FAULT is `full` or `read-only`, which mount a small file
system over FOLDER and so want a mount namespace of their own (`unshare --mount`), or `quota`, which wants nothing.
Prints how many uploads were refused, and then went on where they were.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio

from comfy_mcp.loras.uploads import LoraUploads
from mcp_toolserver.errors import Forbidden, InsufficientStorage, ToolError
from tests.servers.loras import library_over
from tests.unit.lora_files.files import FLUX_AI_TOOLKIT, pairs, write
from tests.unit.uploads.conftest import UPLOAD_ID
from tests.unit.uploads.disk_fault_loop import Ledger, upload, visible

DISK_BYTES = 2 * 1024 * 1024
LEFT_BYTES = (0, 4096, 3 * 4096, 100_000)


class Quota:
    """Files that may not grow past a size."""

    refusal: type[ToolError] = InsufficientStorage

    def __init__(self, folder: Path) -> None:
        self._most = resource.getrlimit(resource.RLIMIT_FSIZE)

    def spoil(self, received_bytes: int, left_bytes: int) -> None:
        """Let the file of an upload grow by no more than `left_bytes`."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (received_bytes + left_bytes, self._most[1]))

    def mend(self) -> None:
        """Let files grow again."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._most)


class FullDisk:
    """A small disk, most of which something else may take."""

    refusal: type[ToolError] = InsufficientStorage

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ballast = folder / "ballast"
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)

    def spoil(self, received_bytes: int, left_bytes: int) -> None:
        """Leave this much room on the disk."""
        disk = os.statvfs(self._folder)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - left_bytes)

    def mend(self) -> None:
        """Make room."""
        self._ballast.unlink(missing_ok=True)


class ReadOnlyDisk(FullDisk):
    """A disk that may be mounted anew, to be read only."""

    refusal = Forbidden

    def spoil(self, received_bytes: int, left_bytes: int) -> None:
        """Let nobody write."""
        subprocess.run(["mount", "-o", "remount,ro", str(self._folder)], check=True)

    def mend(self) -> None:
        """Let everybody write."""
        subprocess.run(["mount", "-o", "remount,rw", str(self._folder)], check=True)


DISKS = {"quota": Quota, "full": FullDisk, "read-only": ReadOnlyDisk}


class SpoilingLedger(Ledger):
    """Keep acknowledgements, and spoil the disk after the n-th, or before there is any."""

    def __init__(self, nth: int, spoil: Callable[[int], None]) -> None:
        super().__init__()
        self._left = nth
        self._spoil = spoil
        if nth == 0:
            spoil(0)

    @property
    def has_spoiled(self) -> bool:
        """Tell whether there were as many acknowledgements."""
        return self._left <= 0

    def note(self, received_bytes: int) -> None:
        """Keep an acknowledgement."""
        super().note(received_bytes)
        self._left -= 1
        if self._left == 0:
            self._spoil(received_bytes)


async def require_acknowledged(loras: Path, told: Ledger) -> None:
    """Fail unless a caller who asks hears, while the disk refuses, of every byte that was acknowledged."""
    if told.received_bytes:
        status = await LoraUploads(library_over([loras])).status(UPLOAD_ID)
        assert status.received_bytes >= told.received_bytes


def loop(fault: str, folder: Path) -> int:
    """Give every step its turn, with more and less room left; returns how many uploads were refused."""
    data = write(folder / "source.safetensors", pairs(FLUX_AI_TOOLKIT, rank=4)).read_bytes()
    disk = DISKS[fault](folder)
    nth = refused = 0
    while True:
        has_spoiled = False
        for left_bytes in LEFT_BYTES:
            loras = folder / f"{nth}-{left_bytes}" / "loras"
            loras.mkdir(parents=True)
            told = SpoilingLedger(nth, lambda received, left=left_bytes: disk.spoil(received, left))
            try:
                anyio.run(upload, loras, data, told)
            except disk.refusal:
                refused += 1
                anyio.run(require_acknowledged, loras, told)
                assert visible(loras) in ({}, {"cat.safetensors": data}), f"step {nth}: a partial file is visible"
            has_spoiled = told.has_spoiled
            if has_spoiled:
                disk.mend()
                anyio.run(upload, loras, data, told)
            assert visible(loras) == {"cat.safetensors": data}, f"step {nth}: another file"
            (loras / "cat.safetensors").unlink()
        if not has_spoiled:
            return refused
        nth += 1


if __name__ == "__main__":
    print(loop(sys.argv[1], Path(sys.argv[2])))
