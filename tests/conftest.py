"""What every test has: a watch on the event loop, and servers on real sockets."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import uvicorn
from blockbuster import blockbuster_ctx
from starlette.types import ASGIApp

from mcp_toolserver.http_protocol import LeanProtocol

ROOT = Path(__file__).resolve().parent.parent
WATCHED = ["mcp_toolserver", "comfy_mcp", "aitk_mcp"]
REAL_PROGRAMS = {"AITK_DIR", "AITK_UI_URL", "COMFYUI_DIR", "COMFYUI_URL"}

for _name in [name for name in os.environ if name.startswith(("COMFY_MCP_", "AITK_MCP_"))]:
    del os.environ[_name]
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["PYTHONPATH"] = os.pathsep.join(str(ROOT / part) for part in (".", "shared", "scripts"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our own options."""
    parser.addoption("--update-schemas", action="store_true", help="write the snapshots of the tools' schemas anew")
    parser.addoption("--long", action="store_true", help="also run what takes minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes unless --long is given; then, and with real programs, nothing is cut short."""
    long = [item for item in items if item.get_closest_marker("long") is not None]
    if not config.getoption("--long"):
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    if config.getoption("--long") or REAL_PROGRAMS & set(os.environ):
        for item in items:
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(autouse=True)
def no_blocking_in_the_loop() -> Generator[None]:
    """Fail a test when the product blocks the event loop."""
    with blockbuster_ctx(WATCHED):
        yield


@contextmanager
def served(app: ASGIApp, port: int = 0) -> Generator[str]:
    """Serve an app on a loopback port (0: a free one) in a thread of its own; yields its address."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, http=LeanProtocol, ws="none", lifespan="on", log_config=None
    )
    server = uvicorn.Server(config)
    # With the protocol named, asyncio sets TCP_NODELAY; else every answer waits 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    ready = threading.Event()
    original = server.startup

    async def startup(sockets: object = None) -> None:
        await original([listener])
        ready.set()

    server.startup = startup
    thread.start()
    try:
        assert ready.wait(30), "the server did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@pytest.fixture
def serve() -> Generator[Callable[[ASGIApp], str]]:
    """Give a function that serves an app until the test ends."""
    with ExitStack() as stack:

        def start(app: ASGIApp) -> str:
            return stack.enter_context(served(app))

        yield start


@contextmanager
def server_process(module: str, *arguments: str) -> Generator[tuple[subprocess.Popen[str], str]]:
    """Run `python -m MODULE --port 0 …`; yields the process and its address, and ends it if it still runs."""
    with ended_process("-m", module, "--port", "0", *arguments) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"{module} ended before it was ready (exit {process.wait()})"
        yield process, json.loads(line)["url"]


@contextmanager
def ended_process(*arguments: str) -> Generator[subprocess.Popen[str]]:
    """Run Python while the block runs; the process must then end when it is told to."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
