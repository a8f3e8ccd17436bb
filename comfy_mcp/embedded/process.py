"""Starts the embedded ComfyUI as a child process, and ends it."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from mcp_toolserver.errors import BackendUnavailable

START_WAIT_S = 60.0
STOP_WAIT_S = 10.0

_LINE_LIMIT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A child process that is ready, and its address, such as `http://127.0.0.1:40123`."""

    url: str
    process: Process


@asynccontextmanager
async def embedded_comfyui(data_dir: Path, port: int = 0) -> AsyncGenerator[str]:
    """Run the embedded ComfyUI over a data directory and yield its address, as `embedded_server` does."""
    async with embedded_server(data_dir, port) as server:
        yield server.url


@asynccontextmanager
async def embedded_server(data_dir: Path, port: int = 0) -> AsyncGenerator[EmbeddedServer]:
    """Run the embedded ComfyUI over a data directory while the block runs; port 0 takes a free one.

    The child holds the other end of a pipe, and ends when that is closed: at the end of the block, and just as well
    when this process is killed. Raises BackendUnavailable when it does not start.
    """
    # -P, and this program's own path: what lies in the current folder must not stand in for a module.
    command = [sys.executable, "-P", "-m", "comfy_mcp.embedded", "--port", str(port), "--data-dir", str(data_dir)]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    process = await anyio.open_process(
        [*command, "--exit-with-stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Its log is this program's log. stdout is not: on a stdio transport that belongs to the protocol.
        stderr=None,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path},
        # Ctrl+C is for the parent, which then ends the child in order.
        start_new_session=True,
    )
    async with process:
        try:
            yield EmbeddedServer(await _address(process), process)
        finally:
            with anyio.CancelScope(shield=True):
                await _stop(process)


async def _address(process: Process) -> str:
    assert process.stdout is not None
    try:
        with anyio.fail_after(START_WAIT_S):
            line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", _LINE_LIMIT_BYTES)
    except (TimeoutError, anyio.IncompleteRead) as error:
        ended = process.returncode is not None or isinstance(error, anyio.IncompleteRead)
        what = "ended before it was ready" if ended else f"was not ready within {START_WAIT_S:g} seconds"
        raise BackendUnavailable(
            f"The embedded ComfyUI {what}.",
            hint="Its log, on stderr, says why: often the port is taken or the data directory cannot be written.",
        ) from error
    return json.loads(line)["url"]


async def _stop(process: Process) -> None:
    assert process.stdin is not None
    await process.stdin.aclose()
    with anyio.move_on_after(STOP_WAIT_S):
        await process.wait()
    if process.returncode is None:
        process.kill()
