"""Signals that reach the embedded trainer before it trains are not lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aitk_mcp.embedded.wishes import Wishes
from tinyflux import sample_dataset_path

# What some extension modules do as they are imported: an exception that comes up in between is dropped.
SWALLOWING = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "tinyflux":
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                pass

sys.meta_path.insert(0, Finder())
"""


def config(folder: Path) -> Path:
    process = {
        "type": "diffusion_trainer",
        "training_folder": "output",
        "network": {"type": "lora", "linear": 4},
        "datasets": [{"folder_path": str(sample_dataset_path()), "caption_ext": "txt"}],
        "train": {"steps": 100_000, "lr": 1e-4, "disable_sampling": True},
        "model": {"name_or_path": "tinyflux", "arch": "flux"},
    }
    path = folder / "cat.yaml"
    path.write_text(yaml.safe_dump({"job": "extension", "config": {"name": "cat", "process": [process]}}))
    return path


def test_a_stop_that_comes_during_the_imports_is_heeded(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SWALLOWING)
    paths = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    answer = subprocess.run(
        [sys.executable, "-m", "aitk_mcp.embedded.run", str(config(tmp_path))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "Job stopped" in answer.stdout
    assert not (tmp_path / "output").exists()


def test_when_a_stop_interrupts_depends_on_what_is_done() -> None:
    wishes = Wishes()
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)]
    try:
        wishes.listen()
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        assert (wishes.save, wishes.sample, wishes.stop) == (True, True, False)
        wishes.work()
        wishes.loop()
        signal.raise_signal(signal.SIGINT)
        assert wishes.stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            wishes.work()
    finally:
        for number, handler in before:
            signal.signal(number, handler)
