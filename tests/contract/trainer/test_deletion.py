"""Samples on demand, and the end of a job's record, whichever trainer runs it."""

import pytest

from aitk_mcp.trainers.port import ENDED
from mcp_toolserver.errors import Conflict, NotFound
from tests.contract.trainer.conftest import ENDLESS, PATIENCE_S, Workshop, ends, reaches, trains


async def test_samples_on_demand_are_drawn_or_refused_by_name(workshop: Workshop) -> None:
    jobs, trainer = workshop.jobs, workshop.trainer
    name = workshop.config("cat", steps=ENDLESS, sample={"sample_every": ENDLESS})
    job_id = (await jobs.start(name)).job_id
    await trains(jobs, job_id)
    if workshop.saves_on_demand:
        await trainer.sample_now(job_id)
        while not (drawn := await trainer.samples(job_id)):
            await jobs.wait(job_id, 0.05)
        assert [sample.prompt_index for sample in drawn] == [0]
        assert drawn[0].step >= 6
        await reaches(jobs, job_id, lambda report: report.step > drawn[0].step)
    else:
        with pytest.raises(Conflict, match="cannot be asked to draw samples") as caught:
            await trainer.sample_now(job_id)
        assert "sample_every" in str(caught.value.hint)
    await jobs.stop(job_id, save=False, wait_s=PATIENCE_S)
    with pytest.raises(Conflict):
        await trainer.sample_now(job_id)


async def test_a_job_that_has_not_ended_is_not_deleted(workshop: Workshop) -> None:
    jobs, trainer = workshop.jobs, workshop.trainer
    running = (await jobs.start(workshop.config("a", steps=ENDLESS))).job_id
    waiting = (await jobs.start(workshop.config("b", steps=2))).job_id
    for job_id in (running, waiting):
        with pytest.raises(Conflict, match="has ended"):
            await trainer.delete(job_id, models=True)
        assert (await trainer.job(job_id)).status not in ENDED
    await jobs.stop(waiting, save=False, wait_s=PATIENCE_S)
    await jobs.stop(running, save=False, wait_s=PATIENCE_S)


async def test_a_deleted_job_is_gone_with_all_it_left(workshop: Workshop) -> None:
    jobs, trainer = workshop.jobs, workshop.trainer
    job_id = (await jobs.start(workshop.config("cat", steps=12))).job_id
    await ends(jobs, job_id)
    await trainer.delete(job_id, models=True)
    assert job_id not in [job.job_id for job in await trainer.jobs()]
    assert not workshop.output("cat").exists()
    with pytest.raises(NotFound):
        await trainer.delete(job_id, models=True)


async def test_the_models_of_a_deleted_job_stay_or_the_refusal_says_why(workshop: Workshop) -> None:
    jobs, trainer = workshop.jobs, workshop.trainer
    job_id = (await jobs.start(workshop.config("cat", steps=12))).job_id
    await ends(jobs, job_id)
    if trainer.can_keep_models:
        await trainer.delete(job_id, models=False)
        left = {path.name for path in workshop.output("cat").iterdir()}
        assert left == {"cat.safetensors", "cat_000000010.safetensors", "cat_000000005.safetensors", "config.yaml"}
        assert await trainer.jobs() == []
    else:
        with pytest.raises(Conflict, match="deletes the LoRAs"):
            await trainer.delete(job_id, models=False)
        assert (workshop.output("cat") / "cat.safetensors").exists()
        assert (await trainer.job(job_id)).status == "completed"


async def test_a_job_without_models_leaves_nothing_behind(workshop: Workshop) -> None:
    jobs, trainer = workshop.jobs, workshop.trainer
    name = workshop.config("cat", steps=ENDLESS, save={"save_every": ENDLESS})
    job_id = (await jobs.start(name)).job_id
    await trains(jobs, job_id)
    await jobs.stop(job_id, save=False, wait_s=PATIENCE_S)
    await trainer.delete(job_id, models=False)
    assert not workshop.output("cat").exists()
