"""Draw the loss of a training as a picture, with matplotlib. Blocks: its import alone takes half a second."""

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from aitk_mcp.loss_log import LossPoint
from aitk_mcp.training.loss_curve import drawable, smoothed, thin

PlotFormat = Literal["png", "svg"]
MEDIA_TYPES: dict[PlotFormat, str] = {"png": "image/png", "svg": "image/svg+xml"}

_SIZE_INCHES, _DOTS_PER_INCH = (9.0, 4.2), 100
_INK, _GRID, _RAW, _SMOOTH, _SAVED, _BAD = "#222222", "#e4e4e4", "#9ec5e8", "#1f5fa8", "#d9822b", "#c23030"
# More points than the picture has columns change nothing but its size.
_MOST_POINTS = 1800
# A loss that falls to a tenth is a line along the bottom on a linear scale.
_LOG_FROM_RATIO = 10.0
# It keeps its fonts and settings for all threads together.
_DRAWING = Lock()


@dataclass(frozen=True, slots=True)
class LossPlot:
    """What a picture shows: each recorded step (NaN where the loss was none), and at which steps files were made."""

    title: str
    points: Sequence[LossPoint]
    total_steps: int
    checkpoint_steps: tuple[int, ...] = ()
    sample_steps: tuple[int, ...] = ()


class LossPlots:
    """Draw plots; what matplotlib keeps, such as its list of fonts, stays in one folder."""

    def __init__(self, cache_folder: Path) -> None:
        self._cache_folder = cache_folder

    def draw(self, plot: LossPlot, form: PlotFormat = "png") -> bytes:
        """Return the picture: each step pale, the running mean on top, marks for checkpoints and samples; blocks."""
        with _DRAWING:
            # Read at its first import.
            os.environ.setdefault("MPLCONFIGDIR", str(self._cache_folder))
            self._cache_folder.mkdir(parents=True, exist_ok=True)
            # Half of its types are unknown to a type checker.
            matplotlib: Any = import_module("matplotlib")
            figures: Any = import_module("matplotlib.figure")
            # Equal plots are equal bytes: no random ids in an SVG.
            with matplotlib.rc_context({"font.size": 10, "svg.hashsalt": "loss"}):
                figure = figures.Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
                _fill(figure.add_subplot(), plot)
                file = BytesIO()
                with warnings.catch_warnings():
                    # A name in a script that its font lacks is drawn as boxes.
                    warnings.filterwarnings("ignore", message="Glyph .* missing from")
                    figure.savefig(file, format=form, metadata={"Date": None} if form == "svg" else None)
        return file.getvalue()


def _fill(axes: Any, plot: LossPlot) -> None:
    axes.set_title(plot.title, loc="left", color=_INK, parse_math=False)
    axes.set_xlabel("step", color=_INK)
    axes.set_ylabel("loss", color=_INK)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    found = drawable(plot.points)
    if not found:
        axes.set_xlim(0, max(1, plot.total_steps))
        axes.text(0.5, 0.5, _nothing(plot), transform=axes.transAxes, ha="center", va="center", color=_INK)
        return
    means = [
        LossPoint(point.step, mean)
        for point, mean in zip(found, smoothed([point.loss for point in found]), strict=True)
    ]
    raw, mean = thin(found, _MOST_POINTS), thin(means, _MOST_POINTS)
    few = len(found) < 3
    axes.plot(*_columns(raw), color=_RAW, linewidth=0.9, marker="o" if few else None, label="each step")
    axes.plot(*_columns(mean), color=_SMOOTH, linewidth=2.0, label="running mean")
    low, high = _bounds([point.loss for point in found])
    if low > 0 and high / low >= _LOG_FROM_RATIO:
        axes.set_yscale("log")
        # Losses are read as 0.6, and not as 6 times a power of ten.
        for each in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            each(_plain_numbers())
        axes.set_ylabel("loss (log scale)", color=_INK)
        axes.set_ylim(low * 0.9, high * 1.1)
    else:
        margin = 0.05 * (high - low) or max(0.5, abs(low) * 0.01)
        axes.set_ylim(low - margin, high + margin)
    _mark(axes, plot, means)
    axes.legend(loc="upper right", frameon=False, fontsize=9, labelcolor=_INK)


def _plain_numbers() -> Any:
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    return Plain(labelOnlyBase=False, minor_thresholds=(2, 0.5))


def _mark(axes: Any, plot: LossPlot, means: Sequence[LossPoint]) -> None:
    first, last = means[0].step, means[-1].step
    # A point may be recorded a step before the file that was made after it.
    saved = [_nearest(means, step) for step in plot.checkpoint_steps if first <= step <= last + 1]
    if saved:
        axes.plot(*_columns(saved), "D", color=_SAVED, markersize=6, zorder=5, label="checkpoint on disk")
    drawn = [min(step, last) for step in plot.sample_steps if first <= step <= last + 1]
    if drawn:
        bottom = axes.get_xaxis_transform()
        axes.plot(drawn, [0.0] * len(drawn), "^", color=_INK, markersize=7, transform=bottom, clip_on=False)
        axes.plot([], [], "^", color=_INK, markersize=7, label="samples")
    last = max(last, *(point.step for point in plot.points[-1:]), first + 1)
    margin = (last - first) * 0.01
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.get_major_locator().set_params(integer=True)
    bad = [point.step for point in plot.points if point.loss != point.loss]
    if bad:
        axes.axvspan(bad[0], max(bad[-1], bad[0] + 1), color=_BAD, alpha=0.15, linewidth=0, label="no number (NaN)")


def _nothing(plot: LossPlot) -> str:
    return "every loss so far is no number (NaN)" if plot.points else "no loss recorded yet"


def _nearest(means: Sequence[LossPoint], step: int) -> LossPoint:
    return min(means, key=lambda point: abs(point.step - step))


def _columns(points: Iterable[LossPoint]) -> tuple[list[int], list[float]]:
    pairs = [(point.step, point.loss) for point in points]
    return [step for step, _ in pairs], [loss for _, loss in pairs]


def _bounds(losses: Sequence[float]) -> tuple[float, float]:
    """Return the range to draw: without the highest and lowest hundredth, which would flatten the rest."""
    ordered = sorted(losses)
    cut = len(ordered) // 100
    return ordered[cut], ordered[-1 - cut]
