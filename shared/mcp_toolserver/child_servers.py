"""Run a server as a child process, and know when it listens."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from mcp_toolserver.errors import BackendUnavailable

READY_WAIT_S = 30.0
STOP_WAIT_S = 10.0


@dataclass(frozen=True)
class RunningServer:
    """A server process and its address."""

    process: asyncio.subprocess.Process
    name: str
    url: str


@asynccontextmanager
async def running_server(name: str, arguments: Sequence[str], log: int | None = None) -> AsyncGenerator[RunningServer]:
    """Run `python -m NAME ARGUMENTS`, wait until it listens, and end it afterwards.

    Its log goes to the file descriptor `log`, else to stderr. Raises BackendUnavailable when it does not start.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        name,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        # Ctrl-C reaches a whole process group: the servers are to be ended in order, by us.
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), READY_WAIT_S)
        if not line:
            raise BackendUnavailable(
                f"{name} did not start (exit {await process.wait()}).", hint="The end of its log says why."
            )
        yield RunningServer(process, name, orjson.loads(line)["url"])
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_WAIT_S)
            except TimeoutError:
                process.kill()
                await process.wait()
