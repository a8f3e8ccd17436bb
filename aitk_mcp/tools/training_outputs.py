"""The tools that show what a training wrote: its log and its loss."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal
from urllib.parse import quote

from anyio import to_thread
from pydantic import Field

from aitk_mcp.training.jobs import TrainingJobs
from aitk_mcp.training.loss_plots import LossPlots, PlotFormat
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Picture, Result, Tool

_JOB_ID = "id of the job, from start-training or list-training-jobs"
_JOB_ID_MISTAKES = {"id": "the argument is `job_id`.", "job": "the argument is `job_id`."}


class GetTrainingLogs(Arguments):
    """Return the last lines of a training's log; a progress bar counts as one line, at its last state."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {**_JOB_ID_MISTAKES, "tail": "the argument is `lines`."}
    job_id: str = Field(description=_JOB_ID)
    lines: int = Field(100, ge=1, le=5000, description="most lines to return")


class GetTrainingLoss(Arguments):
    """Return the loss of a training step by step, its trend, a one-line plot, and the address of a picture of it, which
    shows each step, the running mean, checkpoints and samples. Over MCP the picture is shown too."""

    classic_mistakes: ClassVar[Mapping[str, str]] = _JOB_ID_MISTAKES
    job_id: str = Field(description=_JOB_ID)
    max_points: int = Field(200, ge=1, le=20000, description="most points to return, evenly spread over the steps")
    plot_format: PlotFormat = Field("png", description="format of the picture at `plot_url`")
    show: bool = Field(True, description="show the picture within an answer over MCP, always as PNG")


class TrainingLogs(Result):
    """The end of a log."""

    job_id: str = Field(description="id of the job")
    lines: list[str] = Field(description="the last lines, oldest first")
    size_bytes: int = Field(description="size of the whole log")
    truncated: bool = Field(description="whether there is more before these lines")


class LossValue(Result):
    """The loss of one step."""

    step: int = Field(description="step, counted from 0")
    loss: float | None = Field(description="loss at this step; null where it was not a number (NaN)")
    learning_rate: float | None = Field(description="learning rate at this step")


class TrainingLoss(Result):
    """The course of a training's loss."""

    job_id: str = Field(description="id of the job")
    points: list[LossValue] = Field(description="loss by step")
    total_points: int = Field(description="points recorded in all")
    loss_first: float | None = Field(description="mean of the first points (50, or a quarter of fewer than 200)")
    loss_last: float | None = Field(description="mean of as many last points")
    trend: Literal["falling", "flat", "rising"] | None = Field(description="how the last compare with the first")
    plot: str = Field(description="the curve as one line of blocks")
    plot_url: str = Field(description="address of the picture of the curve")


def output_tools(jobs: TrainingJobs, plots: LossPlots) -> list[AnyTool]:
    """Return the tools for what trainings write."""

    async def logs(args: GetTrainingLogs, call: Call) -> TrainingLogs:
        page = await jobs.logs(args.job_id, args.lines)
        return TrainingLogs(
            job_id=args.job_id, lines=list(page.lines), size_bytes=page.size_bytes, truncated=page.truncated
        )

    async def loss(args: GetTrainingLoss, call: Call) -> TrainingLoss:
        curve = await jobs.loss(args.job_id, args.max_points)
        if args.show and call.pictures is not None:
            picture = await to_thread.run_sync(plots.draw, await jobs.loss_plot(args.job_id))
            call.pictures.append(Picture(picture, "image/png", f"Loss of job {args.job_id}"))
        trend = curve.trend
        return TrainingLoss(
            job_id=args.job_id,
            points=[
                LossValue(
                    step=point.step,
                    # More digits than a float of the trainer has would only cost the caller's context.
                    loss=float(f"{point.loss:.6g}") if math.isfinite(point.loss) else None,
                    learning_rate=point.learning_rate,
                )
                for point in curve.points
            ],
            total_points=curve.total_points,
            loss_first=float(f"{trend.first:.6g}") if trend else None,
            loss_last=float(f"{trend.last:.6g}") if trend else None,
            trend=trend.word if trend else None,
            plot=curve.sparkline,
            plot_url=f"{call.base_url}/jobs/{quote(args.job_id)}/loss.{args.plot_format}",
        )

    return [
        Tool(name="get-training-logs", args=GetTrainingLogs, result=TrainingLogs, effect=Effect.READ, run=logs),
        Tool(name="get-training-loss", args=GetTrainingLoss, result=TrainingLoss, effect=Effect.READ, run=loss),
    ]
