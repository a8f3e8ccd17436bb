"""What the finished trainings of this machine took: seconds a step, time beside the steps, size of the LoRA."""

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from anyio import to_thread

from aitk_mcp.documents import BadDocument, read_text
from aitk_mcp.loss_log import LossPoint
from aitk_mcp.recipes.resources import complete, work_of
from aitk_mcp.training.jobs import TrainingJobs
from aitk_mcp.training.reports import TrainingReport

_NEWEST = 20
_POINTS = 500


@dataclass(frozen=True)
class FinishedRun:
    """A training that came to its end here; times in seconds, `work` as `work_of` counts it."""

    job_id: str
    engine: str
    architecture: str
    rank: int
    work: float
    seconds_per_step: float
    other_seconds: float
    lora_bytes: int | None


class RunHistory:
    """Learn from the jobs of one trainer."""

    def __init__(self, jobs: TrainingJobs, outputs: Path) -> None:
        self._jobs = jobs
        self._outputs = outputs

    async def finished(self, architecture: str) -> list[FinishedRun]:
        """Return the newest finished runs of an architecture on the engine that trains now, newest first."""
        reports, _ = await self._jobs.all("completed")
        found: list[FinishedRun] = []
        for report in [each for each in reports if each.engine == self._jobs.engine][:_NEWEST]:
            process = await to_thread.run_sync(_process_of, report.output_folder)
            if process is not None and str(process["model"].get("arch")) == architecture:
                curve = await self._jobs.loss(report.job_id, _POINTS)
                run = await to_thread.run_sync(self._run, report, process, curve.points)
                found += [run] if run is not None else []
        return found

    def _run(
        self, report: TrainingReport, process: Mapping[str, Any], points: Sequence[LossPoint]
    ) -> FinishedRun | None:
        trained = report.step - (report.resumed_from_step or 0)
        if not report.elapsed_s or trained <= 0:
            return None
        seconds = _seconds_per_step(points) or report.elapsed_s / trained
        model = self._outputs / report.model_path if report.model_path else None
        return FinishedRun(
            job_id=report.job_id,
            engine=report.engine,
            architecture=str(process["model"]["arch"]),
            rank=int(process["network"].get("linear") or 0),
            work=work_of(process),
            seconds_per_step=seconds,
            other_seconds=max(0.0, report.elapsed_s - seconds * trained),
            lora_bytes=model.stat().st_size if model is not None and model.is_file() else None,
        )


def _seconds_per_step(points: Sequence[LossPoint]) -> float | None:
    """Return the median of the times between recorded steps, in which samples and saves do not count."""
    timed = [(point.step, point.wall_time) for point in points if point.wall_time is not None]
    gaps = [
        (later - earlier) / (after - before)
        for (before, earlier), (after, later) in pairwise(timed)
        if after > before and later >= earlier
    ]
    return statistics.median(gaps) if gaps else None


def _process_of(folder: Path) -> dict[str, Any] | None:
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        document = read_text(text, is_json=False, environment=os.environ)
    except (OSError, UnicodeDecodeError, BadDocument):
        return None
    return complete(document.process)
