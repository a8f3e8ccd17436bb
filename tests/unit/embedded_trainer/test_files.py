"""What the embedded trainer writes, held against what AI Toolkit 0.12.26 was seen to write."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from aitk_mcp.job_failures import read_failure
from aitk_mcp.job_log import was_stopped
from aitk_mcp.trainers.output_folder import read_checkpoints
from lora_files.header import read_header
from tinyflux import Lora, TinyFlux, text_to_pixels, weights_path

KEY = re.compile(r"transformer\.(single_)?transformer_blocks\.\d+\.[a-z0-9_.]+\.lora_[AB]\.weight")


def write_config(folder: Path, name: str = "cat", **changes: Any) -> Path:
    dataset = folder / "dataset"
    dataset.mkdir(exist_ok=True)
    Image.new("RGB", (32, 32), (10, 160, 150)).save(dataset / "a.png")
    (dataset / "a.txt").write_text("a cat")
    process: dict[str, Any] = {
        "type": "diffusion_trainer",
        "training_folder": str(folder / "output"),
        "trigger_word": "pxcat",
        "network": {"type": "lora", "linear": 4, "linear_alpha": 4},
        "save": {"dtype": "float16", "save_every": 4, "max_step_saves_to_keep": 4},
        "datasets": [{"folder_path": str(dataset)}],
        "train": {"steps": 6, "lr": 1e-4, "disable_sampling": True},
        "model": {"name_or_path": "tinyflux", "arch": "flux"},
    }
    for block, values in changes.items():
        process[block] = {**process.get(block, {}), **values} if isinstance(values, dict) else values
    config = folder / f"{name}.yaml"
    meta = {"name": "[name]", "version": "1.0"}
    config.write_text(
        yaml.safe_dump({"job": "extension", "config": {"name": name, "process": [process]}, "meta": meta})
    )
    return config


def run(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aitk_mcp.embedded.run", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    done = run(write_config(folder), "--log", folder / "logs" / "log.txt", folder=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "logs" / "log.txt").read_text().startswith("Running 1 job\n{\n")
    return folder / "output" / "cat"


def test_metadata_is_ai_toolkits_and_says_which_engine_it_was(trained: Path) -> None:
    header = read_header(trained / "cat.safetensors")
    metadata = dict(header.metadata)
    assert (
        metadata.pop("sshs_model_hash")
        == hashlib.sha256(
            (trained / "cat.safetensors").read_bytes()[header.file_bytes - sum_of_bytes(header) :]
        ).hexdigest()
    )
    assert json.loads(metadata.pop("software"))["name"] == "loraloop-embedded-trainer"
    assert metadata == {
        "name": "cat",
        "version": "1.0",
        "format": "pt",
        "training_info": '{"step": 6, "epoch": 6}',
        "ss_base_model_version": "flux.1",
        "ss_output_name": "cat",
        "ss_tag_frequency": '{"1_pxcat": {"pxcat": 1}}',
        "sshs_legacy_hash": "e3b0c442",
        "engine": "embedded",
        "base_model": "tinyflux",
    }


def sum_of_bytes(header: Any) -> int:
    return max(tensor.end for tensor in header.tensors.values())


def test_keys_are_those_that_ai_toolkit_gives_flux(trained: Path) -> None:
    header = read_header(trained / "cat.safetensors")
    assert all(KEY.fullmatch(key) for key in header.tensors)
    assert "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight" in header.tensors
    assert {tensor.dtype for tensor in header.tensors.values()} == {"F16"}
    assert {min(tensor.shape) for tensor in header.tensors.values()} == {4}


def test_strength_zero_gives_the_pixels_of_the_base(trained: Path) -> None:
    base, lora = TinyFlux.load(weights_path()), Lora.load(trained / "cat.safetensors")
    without = text_to_pixels(base, "pxcat", 3, steps=4)
    assert np.array_equal(without, text_to_pixels(base.with_loras([(lora, 0.0)]), "pxcat", 3, steps=4))
    assert not np.array_equal(without, text_to_pixels(base.with_loras([(lora, 1.0)]), "pxcat", 3, steps=4))


def test_files_have_ai_toolkits_names(trained: Path) -> None:
    assert [(entry.path.name, entry.step) for entry in read_checkpoints(trained, "cat")] == [
        ("cat_000000004.safetensors", 4),
        ("cat.safetensors", 6),
    ]
    assert {path.name for path in trained.iterdir()} == {
        "cat.safetensors",
        "cat_000000004.safetensors",
        "optimizer.npz",
        "config.yaml",
    }


def test_no_tag_frequency_without_a_trigger_word_and_float32_on_request(tmp_path: Path) -> None:
    config = write_config(tmp_path, trigger_word=None, save={"dtype": "fp32"})
    assert run(config, folder=tmp_path).returncode == 0
    header = read_header(tmp_path / "output" / "cat" / "cat.safetensors")
    assert "ss_tag_frequency" not in header.metadata
    assert {tensor.dtype for tensor in header.tensors.values()} == {"F32"}


def test_a_second_run_with_more_steps_goes_on_and_one_of_another_rank_fails_clearly(tmp_path: Path) -> None:
    assert run(write_config(tmp_path), folder=tmp_path).returncode == 0
    more = run(write_config(tmp_path, train={"steps": 10}), folder=tmp_path)
    assert "#### IMPORTANT RESUMING FROM " in more.stdout
    assert "Found step 6 in metadata, starting from there" in more.stdout
    assert "Loading optimizer state from" in more.stdout
    other = run(write_config(tmp_path, train={"steps": 12}, network={"linear": 8}), folder=tmp_path)
    failure = read_failure(other.stdout + other.stderr)
    assert other.returncode == 1
    assert failure is not None
    assert failure.kind == "checkpoint_mismatch"


def test_the_same_seed_gives_the_same_lora(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run(write_config(tmp_path, name, training_seed=5), folder=tmp_path).returncode == 0
    loras = [Lora.load(tmp_path / "output" / name / f"{name}.safetensors") for name in ("one", "two")]
    assert all(np.array_equal(value, loras[1].tensors[key]) for key, value in loras[0].tensors.items())


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"datasets": [{"folder_path": "/nope/ds"}]}, "dataset_missing"),
        ({"model": {"arch": "sdxl"}}, "bad_config"),
        ({"network": {"type": "lokr"}}, "bad_config"),
    ],
)
def test_failures_have_ai_toolkits_words_and_a_reason(tmp_path: Path, changes: dict[str, Any], kind: str) -> None:
    failed = run(write_config(tmp_path, **changes), folder=tmp_path)
    assert failed.returncode == 1
    assert "Result:\n - 0 completed jobs\n - 1 failure\n====" in failed.stdout
    failure = read_failure(failed.stdout + failed.stderr)
    assert failure is not None
    assert failure.kind == kind
    assert not was_stopped(failed.stdout)


def test_a_config_is_found_without_its_extension_and_renamed_by_a_flag(tmp_path: Path) -> None:
    write_config(tmp_path, "[name]")
    assert run("-n", "renamed", tmp_path / "[name]", folder=tmp_path).returncode == 0
    assert (tmp_path / "output" / "renamed" / "renamed.safetensors").exists()


def test_recover_goes_on_with_the_next_config(tmp_path: Path) -> None:
    good = write_config(tmp_path, "good")
    done = run("--recover", tmp_path / "missing.yaml", good, folder=tmp_path)
    assert "Running 2 jobs" in done.stdout
    assert "Could not find config file" in done.stdout
    assert (tmp_path / "output" / "good" / "good.safetensors").exists()
