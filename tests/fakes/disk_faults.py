"""Something that happens at the n-th effect on the disk, before or after it; every effect gets its turn in a loop.

Python tells a profile function of each call of a built-in function, in every thread that starts afterwards, so that no
code has to know of this. What an effect is, is a matter of what the system is asked, not of what our code is called.
"""

import io
import os
import resource
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_WRITING = {os.pwritev, os.fsync, os.fdatasync, os.mkdir, os.link, os.replace, os.rename}
_EFFECTS = _WRITING | {os.open, os.ftruncate, os.truncate, os.unlink, os.remove, os.rmdir, os.utime, io.open}
_BUFFERED = {"write", "flush", "truncate"}


@contextmanager
def largest_file(size_bytes: int) -> Generator[None]:
    """Let no file of this process grow past a size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class FaultAt:
    """Call `act` at the n-th effect of any thread that starts from now on; once. `effect` is the function it was."""

    def __init__(self, nth: int, act: Callable[[], None], *, after: bool = False, only_writing: bool = False) -> None:
        self._left = nth
        self._act = act
        self._event = "c_return" if after else "c_call"
        self._effects = _WRITING if only_writing else _EFFECTS
        self._lock = threading.Lock()
        self.effect: Any = None
        threading.setprofile(self._watch)

    @property
    def happened(self) -> bool:
        """Tell whether there were as many effects."""
        return self._left <= 0

    def _watch(self, frame: FrameType, event: str, arg: Any) -> None:
        if event != self._event or not self._is_effect(arg):
            return
        with self._lock:
            self._left -= 1
            is_now = self._left == 0
        if is_now:
            self.effect = arg
            self._act()

    def _is_effect(self, function: Any) -> bool:
        if isinstance(getattr(function, "__self__", None), io.BufferedWriter):
            return function.__name__ in _BUFFERED
        return function in self._effects
