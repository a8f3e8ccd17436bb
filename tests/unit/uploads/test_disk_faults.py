"""The process dies, or the disk refuses, at every single effect in turn; each upload still ends with the right file."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT

OWN_MOUNTS = ("unshare", "--mount", "--map-root-user")


def may_mount() -> bool:
    """Tell whether a process of ours may mount file systems that nobody else sees."""
    mount = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/tmp"]
    try:
        return subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def looped(program: str, *arguments: str, within: Sequence[str] = ()) -> int:
    """Run a loop in a process of its own; returns the number that it ends with."""
    command = [*within, sys.executable, "-m", f"tests.unit.uploads.{program}", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return int(ended.stdout)


@pytest.mark.parametrize(
    ("fault", "way"),
    [
        *((fault, "parts") for fault in ("die-before", "die-after", "full", "read-only")),
        *((fault, "whole") for fault in ("die-after", "full")),
        *(pytest.param(fault, "whole", marks=pytest.mark.long) for fault in ("die-before", "read-only")),
    ],
)
def test_an_upload_survives_a_fault_at_every_effect_on_the_disk(tmp_path: Path, fault: str, way: str) -> None:
    assert looped("disk_fault_loop", fault, way, str(tmp_path)) > 20, "the loop did not reach the effects"


@pytest.mark.parametrize("fault", ["quota", *(("full", "read-only") if may_mount() else ())])
def test_an_upload_goes_on_after_the_disk_refused_it_at_any_step(tmp_path: Path, fault: str) -> None:
    within = () if fault == "quota" else OWN_MOUNTS
    assert looped("small_disk_loop", fault, str(tmp_path), within=within) > 10, "the loop did not reach the steps"
