"""Datasets that a training reads: they are not changed under it."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from mcp_toolserver.errors import Conflict

JobsUsing = Callable[[Path], Awaitable[list[str]]]
"""Return the ids of the jobs that wait or run and read the images in a folder."""


async def no_jobs(folder: Path) -> list[str]:
    """Tell that nothing trains."""
    return []


async def refuse_in_use(folder: Path, jobs_using: JobsUsing) -> None:
    """Raise Conflict, naming the jobs, where a training waits for the images of a dataset or reads them."""
    job_ids = await jobs_using(folder)
    if job_ids:
        raise Conflict(
            f"Dataset `{folder.name}` is in use: {in_words(job_ids)} would lose its images on the way.",
            hint="End it with stop-training, wait for it with wait-training, or upload the images under another name.",
            details={"dataset_name": folder.name, "job_ids": job_ids},
        )


def in_words(job_ids: list[str]) -> str:
    """Return jobs as a sentence begins with them."""
    named = ", ".join(f"`{job_id}`" for job_id in job_ids)
    return f"training job {named}" if len(job_ids) == 1 else f"each of the training jobs {named}"
