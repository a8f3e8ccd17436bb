"""Read and write `loss_log.db`, the SQLite file in which AI Toolkit records learning rate and loss of each step."""

import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

FILE_NAME = "loss_log.db"
LOSS_KEY = "loss/loss"
RATE_KEY = "learning_rate"

# AI Toolkit 0.12.26, toolkit/logging_aitk.py: what reads one file must be able to read the other.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (step INTEGER PRIMARY KEY, wall_time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS metric_keys (key TEXT PRIMARY KEY, first_seen_step INTEGER, last_seen_step INTEGER);
CREATE TABLE IF NOT EXISTS metrics (
    step INTEGER NOT NULL, key TEXT NOT NULL, value_real REAL, value_text TEXT,
    PRIMARY KEY (step, key), FOREIGN KEY (step) REFERENCES steps(step) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS idx_metrics_key_step ON metrics (key, step);
"""


@dataclass(frozen=True, slots=True)
class LossPoint:
    """The loss of one step, NaN where it was no number; `wall_time` is a Unix time, None where only the bar told."""

    step: int
    loss: float
    learning_rate: float | None = None
    wall_time: float | None = None


def read_points(path: Path) -> list[LossPoint]:
    """Return the points of a file by step, also while a trainer writes it; empty where there is no file yet."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as database:
        try:
            rows = database.execute(
                "SELECT steps.step, loss.value_real, rate.value_real, steps.wall_time FROM steps "
                "JOIN metrics AS loss ON loss.step = steps.step AND loss.key = ? "
                "LEFT JOIN metrics AS rate ON rate.step = steps.step AND rate.key = ? "
                "WHERE loss.value_text IS NULL ORDER BY steps.step",
                (LOSS_KEY, RATE_KEY),
            ).fetchall()
        except sqlite3.OperationalError as error:
            # The file appears a moment before its tables.
            if "no such table" in str(error):
                return []
            raise
    # SQLite has no NaN and keeps NULL in its place.
    return [LossPoint(step, math.nan if loss is None else loss, *rest) for step, loss, *rest in rows]


class LossLog:
    """Write the file as the trainer does; steps past the one it goes on from are forgotten."""

    def __init__(self, path: Path, start_step: int) -> None:
        self._database = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute("PRAGMA foreign_keys=ON")
        self._database.executescript(_SCHEMA)
        self._database.execute("DELETE FROM steps WHERE step >= ?", (start_step,))

    def add(self, points: Iterable[LossPoint]) -> None:
        """Record points in one transaction; each has a wall time."""
        rows = list(points)
        if not rows:
            return
        low, high = min(row.step for row in rows), max(row.step for row in rows)
        with self._database:
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT OR REPLACE INTO steps VALUES (?, ?)", [(row.step, row.wall_time) for row in rows]
            )
            self._database.executemany(
                "INSERT INTO metric_keys VALUES (?, ?, ?) ON CONFLICT(key) DO UPDATE SET "
                "first_seen_step = MIN(first_seen_step, excluded.first_seen_step), "
                "last_seen_step = MAX(last_seen_step, excluded.last_seen_step)",
                [(key, low, high) for key in (RATE_KEY, LOSS_KEY)],
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, NULL)",
                [
                    (row.step, key, value)
                    for row in rows
                    for key, value in ((RATE_KEY, row.learning_rate), (LOSS_KEY, row.loss))
                ],
            )

    def close(self) -> None:
        """Close the file; what was added is on disk."""
        self._database.close()
