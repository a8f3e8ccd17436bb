"""Digests of files, remembered from one start to the next; to lose them costs time and nothing else. Blocks."""

import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from mcp_toolserver.files import etag_of

log = logging.getLogger(__name__)

_CREATE = "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, sha256 TEXT NOT NULL)"


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of a file: what is written anew, or replaced, has another one."""

    inode: int
    size_bytes: int
    modified_ns: int

    etag: str

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Return the state that a file has now; its tag is the one of its download."""
        state = path.stat()
        return cls(state.st_ino, state.st_size, state.st_mtime_ns, etag_of(state))

    def __str__(self) -> str:
        """Return it as it is kept."""
        return f"{self.inode}:{self.size_bytes}:{self.modified_ns}"


class Digests:
    """An SQLite file of SHA-256 digests by path and stamp; no method fails for the file's own sake."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, tuple[str, str]] | None = None
        self._loading = Lock()

    def get(self, path: Path, stamp: Stamp) -> str | None:
        """Return the digest of a file in this state, None where it was not computed."""
        remembered, sha256 = self._all().get(str(path), ("", None))
        return sha256 if remembered == str(stamp) else None

    def put(self, path: Path, stamp: Stamp, sha256: str) -> None:
        """Remember the digest of a file in this state."""
        self._all()[str(path)] = (str(stamp), sha256)
        try:
            with closing(self._open()) as database, database:
                database.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (str(path), str(stamp), sha256))
        except (sqlite3.Error, OSError) as error:
            # A full disk or a lock of another process: the answer to the caller does not depend on it.
            log.warning("a digest was not remembered", extra={"cause": str(error)})

    def _all(self) -> dict[str, tuple[str, str]]:
        with self._loading:
            if self._known is None:
                self._known = self._load()
            return self._known

    def _load(self) -> dict[str, tuple[str, str]]:
        if not self._file.exists():
            return {}
        try:
            with closing(self._open()) as database, database:
                rows = database.execute("SELECT path, stamp, sha256 FROM digests").fetchall()
                gone = [(path,) for path, _, _ in rows if not Path(path).exists()]
                database.executemany("DELETE FROM digests WHERE path = ?", gone)
        except sqlite3.Error as error:
            log.warning("the remembered digests are unreadable and are made anew", extra={"cause": str(error)})
            self._file.unlink(missing_ok=True)
            return {}
        return {path: (stamp, sha256) for path, stamp, sha256 in rows if (path,) not in gone}

    def _open(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._file, timeout=5)
        try:
            database.execute(_CREATE)
        except BaseException:
            database.close()
            raise
        return database
