"""Which jobs read a dataset, whichever trainer runs them."""

from aitk_mcp.training.dataset_users import jobs_using
from tests.contract.trainer.conftest import ENDLESS, PATIENCE_S, Workshop


async def test_a_dataset_is_in_use_while_a_job_waits_or_runs(workshop: Workshop) -> None:
    jobs, folder = workshop.jobs, workshop.dataset()
    running = (await jobs.start(workshop.config("cat", steps=ENDLESS))).job_id
    waiting = (await jobs.start(workshop.config("dog", steps=ENDLESS))).job_id
    assert await jobs_using(workshop.trainer, folder) == [waiting, running]
    assert await jobs_using(workshop.trainer, folder.parent) == [waiting, running]
    assert await jobs_using(workshop.trainer, folder / "deep") == [waiting, running]
    assert await jobs_using(workshop.trainer, folder.with_name("cat")) == []
    await jobs.stop(waiting, save=False, wait_s=PATIENCE_S)
    await jobs.stop(running, save=False, wait_s=PATIENCE_S)
    assert await jobs_using(workshop.trainer, folder) == []
