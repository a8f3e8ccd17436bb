"""Tell whoever watches a long piece of work how it goes: by bars, by lines, by JSON events, or not at all."""

import os
import sys
import time
from io import TextIOWrapper
from typing import Any, Protocol, Self, TextIO

import orjson


def prepare_streams() -> None:
    """Let the standard streams take every text: what their encoding lacks is replaced, and a closed one is silent."""
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def write_line(text: str, stream: TextIO | None = None) -> None:
    """Write a line to stdout, or to another stream; once nobody reads it any more, the rest is dropped."""
    used: TextIO = stream or sys.stdout
    try:
        print(text, file=used, flush=True)
    except BrokenPipeError:
        # At its end Python flushes what the stream still holds.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, used.fileno())
        os.close(nowhere)


class Teller(Protocol):
    """Hear what happens: an event with a text for people and values for programs, and bytes done of a phase."""

    def say(self, event: str, text: str, **values: object) -> None: ...

    def progress(self, phase: str, done: float, total: float) -> None: ...


class Silence:
    """Tell nothing; also the frame of the others, which tell in their own way."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def say(self, event: str, text: str, **values: object) -> None:
        """Tell that something happened."""

    def progress(self, phase: str, done: float, total: float) -> None:
        """Tell how many bytes of a phase are done."""


class Lines(Silence):
    """Write plain lines, one for each tenth of a phase."""

    def __init__(self) -> None:
        self._tenths: dict[str, int] = {}

    def say(self, event: str, text: str, **values: object) -> None:
        """Write the text."""
        write_line(text)

    def progress(self, phase: str, done: float, total: float) -> None:
        """Write a line when another tenth is done."""
        tenth = int(10 * done / total) if total else 10
        if tenth > self._tenths.get(phase, 0):
            self._tenths[phase] = tenth
            write_line(f"{phase}: {done / 1e6:.1f} of {total / 1e6:.1f} MB ({tenth * 10} %)")


class JsonEvents(Silence):
    """Write one JSON object a line; progress at most ten times a second."""

    def __init__(self) -> None:
        self._told_s = 0.0

    def say(self, event: str, text: str, **values: object) -> None:
        """Write the event with its values."""
        write_line(orjson.dumps({"event": event, "message": text, **values}).decode())

    def progress(self, phase: str, done: float, total: float) -> None:
        """Write how many bytes are done."""
        if done < total and time.monotonic() - self._told_s < 0.1:
            return
        self._told_s = time.monotonic()
        event = {"event": "progress", "phase": phase, "done_bytes": int(done), "total_bytes": int(total)}
        write_line(orjson.dumps(event).decode())


class Bars(Silence):
    """Draw a bar for each phase, with rate and time left."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (TextColumn("{task.description:<10}"), BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())
        self._bars = Progress(*columns)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def say(self, event: str, text: str, **values: object) -> None:
        """Write the text above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)

    def progress(self, phase: str, done: float, total: float) -> None:
        """Move the bar of the phase."""
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total)
        self._bars.update(self._tasks[phase], completed=done, total=total)
