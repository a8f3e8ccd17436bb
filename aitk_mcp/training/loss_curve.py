"""Make a loss curve readable: fewer points, a trend, a smooth line, a line of blocks. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aitk_mcp.loss_log import LossPoint

_BLOCKS = "▁▂▃▄▅▆▇█"
_SMOOTHING_SHARE = 0.05
_WINDOW_POINTS = 50
LARGEST_LOSS = 1e30


@dataclass(frozen=True, slots=True)
class Trend:
    """The mean loss of the first and of the last points (50, or a quarter of fewer), and `last / first`."""

    first: float
    last: float

    @property
    def ratio(self) -> float:
        """Return last / first: below 1 the loss fell."""
        return self.last / self.first if self.first else 1.0

    @property
    def word(self) -> Literal["falling", "flat", "rising"]:
        """Return `falling`, `flat` or `rising`; changes below 3 % are noise."""
        if self.ratio < 0.97:
            return "falling"
        return "rising" if self.ratio > 1.03 else "flat"


def trend_of(points: Sequence[LossPoint]) -> Trend | None:
    """Return the trend, or None for fewer than 4 points."""
    losses = [point.loss for point in drawable(points)]
    if len(losses) < 4:
        return None
    window = min(_WINDOW_POINTS, len(losses) // 4) or 1
    return Trend(first=_mean(losses[:window]), last=_mean(losses[-window:]))


def no_number_since(points: Sequence[LossPoint]) -> int | None:
    """Return since which step no loss has been a number, None where the last one is.

    A loss of exactly 0 counts as none: that is what AI Toolkit records in place of NaN.
    """
    since: int | None = None
    for point in reversed(points):
        if math.isfinite(point.loss) and point.loss != 0:
            break
        since = point.step
    return since


def thin(points: Sequence[LossPoint], limit: int) -> list[LossPoint]:
    """Return at most `limit` of the points, evenly spread, the first and the last among them."""
    if len(points) <= limit:
        return list(points)
    if limit == 1:
        return [points[-1]]
    stride = (len(points) - 1) / (limit - 1)
    return [points[round(index * stride)] for index in range(limit)]


def sparkline(points: Sequence[LossPoint], width: int = 40) -> str:
    """Return the curve as one line of blocks, each the mean of its part; empty without points."""
    losses = [point.loss for point in drawable(points)]
    if not losses:
        return ""
    columns = min(width, len(losses))
    means = [
        _mean(losses[column * len(losses) // columns : (column + 1) * len(losses) // columns])
        for column in range(columns)
    ]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return a running mean that starts unbiased: each value weighs more than the ones before it."""
    share = max(_SMOOTHING_SHARE, 1 / len(losses))
    smooth: list[float] = []
    mean = weight = 0.0
    for loss in losses:
        mean = (1 - share) * mean + share * loss
        weight = (1 - share) * weight + share
        smooth.append(mean / weight)
    return smooth


def drawable(points: Sequence[LossPoint]) -> list[LossPoint]:
    """Return the points with a loss that can be drawn and reckoned with."""
    # Sums and differences of larger numbers leave the range of a float; a loss like that is as good as NaN.
    return [point for point in points if abs(point.loss) < LARGEST_LOSS]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
