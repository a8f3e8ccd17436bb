"""Jobs on disk, which several callers read and delete at once."""

import time
from pathlib import Path

import anyio
import pytest
import yaml
from anyio import to_thread

from aitk_mcp.configs.configs import Configs
from aitk_mcp.datasets.datasets import Datasets
from aitk_mcp.documents import read_document
from aitk_mcp.trainers.cli import CliTrainer
from aitk_mcp.trainers.command_lines import CommandLine
from aitk_mcp.trainers.job_folders import JobFolders
from aitk_mcp.trainers.port import Order
from aitk_mcp.trainers.run_folder import Launch, StopRequest
from aitk_mcp.training.jobs import TrainingJobs
from mcp_toolserver.errors import NotFound


@pytest.fixture
def folders(tmp_path: Path) -> JobFolders:
    return JobFolders(tmp_path / "jobs")


@pytest.fixture
def jobs(tmp_path: Path, folders: JobFolders) -> TrainingJobs:
    trainer = CliTrainer(CommandLine.embedded(tmp_path), folders.root)
    datasets = Datasets(tmp_path / "datasets")
    return TrainingJobs(trainer, Configs(tmp_path / "configs", outputs=tmp_path, datasets=datasets, engine="embedded"))


def _stopped(folders: JobFolders, *names: str) -> list[str]:
    """Make jobs that were taken out of the queue before they ran; return their ids."""

    def launch(config: Path, log: Path) -> Launch:
        return Launch(time.time(), "cpu", ("true", str(config), str(log)), str(folders.root), {})

    ids: list[str] = []
    source = folders.root.with_name("config.yaml")
    for name in names:
        document = {"job": "extension", "config": {"name": name, "process": [{"type": "diffusion_trainer"}]}}
        source.write_text(yaml.safe_dump(document))
        order = Order(name, read_document(document), source)
        job = folders.create(order, "embedded", folders.root.parent / "output" / name, launch)
        job.run.write_stop(StopRequest(time.time(), save=False))
        ids.append(job.order.job_id)
    return ids


async def test_jobs_are_listed_while_others_are_deleted(folders: JobFolders, jobs: TrainingJobs) -> None:
    kept, *doomed = await to_thread.run_sync(_stopped, folders, "kept", *(f"cat{number}" for number in range(15)))
    seen: list[int] = []
    async with anyio.create_task_group() as group:

        async def delete() -> None:
            for job_id in doomed:
                await jobs.delete(job_id, models=True, wait_s=0)
            group.cancel_scope.cancel()

        group.start_soon(delete)
        while True:
            found, _ = await jobs.all()
            assert kept in [each.job_id for each in found]
            seen.append(len(found))
    assert seen
    assert [each.job_id for each in (await jobs.all())[0]] == [kept]


@pytest.mark.parametrize("meant", ["cat", "Cat"])
async def test_the_name_of_a_config_leads_to_its_jobs(folders: JobFolders, jobs: TrainingJobs, meant: str) -> None:
    (job_id,) = await to_thread.run_sync(_stopped, folders, "cat")
    with pytest.raises(NotFound) as caught:
        await jobs.status(meant)
    assert caught.value.details["closest_matches"] == [job_id]
    assert f"`{job_id}`" in str(caught.value.hint)
