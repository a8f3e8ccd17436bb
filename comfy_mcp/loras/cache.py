"""What was read from LoRA files, remembered from one start to the next; to lose it costs time and nothing else."""

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import orjson

from comfy_mcp.loras.folder import Examined
from lora_files.describe import LoraDescription, LoraSaid

log = logging.getLogger(__name__)

_VERSION = 3
"""To be raised when descriptions change: a cache of another version is dropped."""

_CREATE = """
    CREATE TABLE IF NOT EXISTS loras (
        path TEXT PRIMARY KEY, stamp TEXT NOT NULL, description TEXT, problem TEXT, supplied TEXT NOT NULL,
        sha256 TEXT, autov3 TEXT
    ) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of the file that had this stamp; digests where they were computed."""

    stamp: str
    examined: Examined
    sha256: str | None = None
    autov3: str | None = None


class LoraCache:
    """An SQLite file of what was read; every method blocks, and none fails for the cache's own sake."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def load(self) -> dict[str, Remembered]:
        """Return everything that is remembered, by absolute path."""
        try:
            return self._load()
        except (sqlite3.Error, ValueError) as error:
            log.warning("the cache of LoRA descriptions is unreadable and is made anew", extra={"cause": str(error)})
            self._file.unlink(missing_ok=True)
            return {}

    def store(self, changed: Iterable[tuple[str, Remembered]], gone: Sequence[str] = ()) -> None:
        """Remember what changed and forget what is gone."""
        rows = [(path, *_row(remembered)) for path, remembered in changed]
        if not rows and not gone:
            return
        try:
            with closing(self._open()) as database, database:
                database.executemany("INSERT OR REPLACE INTO loras VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                database.executemany("DELETE FROM loras WHERE path = ?", [(path,) for path in gone])
        except sqlite3.Error as error:
            # A full disk or a lock of another process: the answer to the caller does not depend on the cache.
            log.warning("the cache of LoRA descriptions was not written", extra={"cause": str(error)})

    def _load(self) -> dict[str, Remembered]:
        with closing(self._open()) as database:
            rows = database.execute("SELECT path, stamp, description, problem, supplied, sha256, autov3 FROM loras")
            return {row[0]: _remembered(*row[1:]) for row in rows}

    def _open(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._file, timeout=5)
        try:
            database.execute("PRAGMA synchronous = OFF")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version != _VERSION:
                database.execute("DROP TABLE IF EXISTS loras")
                database.execute(f"PRAGMA user_version = {_VERSION}")
            database.execute(_CREATE)
        except BaseException:
            database.close()
            raise
        return database


def _row(remembered: Remembered) -> tuple[str | None, ...]:
    examined = remembered.examined
    description = examined.said.model_dump_json() if examined.said else None
    supplied = orjson.dumps(examined.supplied).decode()
    return remembered.stamp, description, examined.problem, supplied, remembered.sha256, remembered.autov3


def _remembered(
    stamp: str, description: str | None, problem: str | None, supplied: str, sha256: str | None, autov3: str | None
) -> Remembered:
    said: LoraSaid | None = None
    if description:
        # Only a file whose header was read tells of its network; nowhere else does an object follow this key.
        model = LoraDescription if '"network":{' in description else LoraSaid
        said = model.model_validate_json(description)
    return Remembered(stamp, Examined(said, problem, orjson.loads(supplied)), sha256, autov3)
