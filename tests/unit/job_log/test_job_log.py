"""The log reader against logs that AI Toolkit wrote."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitk_mcp.job_failures import failure_by_exit, read_failure
from aitk_mcp.job_log import (
    NoNumbers,
    Progress,
    read_losses,
    read_no_numbers,
    read_progress,
    read_resumed_step,
    read_warnings,
    tidy_lines,
    was_stopped,
)

DATA = Path(__file__).parent / "data"


def log(name: str) -> str:
    return (DATA / name).read_bytes().decode()


def test_a_running_job_tells_step_speed_time_left_and_loss() -> None:
    progress = read_progress(log("running.txt"), "tiny_ui")
    assert progress == Progress(
        phase="training",
        step=3,
        total_steps=40,
        steps_per_second=1 / 1.67,
        elapsed_s=3,
        eta_s=61,
        loss=1.225,
        learning_rate=1e-4,
    )
    assert progress.speed == "1.67 sec/iter"


def test_the_end_of_a_log_is_enough() -> None:
    progress = read_progress(log("running.txt")[-300:], "tiny_ui")
    assert (progress.step, progress.total_steps, progress.loss) == (3, 40, 1.225)


def test_a_completed_job_ends_in_its_last_sample() -> None:
    progress = read_progress(log("completed.txt"), "tiny_ui")
    assert (progress.phase, progress.step, progress.eta_s, progress.speed) == ("sampling", 40, 0, "1.43 iter/sec")


@pytest.mark.parametrize(
    ("last_line", "phase"),
    [
        ("Running 1 job", "starting"),
        ("Running  1 process", "loading model"),
        ("  -  Found 2 images", "loading dataset"),
        ("Saving at step 4", "saving"),
        ("Sampling at step 4", "sampling"),
        ("Saved checkpoint to ", "saving"),
    ],
)
def test_each_phase_is_recognised_where_the_log_stands_there(last_line: str, phase: str) -> None:
    text = log("completed.txt")
    assert read_progress(text[: text.index(last_line) + len(last_line)], "tiny_ui").phase == phase


def test_caching_latents_is_a_phase() -> None:
    text = "Dataset: /d\nCaching latents for /d\n - Keeping latents in memory\n"
    text += "\rCaching latents:  50%|##   | 1/2 [00:00<00:00, 3.1it/s]"
    assert read_progress(text, "job").phase == "caching latents"


def test_losses_of_the_bar_are_those_of_the_loss_database() -> None:
    from_log = {point.step: point.loss for point in read_losses(log("completed.txt"), "tiny_ui")}
    for point in json.loads(log("completed_loss.json")):
        assert from_log[point["step"]] == pytest.approx(point["value"], abs=6e-4)
    assert sorted(from_log) == list(range(40))


def test_a_stop_is_told_apart_from_an_end() -> None:
    assert was_stopped(log("stopped.txt"))
    assert not was_stopped(log("completed.txt"))
    assert not was_stopped(log("bad_model.txt"))
    assert read_failure(log("stopped.txt")) is None
    assert read_failure(log("completed.txt")) is None


def test_a_missing_dataset_is_named() -> None:
    failure = read_failure(log("missing_dataset.txt"))
    assert failure is not None
    assert failure.kind == "dataset_missing"
    assert failure.reason == "The dataset /nope/ds does not exist where the trainer runs."
    assert "list-datasets" in failure.hint


def test_a_bad_model_path_is_named() -> None:
    failure = read_failure(log("bad_model.txt"))
    assert failure is not None
    assert failure.kind == "bad_model_path"
    assert "/nope/model" in failure.reason


ENDING = "\n\n========================================\nResult:\n - 0 completed jobs\n - 1 failure\n"


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        ("CUDA out of memory. Tried to allocate 72.00 MiB.", "out_of_memory", "ran out of memory"),
        ("OOM during training step 3 times in a row, aborting training", "out_of_memory", "ran out of memory"),
        (
            "403 Client Error. (Request ID: Root=1)\n\nCannot access gated repo for url "
            "https://hub.co/black-forest-labs/FLUX.1-dev/resolve/main/model.json.",
            "gated_model",
            "gated",
        ),
        (
            "You are trying to access a gated repo.\nMake sure to have access to it. 401 Client Error.",
            "gated_model",
            "gated",
        ),
        ("no images found in /data/cats", "no_images", "in /data/cats"),
        ("[Errno 28] No space left on device: '/out/a.safetensors'", "disk_full", "disk is full"),
        ("sqlite3.OperationalError: database or disk is full", "disk_full", "disk is full"),
        ("No module named 'diffusers'", "missing_package", "diffusers"),
        ("Environment variable HF_HOME not set. Please define it.", "bad_config", "HF_HOME"),
        ("[Errno 2] No such file or directory: '/m/vae'", "missing_file", "/m/vae"),
        ("Torch not compiled with CUDA enabled", "no_gpu", "no GPU"),
        ("something new", "unknown", "The trainer failed: something new."),
    ],
)
def test_each_kind_of_failure_is_recognised(message: str, kind: str, words: str) -> None:
    failure = read_failure(f"Running 1 job\nError running job: {message}{ENDING}")
    assert failure is not None
    assert failure.kind == kind
    assert words in failure.reason
    assert "\n" not in failure.reason
    assert failure.hint


def test_a_package_of_another_version_is_named_without_what_the_clean_up_says() -> None:
    failure = read_failure(log("wrong_version.txt"))
    assert failure is not None
    assert failure.kind == "missing_package"
    assert "transformers" in failure.reason
    assert "Gemma4UnifiedForConditionalGeneration" in failure.reason
    assert "on_error" not in failure.message


def test_a_library_that_cannot_be_loaded_is_named() -> None:
    failure = read_failure(log("broken_library.txt"))
    assert failure is not None
    assert failure.kind == "missing_package"
    assert "_torchaudio.abi3.so" in failure.reason
    assert "on_error" not in failure.message
    early = read_failure(
        "Traceback (most recent call last):\nOSError: libcudart.so.13: cannot open shared object file: x\n"
    )
    assert early is not None
    assert (early.kind, "libcudart.so.13" in early.reason) == ("missing_package", True)


def test_a_traceback_without_ai_toolkits_own_line_is_read_too() -> None:
    text = 'Traceback (most recent call last):\n  File "run.py", line 30, in <module>\n    import torch\n'
    failure = read_failure(text + "ModuleNotFoundError: No module named 'torch'\n")
    assert failure is not None
    assert failure.kind == "missing_package"
    assert "torch" in failure.reason


def test_a_crash_below_python_is_read_too() -> None:
    failure = read_failure(
        "terminate called after throwing an instance of 'c10::Error'\n  what():  CUDA error: out of memory\n"
    )
    assert failure is not None
    assert failure.kind == "out_of_memory"


def test_a_silent_end_is_explained_by_how_the_process_ended() -> None:
    assert "memory" in failure_by_exit(-9, "SIGKILL", None).reason
    assert "SIGSEGV" in failure_by_exit(-11, "SIGSEGV", None).reason
    assert "exit code 3" in failure_by_exit(3, None, None).reason
    assert failure_by_exit(None, None, "no such file: python9").kind == "not_started"
    assert "no exit code" in failure_by_exit(None, None, None).reason


def test_warnings_name_images_left_out_and_skipped_batches() -> None:
    text = "Error processing image: /d/a.png\nError processing image: /d/a.png\n"
    text += "# OOM during training step, skipping batch 1/3 #\n"
    found = read_warnings(text)
    assert [("/d/a.png" in line, "GPU memory" in line) for line in found] == [(True, False), (False, True)]


def test_losses_that_are_no_numbers_are_found_by_step() -> None:
    def bar(step: int, loss: str) -> str:
        return f"\rjob:  10%|#    | {step}/10 [00:00<00:01, 5.00it/s, lr: 1.0e-04 loss: {loss}]"

    assert read_no_numbers(bar(1, "5.0e-01"), "job") is None
    said = bar(1, "5.0e-01") + "loss is nan\n" + bar(1, "0.0e+00") + bar(2, "0.0e+00")
    assert read_no_numbers(said, "job") == NoNumbers(last_step=1, since_step=1)
    goes_on = said + "loss is nan\n" + bar(2, "0.0e+00") + bar(3, "0.0e+00")
    assert read_no_numbers(goes_on, "job") == NoNumbers(last_step=2, since_step=1)
    assert read_no_numbers(goes_on + bar(3, "4.0e-01"), "job") == NoNumbers(last_step=2, since_step=None)
    assert read_no_numbers(bar(4, "nan") + bar(5, "inf"), "job") == NoNumbers(last_step=5, since_step=4)


def test_a_resumed_step_is_found() -> None:
    text = "#### IMPORTANT RESUMING FROM /o/j/j_000000250.safetensors ####\n"
    assert read_resumed_step(text) is None
    assert read_resumed_step(text + "Found step 250 in metadata, starting from there\n") == 250


def test_tidy_lines_keep_the_last_frame_of_each_run() -> None:
    lines = tidy_lines(log("completed.txt"))
    assert not any("\r" in line or "\x1b" in line for line in lines)
    assert sum(line.startswith("tiny_ui:") for line in lines) < 8
    assert any(line.startswith("tiny_ui: 100%") and "40/40" in line for line in lines)
    assert "Saved optimizer to /ai-toolkit/output/tiny_ui/optimizer.pt" in lines


@given(st.text(), st.integers(0, 12_000))
def test_no_text_and_no_cut_breaks_the_reader(noise: str, cut: int) -> None:
    text = log("completed.txt")[cut:] + noise
    progress = read_progress(text, "tiny_ui")
    read_failure(text)
    read_warnings(text)
    read_no_numbers(text, "cat")
    read_losses(text, "tiny_ui")
    tidy_lines(text)
    assert progress.step is None or progress.step >= 0
