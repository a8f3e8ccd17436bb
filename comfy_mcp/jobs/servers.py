"""Which servers on a data folder live: each holds a lock on a file of its own, and the lock dies with its process."""

import fcntl
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from anyio import CancelScope, to_thread

from mcp_toolserver.files import make_folder


class Servers:
    """Tell the other servers on a folder that this one lives, under its `own_id`, and learn which of them do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.own_id = str(uuid4())

    @asynccontextmanager
    async def joined(self) -> AsyncGenerator[None]:
        """Be known to live while the block runs."""
        handle = await to_thread.run_sync(_hold, self._folder, self.own_id)
        try:
            yield
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(_let_go, self._folder / self.own_id, handle)

    async def living(self) -> frozenset[str]:
        """Return the ids of all servers that live; what the others left behind is removed."""
        return await to_thread.run_sync(_living, self._folder)


def _hold(folder: Path, server_id: str) -> int:
    make_folder(folder)
    path = folder / server_id
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_at(handle, path):
            return handle
        # Between those two lines another server took the file for a dead server's, and removed it.
        os.close(handle)


def _let_go(path: Path, handle: int) -> None:
    path.unlink(missing_ok=True)
    os.close(handle)


def _living(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir() if _is_held(path))


def _is_held(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(handle, path):
            path.unlink()
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
