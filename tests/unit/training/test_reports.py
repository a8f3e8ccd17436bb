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


@pytest.mark.parametrize(("silent_s", "warned"), [(119.0, False), (660.0, True)])
def test_no_step_while_the_process_lives_is_a_warning(silent_s: float, warned: bool) -> None:
    warnings = report_of(JOB, log(changed_at=NOW - silent_s), [], NOW).warnings
    words = "No step for 11 minutes while the process lives; a step usually takes 0.5 s."
    assert any(words in warning for warning in warnings) is warned


def test_a_slow_step_is_no_stall() -> None:
    slow = LOG.replace("2.00it/s", "30.0s/it")
    assert report_of(JOB, log(slow, NOW - 500), [], NOW).warnings == ()
    (warning,) = report_of(JOB, log(slow, NOW - 700), [], NOW).warnings
    assert "a step usually takes 30 s" in warning


@pytest.mark.parametrize(("silent_s", "warned"), [(599.0, False), (660.0, True)])
def test_a_silent_start_is_a_warning_later(silent_s: float, warned: bool) -> None:
    loading = "Running 1 job\nRunning  1 process\n"
    warnings = report_of(JOB, log(loading, NOW - silent_s), [], NOW).warnings
    assert any("nothing for 11 minutes (loading model)" in warning for warning in warnings) is warned
    ended = replace(JOB, status="stopped", ended_at=NOW)
    assert report_of(ended, log(loading, NOW - silent_s), [], NOW).warnings == ()


def nan_log(first: int, last: int, steps: int = 10) -> str:
    """Return a log in which the loss of some steps is no number, as AI Toolkit writes it: said, and counted as 0."""
    text = "Running 1 job\nRunning  1 process\n"
    for step in range(steps):
        loss = "0.000e+00" if first <= step <= last else "5.000e-01"
        text += "loss is nan\n" if first <= step <= last else ""
        rest = f"[00:0{step}<00:03,  2.00it/s, lr: 1.0e-04 loss: {loss}]"
        text += f"\rcat:  40%|####      | {step}/10 {rest}\rcat:  40%|####      | {step + 1}/10 {rest}"
    return text


def test_a_loss_that_is_no_number_is_told_with_its_first_step() -> None:
    report = report_of(JOB, log(nan_log(4, 10)), [], NOW)
    assert (report.no_number_since, report.loss, report.step) == (4, None, 10)
    assert "is NaN (no number) since step 4" in report.warnings[0]
    earlier = report_of(JOB, log(nan_log(4, 10)), [], NOW, no_number_since=2)
    assert "since step 2" in earlier.warnings[0]


def test_a_loss_that_is_a_number_again_is_told_as_past() -> None:
    report = report_of(JOB, log(nan_log(4, 5)), [], NOW, no_number_since=None)
    assert (report.no_number_since, report.loss) == (None, 0.5)
    assert report.warnings == ("The loss was NaN (no number) in some steps, the last one 5; those taught nothing.",)


def test_a_bar_that_shows_nan_is_told_too() -> None:
    diverged = LOG.replace("5.0e-01", "nan")
    text = LOG + diverged.replace("4/10", "5/10") + diverged.replace("4/10", "6/10")
    assert report_of(JOB, log(text), [], NOW).no_number_since == 5


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
