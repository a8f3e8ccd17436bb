"""How a job is put in words, from what its trainer, its log and its files say."""

from dataclasses import replace
from pathlib import Path

import pytest

from aitk_mcp.trainers.output_folder import read_checkpoints, read_samples
from aitk_mcp.trainers.port import Checkpoint, JobLog, TrainerJob
from aitk_mcp.training.reports import report_of

NOW = 2000.0
BAR = "\rcat:  40%|####      | 4/10 [00:02<00:03,  2.00it/s, lr: 1.0e-04 loss: 5.0e-01]"
LOG = "Running 1 job\nRunning  1 process\n" + BAR
JOB = TrainerJob(
    job_id="cat-1",
    name="cat",
    config_name="cat",
    status="running",
    engine="cli",
    gpu_ids="0",
    total_steps=10,
    output_folder=Path("/out/cat"),
    prompts=(),
    created_at=900.0,
    started_at=1000.0,
)


def log(text: str = LOG, changed_at: float = NOW) -> JobLog:
    return JobLog(text, text, len(text), changed_at)


def test_a_running_job_has_progress_and_time_left() -> None:
    report = report_of(JOB, log(), [], NOW)
    assert (report.info, report.phase, report.progress_percent) == ("Training", "training", 40.0)
    assert (report.step, report.eta_s, report.speed, report.loss) == (4, 3, "2.00 iter/sec", 0.5)
    assert (report.elapsed_s, report.checkpoint_step, report.model_path) == (1000.0, None, None)
    assert not report.has_ended


def test_a_waiting_job_says_for_what() -> None:
    waiting = replace(JOB, status="queued", started_at=None, queue_position=2)
    assert report_of(waiting, JobLog("", "", 0, None), [], NOW).info == "Waiting for GPU 0; number 2 in the queue"
    first = replace(waiting, gpu_ids="cpu", queue_position=1)
    assert report_of(first, JobLog("", "", 0, None), [], NOW).info == "Waiting for the trainer; next in the queue"


def test_a_stop_under_way_is_said() -> None:
    assert report_of(replace(JOB, stop_requested=True), log(), [], NOW).info == "Stopping"


def test_the_newest_checkpoint_is_the_model() -> None:
    saved = [
        Checkpoint(Path("/out/cat/cat_000000002.safetensors"), 2, 10, final=False),
        Checkpoint(Path("/out/cat/cat_000000004.safetensors"), 4, 10, final=False),
    ]
    report = report_of(replace(JOB, status="stopped", ended_at=1500.0), log(), saved, NOW)
    assert (report.checkpoint_step, report.model_path) == (4, "cat/cat_000000004.safetensors")
    assert (report.elapsed_s, report.eta_s, report.phase) == (500.0, None, None)


def test_a_failure_is_taken_from_the_log_before_the_exit() -> None:
    failed = replace(JOB, status="failed", returncode=1, ended_at=1500.0)
    reason = report_of(failed, log("Running 1 job\nError running job: CUDA out of memory.\n"), [], NOW).failure
    assert reason is not None
    assert reason.kind == "out_of_memory"
    silent = report_of(replace(failed, returncode=-9, signal_name="SIGKILL"), log(), [], NOW)
    assert silent.failure is not None
    assert silent.failure.kind == "killed"
    assert silent.info == silent.failure.reason


@pytest.mark.parametrize(("silent_s", "warned"), [(599.0, False), (660.0, True)])
def test_a_log_that_stands_still_is_a_warning(silent_s: float, warned: bool) -> None:
    warnings = report_of(JOB, log(changed_at=NOW - silent_s), [], NOW).warnings
    assert any("11 minutes" in warning for warning in warnings) is warned


def test_output_files_are_recognised_by_name(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    (samples / ".thumbs").mkdir(parents=True)
    for name in ("1795227699911__000000004_0.jpg", "1795227699999__000000000_1.jpg", "notes.txt"):
        (samples / name).write_bytes(b"")
    (samples / ".thumbs" / "1795227699911__000000004_0.jpg").write_bytes(b"")
    assert [(sample.step, sample.prompt_index) for sample in read_samples(tmp_path)] == [(0, 1), (4, 0)]
    names = (
        "w_000000250_high_noise.safetensors",
        "w_000000250_low_noise.safetensors",
        "w_2.safetensors",
        "w_000000500.safetensors",
        "w.safetensors",
        "optimizer.pt",
    )
    for name in names:
        (tmp_path / name).write_bytes(b"")
    found = [(entry.path.name, entry.step, entry.final) for entry in read_checkpoints(tmp_path, "w")]
    assert found == [
        ("w_000000250_high_noise.safetensors", 250, False),
        ("w_000000250_low_noise.safetensors", 250, False),
        ("w_000000500.safetensors", 500, False),
        ("w.safetensors", None, True),
    ]
