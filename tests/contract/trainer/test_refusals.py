"""What is refused or doubted before any process starts, and what a full disk leaves, whichever trainer runs it."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from aitk_mcp.training.disk_room import check_room, free_bytes_below
from aitk_mcp.training.jobs import TrainingJobs
from mcp_toolserver.errors import InsufficientStorage, InvalidArguments
from tests.contract.trainer.conftest import CommandLineWorkshop, Workshop, ends

MIB = 1024**2


async def test_a_dataset_that_was_emptied_is_refused_before_anything_starts(workshop: Workshop) -> None:
    name = workshop.config("cat", steps=2)
    for picture in workshop.dataset().glob("*.png"):
        picture.unlink()
    with pytest.raises(InvalidArguments, match="holds no image") as caught:
        await workshop.jobs.start(name)
    assert caught.value.details["problems"][0]["field"] == "datasets.folder_path"
    assert (await workshop.jobs.all())[1] == 0
    assert not workshop.output("cat").exists()


async def test_a_disk_without_room_for_one_lora_is_refused_before_anything_starts(workshop: Workshop) -> None:
    workshop.output("cat").parent.mkdir(exist_ok=True)
    full = TrainingJobs(workshop.trainer, workshop.configs, free_bytes=lambda folder: 20 * MIB)
    with pytest.raises(InsufficientStorage, match="20 MiB free") as caught:
        await full.start(workshop.config("cat", steps=2))
    assert caught.value.details["free_bytes"] == 20 * MIB
    assert (await workshop.jobs.all())[1] == 0
    assert not workshop.output("cat").exists()


async def test_what_is_doubtful_about_a_config_is_told_with_its_start(workshop: Workshop) -> None:
    workshop.output("cat").parent.mkdir(exist_ok=True)
    model = {"name_or_path": "black-forest-labs/FLUX.1-dev", "arch": "flux"}
    jobs = TrainingJobs(workshop.trainer, workshop.configs, free_bytes=lambda folder: 100 * MIB)
    started = await jobs.start(workshop.config("cat", steps=2, model=model))
    if workshop.engine == "embedded":
        assert [warning for warning in started.warnings if "gated" in warning] == []
        assert any(
            "miniature FLUX (tinyflux), not black-forest-labs/FLUX.1-dev" in warning for warning in started.warnings
        )
    else:
        assert any("FLUX.1-dev is gated. Accept its licence" in warning for warning in started.warnings)
        assert any("100 MiB free, and this training leaves about" in warning for warning in started.warnings)
    await ends(jobs, started.job_id)


async def test_a_disk_that_fills_up_while_saving_fails_the_job_and_keeps_what_was_there(
    command_line_workshop: CommandLineWorkshop,
) -> None:
    workshop = command_line_workshop
    jobs = workshop.jobs
    first = await ends(jobs, (await jobs.start(workshop.config("cat", steps=2))).job_id)
    kept = {path.name: path.read_bytes() for path in workshop.output("cat").glob("*.safetensors")}
    # Every file that the trainer writes may have this many KiB, its log among them, but no LoRA of this rank.
    command = ("bash", "-c", 'ulimit -f 60; exec "$0" "$@"', *workshop.command_line.command)
    full = replace(workshop, command_line=replace(workshop.command_line, command=command))
    name = workshop.config("cat", steps=7, network={"linear": 4}, save={"save_every": 5})
    failed = await ends(full.jobs, (await full.jobs.start(name)).job_id)
    assert (first.status, failed.status) == ("completed", "failed")
    assert failed.failure is not None
    assert (failed.failure.kind, "resume-training" in failed.failure.hint) == ("disk_full", True)
    assert {path.name: path.read_bytes() for path in workshop.output("cat").glob("*.safetensors")} == kept
    assert signal.SIGXFSZ.name not in failed.failure.reason


def test_room_is_measured_where_the_folder_will_be(tmp_path: Path) -> None:
    assert free_bytes_below(tmp_path / "not" / "there") > 0


@pytest.mark.parametrize(("free_mib", "warned"), [(4000, False), (300, True)])
def test_little_room_is_a_warning(free_mib: int, warned: bool, tmp_path: Path) -> None:
    process = {
        "model": {"arch": "flux"},
        "network": {"linear": 16},
        "save": {"save_every": 250},
        "train": {"steps": 1000},
    }
    assert (check_room(process, tmp_path, free_mib * MIB, is_miniature=False) is not None) is warned
