"""The picture of a loss curve."""

import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from aitk_mcp.loss_log import LossPoint
from aitk_mcp.training.loss_plots import LossPlot, LossPlots

NAN = float("nan")


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> LossPlots:
    """Give one for all tests: the first of a process makes its list of fonts."""
    return LossPlots(tmp_path_factory.mktemp("matplotlib"))


def plot(losses: list[float], title: str = "cat") -> LossPlot:
    points = [LossPoint(step, loss) for step, loss in enumerate(losses, start=1)]
    return LossPlot(title, points, 1000, checkpoint_steps=(2, 400), sample_steps=(0, 1, 400))


@pytest.mark.parametrize(
    "losses",
    [[], [1.0], [1.0, NAN, 0.5], [NAN, NAN], [0.3] * 500, [0.0, 1.0, 100.0], [1e20] * 3, [1.7e308, -9e291], [1.0, 1e9]],
)
def test_every_curve_is_a_picture(plots: LossPlots, losses: list[float]) -> None:
    with Image.open(BytesIO(plots.draw(plot(losses)))) as picture:
        assert (picture.format, picture.size) == ("PNG", (900, 420))
        colours = picture.convert("RGB").getcolors(900 * 420)
    assert colours is not None
    assert len(colours) > 2


@pytest.mark.parametrize("title", ["cat", "costs $5 or $6", "狗", "<b>&"])
def test_a_title_is_shown_as_it_is(plots: LossPlots, title: str) -> None:
    assert plots.draw(plot([1.0, 0.5], title), "svg").startswith(b"<?xml")


def test_equal_plots_are_equal_bytes(plots: LossPlots) -> None:
    found = plot([math.exp(-step / 100) for step in range(1000)])
    assert plots.draw(found, "svg") == plots.draw(found, "svg")


def said(svg: bytes) -> list[str]:
    """Return the texts of an SVG, which matplotlib notes beside the outlines of their letters."""
    return re.findall(r"<!-- (.+?) -->", svg.decode())


def test_axes_marks_and_scale_are_named(plots: LossPlots) -> None:
    falling = plot([10 * math.exp(-step / 100) for step in range(1000)])
    texts = said(plots.draw(falling, "svg"))
    assert {"cat", "step", "loss (log scale)", "each step", "running mean"} <= set(texts)
    assert {"checkpoint on disk", "samples"} <= set(texts)
    assert "no number (NaN)" not in texts
    flat = said(plots.draw(replace(plot([0.4, 0.5, 0.3] * 50), checkpoint_steps=(), sample_steps=()), "svg"))
    assert "loss" in flat
    assert not {"checkpoint on disk", "samples"} & set(flat)


def test_losses_that_are_no_numbers_are_marked(plots: LossPlots) -> None:
    assert "no number (NaN)" in said(plots.draw(plot([0.5] * 20 + [NAN] * 20), "svg"))
    assert "every loss so far is no number (NaN)" in said(plots.draw(plot([NAN] * 5), "svg"))


def test_a_picture_is_small_however_long_the_training(plots: LossPlots) -> None:
    long = plot([1 + math.sin(step) for step in range(100_000)])
    assert len(plots.draw(long)) < 150_000
    assert len(plots.draw(long, "svg")) < 250_000


def test_matplotlib_writes_into_its_folder_only(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "data" / "matplotlib"
    home.mkdir()
    script = (
        "import sys; from pathlib import Path; from aitk_mcp.training.loss_plots import LossPlot, LossPlots\n"
        "sys.stdout.buffer.write(LossPlots(Path(sys.argv[1])).draw(LossPlot('cat', [], 10)))"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("MPLCONFIGDIR", "XDG_CACHE_HOME")}
    answer = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env={**kept, "HOME": str(home)}, capture_output=True, check=True
    )
    assert answer.stdout.startswith(b"\x89PNG")
    assert list(home.iterdir()) == []
    assert any(path.name.startswith("fontlist") for path in folder.iterdir())
