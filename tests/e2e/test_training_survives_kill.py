"""A training goes on when its server is killed, and the next server finds it again; whoever trains it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from aitk_mcp.trainers.job_folders import JobFolders
from aitk_mcp.trainers.processes import ProcessIdentity, is_alive
from tests.conftest import server_process
from tests.contract.trainer.conftest import STAND_IN
from tinyflux import sample_dataset_path

WAIT_S = 120


@dataclass(frozen=True)
class Place:
    """Where a server keeps everything, and how it is started there: embedded, or over a folder like AI Toolkit's."""

    engine: str
    root: Path

    @property
    def jobs(self) -> JobFolders:
        """Return the jobs on disk."""
        return JobFolders(self.root / "data" / "jobs")

    def serving(self) -> AbstractContextManager[tuple[subprocess.Popen[str], str]]:
        """Start a server; gives its process and address."""
        return server_process("aitk_mcp", "--data-dir", str(self.root / "data"), "--trainer", self.engine)

    def trainer(self, job_id: str) -> ProcessIdentity:
        """Return the process of a job's latest run."""
        found = self.jobs.find(job_id).run.trainer()
        assert found is not None
        return found


@pytest.fixture(params=["embedded", "cli"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Place]:
    """Give a folder with the sample dataset, and end the trainings that the test leaves behind."""
    found = Place(request.param, tmp_path)
    checkout = tmp_path / "aitk" if found.engine == "cli" else tmp_path / "data"
    shutil.copytree(sample_dataset_path(), checkout / "datasets" / "cats")
    if found.engine == "cli":
        (checkout / "run.py").write_text(STAND_IN)
        monkeypatch.setenv("AITK_DIR", str(checkout))
        monkeypatch.setenv("AITK_MCP_AITK_PYTHON", sys.executable)
    yield found
    for job in found.jobs.all():
        job.run.send(signal.SIGKILL)


def call(url: str, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}/mcp/tool", json={"tool": tool, "arguments": arguments}, timeout=WAIT_S + 10).json()
    assert answer["success"], answer
    return answer["result"]


def start(url: str, name: str, steps: int) -> str:
    config = {"name": name, "model_name": "ostris/Flex.1-alpha", "dataset_path": "cats", "steps": steps}
    often = {"save": {"save_every": 5}}
    call(
        url,
        "create-training-config",
        **config,
        trigger_word="pixel_cat",
        rank=4,
        disable_sampling=True,
        overrides=often,
    )
    return call(url, "start-training", config_name=name)["job_id"]


def wait_for_step(url: str, job_id: str, step: int) -> None:
    while (job := call(url, "wait-training", job_id=job_id, wait_s=0.1))["step"] < step:
        assert job["status"] == "running", job


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT_S)


def kill_trainer(trainer: ProcessIdentity) -> None:
    os.kill(trainer.pid, signal.SIGKILL)
    deadline = time.monotonic() + WAIT_S
    while is_alive(trainer):
        assert time.monotonic() < deadline


def goes_on_from_its_checkpoint(url: str, job_id: str, step: int) -> None:
    """Resume a job, and see that it trains past its newest checkpoint from there."""
    call(url, "resume-training", job_id=job_id)
    wait_for_step(url, job_id, step + 1)
    job = call(url, "get-training-status", job_id=job_id)
    assert (job["status"], job["resumed_from_step"], job["job_id"]) == ("running", step, job_id)
    call(url, "stop-training", job_id=job_id, wait_s=WAIT_S)


def test_a_killed_server_leaves_its_training_alive_and_the_next_one_sees_it_end(place: Place) -> None:
    with place.serving() as (process, url):
        running = start(url, "first", 50)
        waiting = start(url, "second", 7)
        wait_for_step(url, running, 3)
        # Held until the next server has seen it, or it would have to be long to outlast that server's start.
        place.jobs.find(running).run.send(signal.SIGSTOP)
        kill(process)
    assert is_alive(place.trainer(running))
    with place.serving() as (_, url):
        found = {job["job_id"]: job["status"] for job in call(url, "list-training-jobs")["jobs"]}
        assert found == {running: "running", waiting: "queued"}
        place.jobs.find(running).run.send(signal.SIGCONT)
        for job_id, steps in ((running, 50), (waiting, 7)):
            done = call(url, "wait-training", job_id=job_id, wait_s=WAIT_S)
            assert (done["status"], done["step"]) == ("completed", steps)
        assert call(url, "get-training-loss", job_id=running)["total_points"] == 49


def test_a_killed_training_is_told_as_failed_at_once_and_resumed(place: Place) -> None:
    with place.serving() as (_, url):
        job_id = start(url, "cat", 100_000)
        wait_for_step(url, job_id, 12)
        kill_trainer(place.trainer(job_id))
        failed = call(url, "wait-training", job_id=job_id, wait_s=WAIT_S)
        assert (failed["status"], failed["error_kind"]) == ("failed", "killed")
        assert "SIGKILL" in failed["error"]
        assert failed["checkpoint_step"] >= 10
        goes_on_from_its_checkpoint(url, job_id, failed["checkpoint_step"])


def test_a_training_that_died_with_its_server_is_told_as_failed_and_resumed(place: Place) -> None:
    with place.serving() as (process, url):
        job_id = start(url, "cat", 100_000)
        wait_for_step(url, job_id, 12)
        kill(process)
    kill_trainer(place.trainer(job_id))
    with place.serving() as (_, url):
        failed = call(url, "get-training-status", job_id=job_id)
        assert (failed["status"], failed["error_kind"]) == ("failed", "killed")
        assert failed["checkpoint_step"] >= 10
        assert failed["hint"]
        goes_on_from_its_checkpoint(url, job_id, failed["checkpoint_step"])


def test_another_program_under_the_pid_of_a_dead_training_is_left_alone(place: Place) -> None:
    with place.serving() as (process, url):
        job_id = start(url, "cat", 100_000)
        wait_for_step(url, job_id, 12)
        kill(process)
    run, trainer = place.jobs.find(job_id).run, place.trainer(job_id)
    keeper = int(Path(f"/proc/{trainer.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGKILL)
    kill_trainer(trainer)
    assert run.exit() is None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, process_group=0) as stranger:
        # After a wrap of the pids it bears the trainer's number; its birth is its own.
        recorded = json.loads((run.path / "process.json").read_text())
        recorded["trainer"]["pid"] = stranger.pid
        (run.path / "process.json").write_text(json.dumps(recorded))
        with place.serving() as (_, url):
            failed = call(url, "get-training-status", job_id=job_id)
            assert (failed["status"], failed["error_kind"]) == ("failed", "killed")
            goes_on_from_its_checkpoint(url, job_id, failed["checkpoint_step"])
        assert stranger.poll() is None
        stranger.communicate(b"\n")
