"""`loraloop serve`: both servers by one command, and no trace of them afterwards."""

import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import ended_process


@contextmanager
def serving(data_dir: Path) -> Generator[tuple[subprocess.Popen[str], list[str]]]:
    """Run `loraloop serve` on free ports; yields the process and both addresses."""
    command = ["-m", "loraloop", "serve", "--embedded", "--data-dir", str(data_dir)]
    with ended_process(*command, "--comfy-port", "0", "--aitk-port", "0") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        yield process, re.findall(r"(http://\S+)/mcp ", "".join(lines))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_both_servers_and_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as (process, urls):
        names = [httpx.get(f"{url}/health").json()["server"] for url in urls]
        assert sorted(names) == ["aitk_mcp", "comfy_mcp"]
        process.send_signal(number)
        assert process.wait(30) == 0
    for url in urls:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
    assert {path.name for path in tmp_path.iterdir()} == {"aitk", "comfy"}


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with serving(tmp_path / "first") as (_, urls):
        port = urls[0].rsplit(":", 1)[1]
        command = [sys.executable, "-m", "loraloop", "serve", "--embedded", "--data-dir", str(tmp_path / "second")]
        ended = subprocess.run(
            [*command, "--comfy-port", port, "--aitk-port", port],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
        assert "Traceback" not in ended.stderr
