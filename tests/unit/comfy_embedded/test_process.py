"""The child process: it starts, it ends with its parent, and it says when it cannot."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from comfy_mcp.embedded.process import embedded_comfyui
from mcp_toolserver.errors import BackendUnavailable
from tests.contract.comfyui.talk import Names, talking

NAMES = Names("tinyflux-base.safetensors", "none")

PARENT = """
import anyio, pathlib, sys
from comfy_mcp.embedded.process import embedded_comfyui

async def main():
    async with embedded_comfyui(pathlib.Path(sys.argv[1])) as url:
        print(url, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


async def test_it_serves_until_the_block_ends_even_in_mid_run(tmp_path: Path) -> None:
    async with embedded_comfyui(tmp_path) as url, talking(url, NAMES) as comfy:
        graph = comfy.graph(steps=10_000, model=["30", 0])
        del graph["40"]
        for node_id in ("6", "33"):
            graph[node_id]["inputs"]["clip"] = ["30", 1]
        await comfy.submit(graph)
        await comfy.hear_until("progress")
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url)
    assert (tmp_path / "models" / "loras").is_dir()


async def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        async with connect(f"{url.replace('http', 'ws')}/ws", proxy=None) as listener:
            await listener.recv()
            parent.send_signal(signal.SIGKILL)
            with pytest.raises(ConnectionClosed):
                await listener.recv()


async def test_it_says_that_it_did_not_start(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BackendUnavailable, match="ended before it was ready") as caught:
            async with embedded_comfyui(tmp_path, taken.getsockname()[1]):
                raise AssertionError("it started on a taken port")
    assert "port" in str(caught.value.hint)


def test_nothing_but_the_address_goes_to_stdout(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "comfy_mcp.embedded", "--port", "0", "--data-dir", str(tmp_path)]
    ended = subprocess.run([*command, "--exit-with-stdin"], input="", capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout).keys() == {"url"}
