"""Make a loss curve readable: fewer points, a trend, a line of blocks, a picture. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from aitk_mcp.loss_log import LossPoint

_BLOCKS = "▁▂▃▄▅▆▇█"
_SIZE = (900, 420)
_MARGIN_LEFT, _MARGIN_TOP, _MARGIN_RIGHT, _MARGIN_BOTTOM = 76, 44, 20, 44
_INK, _GRID, _RAW, _SMOOTH = "#222222", "#dddddd", "#9ec5e8", "#1f5fa8"
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
    losses = [point.loss for point in _drawable(points)]
    if len(losses) < 4:
        return None
    window = min(_WINDOW_POINTS, len(losses) // 4) or 1
    return Trend(first=_mean(losses[:window]), last=_mean(losses[-window:]))


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
    losses = [point.loss for point in _drawable(points)]
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


def draw_curve(points: Sequence[LossPoint], title: str) -> bytes:
    """Return a PNG of the curve: each step pale, the running mean on top."""
    width, height = _SIZE
    image = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(image)
    font, large = ImageFont.load_default(size=13), ImageFont.load_default(size=17)
    draw.text((_MARGIN_LEFT, 12), title, fill=_INK, font=large)
    drawn = _drawable(points)
    if not drawn:
        draw.text((width / 2, height / 2), "no loss recorded yet", fill=_INK, font=large, anchor="mm")
        return _png(image)
    smooth = _smoothed([point.loss for point in drawn])
    low, high = _bounds([point.loss for point in drawn])
    first, last = drawn[0].step, max(drawn[-1].step, drawn[0].step + 1)
    right, bottom = width - _MARGIN_RIGHT, height - _MARGIN_BOTTOM

    def place(step: float, loss: float) -> tuple[float, float]:
        x = _MARGIN_LEFT + (step - first) / (last - first) * (right - _MARGIN_LEFT)
        y = bottom - (min(max(loss, low), high) - low) / (high - low) * (bottom - _MARGIN_TOP)
        return x, y

    for tick in range(5):
        loss = low + (high - low) * tick / 4
        step = first + (last - first) * tick / 4
        x, y = place(step, loss)
        draw.line([(_MARGIN_LEFT, y), (right, y)], fill=_GRID)
        draw.text((_MARGIN_LEFT - 8, y), f"{loss:.4g}", fill=_INK, font=font, anchor="rm")
        draw.text((x, bottom + 10), f"{step:.0f}", fill=_INK, font=font, anchor="mt")
    draw.text((right, height - 6), "step", fill=_INK, font=font, anchor="rb")
    if len(drawn) > 1:
        draw.line([place(point.step, point.loss) for point in drawn], fill=_RAW, width=1)
        line = [place(point.step, loss) for point, loss in zip(drawn, smooth, strict=True)]
        draw.line(line, fill=_SMOOTH, width=3, joint="curve")
    return _png(image)


def _bounds(losses: Sequence[float]) -> tuple[float, float]:
    """Return the range to draw: without the highest and lowest hundredth, which would flatten the rest."""
    ordered = sorted(losses)
    cut = len(ordered) // 100
    low, high = ordered[cut], ordered[-1 - cut]
    margin = max(0.5, abs(low) * 0.01)
    return (low, high) if high > low else (low - margin, high + margin)


def _smoothed(losses: Sequence[float]) -> list[float]:
    """Return a running mean that starts unbiased: each value weighs more than the ones before it."""
    share = max(_SMOOTHING_SHARE, 1 / len(losses))
    smooth: list[float] = []
    mean = weight = 0.0
    for loss in losses:
        mean = (1 - share) * mean + share * loss
        weight = (1 - share) * weight + share
        smooth.append(mean / weight)
    return smooth


def _drawable(points: Sequence[LossPoint]) -> list[LossPoint]:
    # Sums and differences of larger numbers leave the range of a float; a loss like that is as good as NaN.
    return [point for point in points if abs(point.loss) < LARGEST_LOSS]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
