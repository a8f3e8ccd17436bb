"""The headers of model files on this disk, remembered while the files do not change. All of it blocks."""

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import TypeVar

from lora_files.header import BadSafetensors, SafetensorsHeader, read_header

SAFETENSORS = frozenset({".safetensors", ".sft"})
"""The extensions by which loaders take a file for safetensors; of other formats, nothing is known here."""

_HEADERS = 32
_PROBLEMS = 10_000
_Stamp = tuple[int, int]
_Known = TypeVar("_Known")


class Headers:
    """Read headers; the last few are kept whole, and of many more files, whether they can be read."""

    def __init__(self) -> None:
        self._headers: OrderedDict[Path, tuple[_Stamp, SafetensorsHeader]] = OrderedDict()
        self._problems: OrderedDict[Path, tuple[_Stamp, str | None]] = OrderedDict()
        # Calls come from several threads.
        self._lock = Lock()

    def read(self, path: Path) -> SafetensorsHeader:
        """Return the header of a file, the same object while the file is the same.

        Raises BadSafetensors for a file that is something else, broken or cut short; OSError as open() does.
        """
        stamp = _stamp(path)
        with self._lock:
            known = self._headers.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        try:
            header = read_header(path)
        except BadSafetensors as error:
            self._remember(self._problems, path, (stamp, str(error)), _PROBLEMS)
            raise
        self._remember(self._headers, path, (stamp, header), _HEADERS)
        self._remember(self._problems, path, (stamp, None), _PROBLEMS)
        return header

    def problem(self, path: Path) -> str | None:
        """Say why no loader can read a file, or None where one can or nothing is known of its format."""
        if path.suffix.lower() not in SAFETENSORS:
            return None
        try:
            stamp = _stamp(path)
            with self._lock:
                known = self._problems.get(path)
            if known is None or known[0] != stamp:
                self.read(path)
                return None
            return known[1]
        except BadSafetensors as error:
            return str(error)
        except OSError as error:
            return f"It cannot be read: {error.strerror or error}."

    def _remember(
        self, memory: OrderedDict[Path, tuple[_Stamp, _Known]], path: Path, known: tuple[_Stamp, _Known], most: int
    ) -> None:
        with self._lock:
            memory[path] = known
            memory.move_to_end(path)
            if len(memory) > most:
                memory.popitem(last=False)


def _stamp(path: Path) -> _Stamp:
    state = path.stat()
    return state.st_size, state.st_mtime_ns
