"""The process dies, or the disk refuses, at every single effect in turn; each upload still ends with the right file."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("fault", ["die-before", "die-after", "full", "read-only"])
def test_an_upload_survives_a_fault_at_every_effect_on_the_disk(tmp_path: Path, fault: str) -> None:
    command = [sys.executable, "-m", "tests.unit.uploads.disk_fault_loop", fault, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert int(ended.stdout) > 20, "the loop did not reach the effects"
