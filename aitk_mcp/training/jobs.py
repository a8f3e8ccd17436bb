"""Train: start a job, follow it, wait for it, stop it. Jobs outlive the call, and this server."""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
from anyio import to_thread

from aitk_mcp.documents import TrainingDocument
from aitk_mcp.job_log import read_losses, tidy_lines
from aitk_mcp.loss_log import LossPoint
from aitk_mcp.recipes.problems import refuse
from aitk_mcp.trainers.port import JobStatus, Order, Sample, Trainer, TrainerJob
from aitk_mcp.training.config_source import ConfigSource
from aitk_mcp.training.disk_room import check_room, free_bytes_below
from aitk_mcp.training.loss_curve import Trend, no_number_since, sparkline, thin, trend_of
from aitk_mcp.training.loss_plots import LossPlot
from aitk_mcp.training.outcomes import (
    DeleteOutcome,
    StopOutcome,
    deletion_in_words,
    earlier_in_words,
    stop_in_words,
)
from aitk_mcp.training.reports import TrainingReport, report_of
from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, closest
from mcp_toolserver.tools import Report, unheard

log = logging.getLogger(__name__)

_TEND_EVERY_S = 1.0
_LOOK_FIRST_S, _LOOK_LAST_S = 0.1, 1.0
_STATUS_BYTES = 64 * 1024
_LOG_BYTES, _MOST_LOG_BYTES = 128 * 1024, 8 * 1024 * 1024
# A progress bar writes megabytes that come to one line: beyond this, reading on finds hardly another.
_MOST_PAGE_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class LogPage:
    """The last lines of a log, each bar at its last frame; `size_bytes` is that of the whole log."""

    lines: tuple[str, ...]
    size_bytes: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class LossCurve:
    """The loss of a job: points (thinned to what was asked for), how many there are, and their course."""

    points: tuple[LossPoint, ...]
    total_points: int
    trend: Trend | None
    sparkline: str


