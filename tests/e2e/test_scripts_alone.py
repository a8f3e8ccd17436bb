"""The scripts of a checkout run from anywhere, with nothing installed or set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
BARE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.parametrize("script", ["transfer_lora_between_services.py", "loraloop.py", "bench.py"])
def test_a_script_finds_the_packages_of_its_checkout(script: str, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / script), "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=BARE, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"usage: {script.removesuffix('.py')}")


def test_a_python_without_the_libraries_is_told_what_to_do(tmp_path: Path) -> None:
    # -S leaves out site-packages, in the environment's own Python too.
    command = [sys.executable, "-S", str(SCRIPTS / "transfer_lora_between_services.py")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=BARE, timeout=60, check=False)
    assert ended.returncode == 1
    assert "demo.sh" in ended.stderr
    assert "Traceback" not in ended.stderr
