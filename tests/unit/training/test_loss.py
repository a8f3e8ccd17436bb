"""The loss log in AI Toolkit's schema, and the curve that is made of it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitk_mcp.loss_log import LossLog, LossPoint, read_points
from aitk_mcp.training.loss_curve import LARGEST_LOSS, sparkline, thin, trend_of


def points(losses: list[float], first: int = 1) -> list[LossPoint]:
    return [LossPoint(first + index, loss, 1e-4, 1700000000.0 + index) for index, loss in enumerate(losses)]


def test_what_is_written_is_read_also_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "loss_log.db"
    assert read_points(path) == []
    writer = LossLog(path, 0)
    assert read_points(path) == []
    writer.add(points([1.0, 0.5]))
    assert read_points(path) == points([1.0, 0.5])
    writer.add([])
    writer.add(points([0.25], first=3))
    writer.close()
    assert [point.loss for point in read_points(path)] == [1.0, 0.5, 0.25]


def test_a_resumed_run_forgets_the_steps_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "loss_log.db"
    first = LossLog(path, 0)
    first.add(points([1.0, 2.0, 3.0, 4.0]))
    first.close()
    second = LossLog(path, 3)
    second.add(points([0.5], first=4))
    second.close()
    assert [(point.step, point.loss) for point in read_points(path)] == [(1, 1.0), (2, 2.0), (4, 0.5)]


def test_the_schema_is_the_one_that_ai_toolkit_writes(tmp_path: Path) -> None:
    path = tmp_path / "loss_log.db"
    writer = LossLog(path, 0)
    writer.add(points([1.0]))
    writer.close()
    with closing(sqlite3.connect(path)) as database:
        columns = {
            table: [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            for table in ("steps", "metric_keys", "metrics")
        }
        metrics = database.execute("SELECT * FROM metrics ORDER BY key").fetchall()
    assert columns == {
        "steps": ["step", "wall_time"],
        "metric_keys": ["key", "first_seen_step", "last_seen_step"],
        "metrics": ["step", "key", "value_real", "value_text"],
    }
    assert metrics == [(1, "learning_rate", 1e-4, None), (1, "loss/loss", 1.0, None)]


def test_a_database_of_ai_toolkit_without_loss_has_no_points(tmp_path: Path) -> None:
    path = tmp_path / "loss_log.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE other (a)")
        database.commit()
    assert read_points(path) == []


@pytest.mark.parametrize(
    ("losses", "word"),
    [([1.0] * 100 + [0.5] * 100, "falling"), ([0.5] * 100 + [1.0] * 100, "rising"), ([1.0, 1.01] * 50, "flat")],
)
def test_the_trend_compares_the_ends(losses: list[float], word: str) -> None:
    trend = trend_of(points(losses))
    assert trend is not None
    assert trend.word == word


def test_too_few_points_have_no_trend() -> None:
    assert trend_of(points([1.0, 0.5, 0.25])) is None


def test_the_sparkline_falls_with_the_loss() -> None:
    line = sparkline(points([float(100 - index) for index in range(100)]), width=8)
    assert line == "█▇▆▅▄▃▂▁"
    assert sparkline([]) == ""
    assert sparkline(points([2.0, 2.0])) == "▁▁"


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=300), st.integers(1, 50))
def test_no_losses_break_the_curve(losses: list[float], limit: int) -> None:
    found = points(losses)
    thinned = thin(found, limit)
    assert len(thinned) <= max(limit, 0)
    assert not found or thinned[-1] == found[-1]
    drawable = [loss for loss in losses if abs(loss) < LARGEST_LOSS]
    assert len(sparkline(found)) == min(40, len(drawable))
    trend_of(found)