class TrainingJobs:
    """Start and follow the jobs of one trainer."""

    def __init__(
        self,
        trainer: Trainer,
        configs: ConfigSource,
        refusal: Callable[[TrainingDocument], str | None] = lambda document: None,
        free_bytes: Callable[[Path], int] = free_bytes_below,
    ) -> None:
        """Take the configs by name, why the trainer would not train one (None where it would), and a disk's room."""
        self._trainer = trainer
        self._configs = configs
        self._refusal = refusal
        self._free_bytes = free_bytes

    @property
    def engine(self) -> str:
        """Return what trains: `cli` or `embedded`."""
        return self._trainer.engine

    @asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """Find the jobs of an earlier server again, and look after the queue until the context ends; jobs go on."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            yield
            tasks.cancel_scope.cancel()

    async def start(self, config_name: str, gpu_ids: str | None = None) -> TrainingReport:
        """Queue a training of a stored config and start it if its GPU is free; doubts about it are its first warnings.

        Raises NotFound for an unknown config, InvalidArguments for one that could only fail (a dataset that is gone,
        a model that this trainer lacks), InsufficientStorage where its LoRA has no room on the disk, and Conflict while
        another job writes to the same output.
        """
        config = await self._configs.get(config_name)
        problems = (await self._configs.check_stored(config_name)).problems
        refuse(problems)
        refused = self._refusal(config.training)
        if refused:
            raise InvalidArguments(
                f"The config `{config.name}` cannot be trained here: {refused}.",
                hint="Create it again with another model_name.",
                details={"config_name": config.name, "architecture": config.training.architecture},
            )
        scarce = await self._check_room(config.training)
        job_id = await self._trainer.submit(Order(config.name, config.training, config.path, gpu_ids))
        report = await self.status(job_id)
        doubts = [" ".join(filter(None, (problem.message, problem.hint))) for problem in problems]
        more = [text for text in (scarce, earlier_in_words(report)) if text is not None]
        return replace(report, warnings=(*doubts, *more, *report.warnings))

    async def status(self, job_id: str) -> TrainingReport:
        """Return how a job stands."""
        return await self._report(await self._trainer.job(job_id))

    async def all(self, status: JobStatus | None = None, limit: int | None = None) -> tuple[list[TrainingReport], int]:
        """Return the jobs (of one status), newest first, and how many there are beyond `limit`."""
        jobs = [job for job in await self._trainer.jobs() if status in (None, job.status)]
        reports: list[TrainingReport] = []
        for job in jobs[:limit]:
            # Another caller may delete it meanwhile.
            with suppress(NotFound):
                reports.append(await self._report(job))
        return reports, len(jobs)

    async def wait(self, job_id: str, wait_s: float, report: Report = unheard) -> TrainingReport:
        """Return the job when it has ended, or as it is after `wait_s` seconds; waiting too short loses nothing."""

        async def has_ended(now: TrainingReport) -> bool:
            return now.has_ended

        return await self._until(job_id, wait_s, has_ended, report)

    async def stop(self, job_id: str, *, save: bool, wait_s: float, report: Report = unheard) -> StopOutcome:
        """End a job, saving first where that is wanted and possible; wait up to `wait_s` seconds for its end."""
        before = await self.status(job_id)
        await self._trainer.stop(job_id, save=save)
        after = await self.wait(job_id, wait_s, report)
        saved = save and self._trainer.can_save and after.checkpoint_step not in (None, before.checkpoint_step)
        refused = save and not self._trainer.can_save
        why_not = " AI Toolkit's command line cannot save when it is stopped." if refused else ""
        return StopOutcome(after, saved, stop_in_words(before, after, saved=saved, why_not=why_not))

    async def save(self, job_id: str, *, wait_s: float) -> TrainingReport:
        """Make a running job save, and wait up to `wait_s` seconds until that is done."""
        before = await self.status(job_id)
        await self._trainer.save(job_id)

        async def is_saved(now: TrainingReport) -> bool:
            return now.has_ended or now.checkpoint_step != before.checkpoint_step

        return await self._until(job_id, wait_s, is_saved)

    async def sample_now(self, job_id: str, *, wait_s: float) -> tuple[TrainingReport, list[Sample]]:
        """Make a running job draw its sample pictures, and wait up to `wait_s` seconds until all of them are there.

        Return the job and what was drawn by then. Raises Conflict where the job has no prompts to draw.
        """
        job = await self._trainer.job(job_id)
        if not job.prompts:
            raise Conflict(
                f"Job `{job_id}` draws no test prompts, so there is nothing to draw.",
                hint="Give `test_prompts` to create-training-config and leave `disable_sampling` out; a job keeps the"
                " config that it was started with.",
                details={"job_id": job_id},
            )
        known = {sample.path for sample in await self._trainer.samples(job_id)}
        await self._trainer.sample_now(job_id)
        drawn: list[Sample] = []

        async def is_drawn(now: TrainingReport) -> bool:
            drawn[:] = [sample for sample in await self._trainer.samples(job_id) if sample.path not in known]
            return now.has_ended or len(drawn) >= len(job.prompts)

        return await self._until(job_id, wait_s, is_drawn), drawn

    async def delete(self, job_id: str, *, models: bool, wait_s: float, report: Report = unheard) -> DeleteOutcome:
        """Forget a job, with its LoRAs where `models` is set; one that runs is stopped and waited for first.

        Raises Conflict, before anything is stopped, where the LoRAs are to stay and cannot, or to go and are another
        job's too; and where the job does not end within `wait_s` seconds: it is not deleted then.
        """
        job = await self._trainer.job(job_id)
        others = [other for other in await self._trainer.jobs() if other.job_id != job_id]
        sharing = [other.job_id for other in others if other.output_folder == job.output_folder]
        await self._refuse_deletion(job, sharing, models=models)
        was_stopped = job.status in ("queued", "running")
        if was_stopped:
            await self._stop_for_deletion(job_id, wait_s, report)
        last = await self.status(job_id)
        paths = tuple(
            f"{job.output_folder.name}/{saved.path.name}" for saved in await self._trainer.checkpoints(job_id)
        )
        await self._trainer.delete(job_id, models=models)
        gone, kept = (paths, ()) if models else ((), paths)
        words = deletion_in_words(was_stopped=was_stopped, deleted=len(gone), kept=len(kept), shared=bool(sharing))
        return DeleteOutcome(last, was_stopped, gone, kept, words)

    async def resume(self, job_id: str) -> TrainingReport:
        """Queue a failed or stopped job again; it goes on from its newest checkpoint."""
        await self._trainer.resume(job_id)
        return await self.status(job_id)

    async def reconcile(self) -> list[TrainerJob]:
        """Start what can be started and end what should have ended, now; return every job as it then is."""
        await self._trainer.tend()
        return await self._trainer.jobs()

    async def logs(self, job_id: str, lines: int) -> LogPage:
        """Return the last lines of a job's log."""
        max_bytes = _LOG_BYTES
        while True:
            found = await self._trainer.log(job_id, max_bytes=max_bytes)
            cut = found.size_bytes > max_bytes
            tidy = tidy_lines(found.tail)[1 if cut else 0 :]
            if len(tidy) >= lines or not cut or max_bytes >= _MOST_PAGE_BYTES:
                return LogPage(tuple(tidy[-lines:]), found.size_bytes, truncated=cut or len(tidy) > lines)
            max_bytes *= 4

    async def loss(self, job_id: str, max_points: int) -> LossCurve:
        """Return the loss of a job, from its database, or from its log where it records none."""
        points = await self._points(job_id)
        return LossCurve(tuple(thin(points, max_points)), len(points), trend_of(points), sparkline(points))

    async def loss_plot(self, job_id: str) -> LossPlot:
        """Return what a picture of the loss shows."""
        job = await self._trainer.job(job_id)
        checkpoints = await self._trainer.checkpoints(job_id)
        return LossPlot(
            title=job.name,
            points=await self._points(job_id),
            total_steps=job.total_steps,
            checkpoint_steps=tuple(saved.step for saved in checkpoints if saved.step is not None),
            sample_steps=tuple(dict.fromkeys(sample.step for sample in await self._trainer.samples(job_id))),
        )

    async def samples(self, job_id: str) -> tuple[TrainerJob, list[Sample]]:
        """Return a job and its sample pictures, oldest first."""
        return await self._trainer.job(job_id), await self._trainer.samples(job_id)

    async def sample_file(self, job_id: str, filename: str) -> Path:
        """Return the file of a sample picture by its name; raises NotFound."""
        samples = {sample.path.name: sample for sample in await self._trainer.samples(job_id)}
        if filename not in samples:
            raise NotFound(
                f"Job `{job_id}` has no sample `{filename}`.",
                hint="list-samples names them.",
                details={"job_id": job_id, "closest_matches": closest(filename, samples)},
            )
        return await self.picture_file(samples[filename])

    async def picture_file(self, sample: Sample) -> Path:
        """Return a file of this machine with a sample picture; raises NotFound where the trainer deleted it."""
        try:
            return await self._trainer.picture_file(sample)
        except FileNotFoundError:
            raise NotFound(
                f"Sample `{sample.path.name}` is gone.", hint="list-samples names those there are."
            ) from None

    async def _watch(self) -> None:
        while True:
            try:
                await self._trainer.tend()
            except Exception:
                # One broken job must not leave the others without a watch.
                log.exception("looking after the training queue failed")
            await anyio.sleep(_TEND_EVERY_S)

    async def _check_room(self, training: TrainingDocument) -> str | None:
        folder = Path(training.training_folder)
        if self.engine == "ui" and not await to_thread.run_sync(folder.is_dir):
            # It lies on another machine.
            return None
        free_bytes = await to_thread.run_sync(self._free_bytes, folder)
        return check_room(training.process, folder, free_bytes, is_miniature=self.engine == "embedded")

    async def _refuse_deletion(self, job: TrainerJob, sharing: list[str], *, models: bool) -> None:
        details = {"job_id": job.job_id, "status": job.status}
        if models and sharing:
            raise Conflict(
                f"Job `{sharing[0]}` has the same output folder ({job.output_folder.name}), so that its LoRAs would go"
                f" with those of job `{job.job_id}`.",
                hint="Delete the other job first, or this one with `delete_models: false`; delete-model deletes files"
                " one by one.",
                details={**details, "sharing": sharing},
            )
        if not models and not self._trainer.can_keep_models and await self._trainer.checkpoints(job.job_id):
            raise Conflict(
                f"AI Toolkit's server deletes the LoRAs of job `{job.job_id}` with it, and they were to stay.",
                hint="Keep them with export-model or download-model, then call again with `delete_models: true`.",
                details=details,
            )

    async def _stop_for_deletion(self, job_id: str, wait_s: float, report: Report) -> None:
        try:
            after = (await self.stop(job_id, save=False, wait_s=wait_s, report=report)).report
        except Conflict:
            # It may have ended by itself at this moment.
            after = await self.status(job_id)
        if not after.has_ended:
            raise Conflict(
                f"Job `{job_id}` was asked to stop and has not ended after {wait_s:g} s, so it is not deleted yet.",
                hint="Call again: it is deleted once it has ended.",
                details={"job_id": job_id, "status": after.status},
            )

    async def _report(self, job: TrainerJob) -> TrainingReport:
        found = await self._trainer.log(job.job_id, max_bytes=_STATUS_BYTES)
        checkpoints = await self._trainer.checkpoints(job.job_id)
        report = report_of(job, found, checkpoints, time.time())
        if report.no_number_since is None or found.size_bytes <= _STATUS_BYTES:
            return report
        # It may have begun before the part of the log that was read.
        begun = no_number_since(await self._points(job.job_id))
        return report_of(job, found, checkpoints, time.time(), no_number_since=begun)

    async def _until(
        self,
        job_id: str,
        wait_s: float,
        is_reached: Callable[[TrainingReport], Awaitable[bool]],
        report: Report = unheard,
    ) -> TrainingReport:
        # The truth is in files that another process writes, so it has to be looked at again and again.
        deadline = time.monotonic() + wait_s
        pause_s = _LOOK_FIRST_S
        told: tuple[int, str] | None = None
        while True:
            await self._trainer.tend()
            now = await self.status(job_id)
            if told != (now.step, now.info):
                told = (now.step, now.info)
                await report(now.step, now.total_steps, _in_words(now))
            left_s = deadline - time.monotonic()
            if await is_reached(now) or left_s <= 0:
                return now
            await anyio.sleep(min(pause_s, left_s))
            pause_s = min(_LOOK_LAST_S, pause_s * 1.5)

    async def _points(self, job_id: str) -> list[LossPoint]:
        points = await self._trainer.losses(job_id)
        if points:
            return points
        job = await self._trainer.job(job_id)
        found = await self._trainer.log(job_id, max_bytes=_MOST_LOG_BYTES)
        logged = read_losses(found.tail, job.name)
        return [LossPoint(entry.step, entry.loss, entry.learning_rate) for entry in logged]


def _in_words(report: TrainingReport) -> str:
    if report.status != "running" or report.phase != "training":
        return report.info
    loss = f", loss {report.loss:.3g}" if report.loss is not None else ""
    left = f", {report.eta_s} s left" if report.eta_s is not None else ""
    return f"{report.info}: step {report.step} of {report.total_steps}{loss}{left}"
