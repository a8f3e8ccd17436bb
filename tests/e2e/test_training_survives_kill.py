"""A training goes on when its server is killed, and the next server finds it again."""

import os
import shutil
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from aitk_mcp.trainers.job_folders import JobFolders
from aitk_mcp.trainers.processes import is_alive
from tests.conftest import server_process
from tinyflux import sample_dataset_path

WAIT_S = 120


@pytest.fixture
def folder(tmp_path: Path) -> Generator[Path]:
    """Give a server's folder with the sample dataset, and end the trainings that the test leaves behind."""
    shutil.copytree(sample_dataset_path(), tmp_path / "datasets" / "cats")
    yield tmp_path
    for job in JobFolders(tmp_path / "jobs").all():
        job.run.send(signal.SIGKILL)


def call(url: str, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}/mcp/tool", json={"tool": tool, "arguments": arguments}, timeout=WAIT_S + 10).json()
    assert answer["success"], answer
    return answer["result"]


def start(url: str, name: str, steps: int) -> str:
    config = {"name": name, "model_name": "tinyflux", "dataset_path": "cats", "steps": steps}
    call(url, "create-training-config", **config, trigger_word="pixel_cat", rank=4, disable_sampling=True)
    return call(url, "start-training", config_name=name)["job_id"]


def wait_for_step(url: str, job_id: str, step: int) -> None:
    while (job := call(url, "wait-training", job_id=job_id, wait_s=0.1))["step"] < step:
        assert job["status"] == "running", job


def arguments(folder: Path) -> tuple[str, ...]:
    return ("--data-dir", str(folder), "--trainer", "embedded")


def test_a_killed_server_leaves_its_training_alive_and_the_next_one_sees_it_end(folder: Path) -> None:
    with server_process("aitk_mcp", *arguments(folder)) as (process, url):
        running = start(url, "first", 150)
        waiting = start(url, "second", 5)
        wait_for_step(url, running, 3)
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT_S)
    trainer = JobFolders(folder / "jobs").find(running).run.trainer()
    assert trainer is not None
    assert is_alive(trainer)
    with server_process("aitk_mcp", *arguments(folder)) as (_, url):
        found = {job["job_id"]: job["status"] for job in call(url, "list-training-jobs")["jobs"]}
        assert found == {running: "running", waiting: "queued"}
        for job_id, steps in ((running, 150), (waiting, 5)):
            done = call(url, "wait-training", job_id=job_id, wait_s=WAIT_S)
            assert (done["status"], done["step"]) == ("completed", steps)
        assert call(url, "get-training-loss", job_id=running)["total_points"] == 149


def test_a_training_that_died_with_its_server_is_told_as_failed_and_resumed(folder: Path) -> None:
    with server_process("aitk_mcp", *arguments(folder)) as (process, url):
        job_id = start(url, "cat", 100_000)
        wait_for_step(url, job_id, 3)
        saved = call(url, "save-checkpoint", job_id=job_id, wait_s=60)
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT_S)
    trainer = JobFolders(folder / "jobs").find(job_id).run.trainer()
    assert trainer is not None
    os.kill(trainer.pid, signal.SIGKILL)
    with server_process("aitk_mcp", *arguments(folder)) as (_, url):
        failed = call(url, "wait-training", job_id=job_id, wait_s=WAIT_S)
        assert (failed["status"], failed["error_kind"]) == ("failed", "killed")
        assert failed["checkpoint_step"] == saved["checkpoint_step"]
        assert failed["hint"]
        call(url, "resume-training", job_id=job_id)
        wait_for_step(url, job_id, saved["checkpoint_step"] + 1)
        assert call(url, "get-training-status", job_id=job_id)["resumed_from_step"] == saved["checkpoint_step"]
        assert call(url, "stop-training", job_id=job_id)["saved"]
