"""Tell which jobs read a dataset, so that it is not changed under them."""

from pathlib import Path

from anyio import to_thread

from aitk_mcp.trainers.port import ENDED, Trainer, TrainerJob


async def jobs_using(trainer: Trainer, folder: Path) -> list[str]:
    """Return the ids of the jobs that wait or run and have images in this folder, newest first."""
    waiting = [job for job in await trainer.jobs() if job.status not in ENDED]
    return await to_thread.run_sync(lambda: [job.job_id for job in waiting if _reads(job, folder.resolve())])


def _reads(job: TrainerJob, folder: Path) -> bool:
    places = [Path(path).resolve() for path in job.dataset_paths if path]
    # AI Toolkit looks into all folders below the one that it is given.
    return any(place.is_relative_to(folder) or folder.is_relative_to(place) for place in places)
