"""Which LoRAs other programs may hard-link, and that a training that goes on has files of its own."""

from collections.abc import Callable
from typing import TypeVar

from anyio import to_thread

from aitk_mcp.models.digests import Digests
from aitk_mcp.models.links import Links
from aitk_mcp.models.models import Models
from tests.contract.trainer.conftest import ENDLESS, PATIENCE_S, CommandLineWorkshop, UiWorkshop, Workshop, ends, trains
from tests.fakes.disk_faults import largest_file

T = TypeVar("T")


def models_of(workshop: Workshop) -> Models:
    """Return the LoRAs of a workshop."""
    return Models(workshop.root / "output", Digests(workshop.root / "digests.sqlite"))


async def trained(workshop: Workshop) -> None:
    """Train a LoRA `cat` to its end."""
    report = await workshop.jobs.start(workshop.config("cat", steps=6))
    assert (await ends(workshop.jobs, report.job_id)).status == "completed"


async def in_thread(work: Callable[[], T]) -> T:
    return await to_thread.run_sync(work)


async def test_a_training_that_goes_on_has_files_of_its_own(command_line_workshop: CommandLineWorkshop) -> None:
    workshop, jobs = command_line_workshop, command_line_workshop.jobs
    await trained(workshop)
    model, links = await models_of(workshop).find("cat"), Links(workshop.trainer)
    assert await links.are_safe(model)
    imported = workshop.root / "imported.safetensors"
    await in_thread(lambda: imported.hardlink_to(model.path))
    content = await in_thread(imported.read_bytes)
    report = await jobs.start(workshop.config("cat", steps=ENDLESS))
    # From the moment on that it is ordered: who linked before finds it copied, and who asks now is told.
    assert (await in_thread(imported.stat)).st_nlink == 1
    assert await links.are_safe(model) is (workshop.engine == "embedded")
    await trains(jobs, report.job_id)
    await in_thread(lambda: model.path.write_bytes(b"overwritten in place"))
    assert await in_thread(imported.read_bytes) == content
    await jobs.stop(report.job_id, save=False, wait_s=PATIENCE_S)
    assert await links.are_safe(model)


async def test_what_another_server_trains_is_not_to_be_linked_before_it_is_exported(ui_workshop: UiWorkshop) -> None:
    await trained(ui_workshop)
    models, links = models_of(ui_workshop), Links(ui_workshop.trainer)
    model = await models.find("cat")
    assert not await links.are_safe(model)
    assert await links.are_safe(await models.export(model, "kept", overwrite=False))


async def test_a_job_whose_files_cannot_be_copied_fails_and_says_so(command_line_workshop: CommandLineWorkshop) -> None:
    workshop = command_line_workshop
    await trained(workshop)
    model = await models_of(workshop).find("cat")
    imported = workshop.root / "imported.safetensors"
    await in_thread(lambda: imported.hardlink_to(model.path))
    with largest_file(model.size_bytes - 1):
        report = await workshop.jobs.start(workshop.config("cat", steps=12))
    assert report.status == "failed"
    assert "could not be copied" in str(report.failure)
    assert (await in_thread(imported.stat)).st_nlink == 2
    assert [path.name for path in model.path.parent.glob(".*.part")] == []
