"""Read a trainer's log: text in, progress and reasons out.

The log is a terminal's: tqdm writes each frame of a bar over the last one (`\\r`), nested bars move the cursor (ANSI),
and the lines of several bars follow each other. Formats as AI Toolkit 0.12 writes them.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Phase = Literal[
    "starting",
    "loading model",
    "loading dataset",
    "caching latents",
    "caching text embeddings",
    "training",
    "saving",
    "sampling",
]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_FRAME = re.compile(
    r"^(?P<label>.*?):?\s*\d+%\|[^|]*\|\s*(?P<done>\d+)/(?P<total>\d+) "
    r"\[(?P<elapsed>[\d:]+)<(?P<left>[\d:?]+),\s*(?P<rate>[\d.]+|\?)\s*(?P<unit>it/s|s/it)(?:, (?P<postfix>[^\]]*))?\]?"
)
_LOSS = re.compile(r"\bloss: (?P<loss>nan|-?inf|[-+\d.e]+)")
_RATE = re.compile(r"\blr: (?P<lr>[-+\d.e]+)")
_RESUMED = re.compile(r"Found step (?P<step>\d+) in metadata, starting from there")
_SKIPPED_IMAGE = re.compile(r"^Error processing (?:image|video): (?P<path>.+)$", re.MULTILINE)
# AI Toolkit counts such a loss as 0 and goes on, at the end of the line on which its bar stands.
_NO_NUMBER = "loss is nan"
_NO_NUMBERS = (_NO_NUMBER, "loss: nan", "loss: inf", "loss: -inf")
_SKIPPED_BATCH = "OOM during training step, skipping batch"
# Run.py prints these words between two rules when Ctrl-C (SIGINT) ends it.
_STOPPED = re.compile(r"^=+\nJob stopped\n=+\s*$", re.MULTILINE)

# What each phase is announced by, in the words that begin a line; a frame of the training bar means "training".
_PHASE_MARKS: tuple[tuple[str, Phase], ...] = (
    ("Running 1 job", "starting"),
    ("Running  1 process", "loading model"),
    ("Loading ", "loading model"),
    ("Quantizing", "loading model"),
    ("Dataset: ", "loading dataset"),
    ("Caching latents", "caching latents"),
    ("Caching text", "caching text embeddings"),
    ("Generating baseline samples", "sampling"),
    ("Generating Images", "sampling"),
    ("Sampling at step", "sampling"),
    ("Saving at step", "saving"),
    ("Saved checkpoint to", "saving"),
)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stood when the log was read; `step` counts finished steps, `loss` may be NaN."""

    phase: Phase = "starting"
    step: int | None = None
    total_steps: int | None = None
    steps_per_second: float | None = None
    elapsed_s: int | None = None
    eta_s: int | None = None
    loss: float | None = None
    learning_rate: float | None = None

    @property
    def speed(self) -> str | None:
        """Return the speed in AI Toolkit's words: steps a second, or seconds a step for slow ones."""
        if not self.steps_per_second:
            return None
        if self.steps_per_second >= 1:
            return f"{self.steps_per_second:.2f} iter/sec"
        return f"{1 / self.steps_per_second:.2f} sec/iter"


@dataclass(frozen=True, slots=True)
class NoNumbers:
    """Steps whose loss was no number (NaN, infinite): the last one, and since when that goes on (None: it ended)."""

    last_step: int
    since_step: int | None


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a tqdm bar."""

    label: str
    done: int
    total: int
    elapsed_s: int | None
    eta_s: int | None
    steps_per_second: float | None
    loss: float | None
    learning_rate: float | None


@dataclass(frozen=True, slots=True)
class LoggedLoss:
    """The loss and learning rate of one step, with the four digits that the bar shows."""

    step: int
    loss: float
    learning_rate: float | None


def read_progress(text: str, name: str) -> Progress:
    """Return the progress that `text` (a log, or its end) tells of the job called `name`."""
    phase: Phase | None = None
    # From the end: of thousands of frames only the last one is taken apart.
    for piece in reversed(list(_pieces(text))):
        frame = _frame(piece)
        if frame and _is_training(frame, name):
            return Progress(
                phase=phase or "training",
                step=frame.done,
                total_steps=frame.total,
                steps_per_second=frame.steps_per_second,
                elapsed_s=frame.elapsed_s,
                eta_s=frame.eta_s,
                loss=frame.loss,
                learning_rate=frame.learning_rate,
            )
        phase = phase or _announced(piece)
    return Progress(phase=phase or "starting")


def read_losses(text: str, name: str) -> list[LoggedLoss]:
    """Return the loss of each step that the training bar showed, for logs without a loss database.

    A step's loss is the last one shown while the bar stood at its number: the bar is written once before it moves on.
    """
    losses: dict[int, LoggedLoss] = {}
    for piece in _pieces(text):
        frame = _frame(piece)
        if frame and frame.loss is not None and frame.done < frame.total and _is_training(frame, name):
            losses[frame.done] = LoggedLoss(frame.done, frame.loss, frame.learning_rate)
    return [losses[step] for step in sorted(losses)]


def read_no_numbers(text: str, name: str) -> NoNumbers | None:
    """Return at which steps the loss was no number, as far as this part of a log tells; None for none."""
    if not any(words in text for words in _NO_NUMBERS):
        # Mostly: to read every frame takes a hundred times as long.
        return None
    at = 0
    last: int | None = None
    since: int | None = None
    for piece in _pieces(text):
        frame = _frame(piece)
        if frame and _is_training(frame, name):
            at = frame.done
        is_none = piece.endswith(_NO_NUMBER) or (
            frame is not None and frame.loss is not None and not math.isfinite(frame.loss)
        )
        if is_none:
            last = at
            since = at if since is None else since
        elif frame and frame.loss and last is not None and at > last:
            since = None
    return None if last is None else NoNumbers(last, since)


def read_resumed_step(text: str) -> int | None:
    """Return the step that the trainer resumed from, or None for a fresh start."""
    found = _RESUMED.findall(text)
    return int(found[-1]) if found else None


def was_stopped(text: str) -> bool:
    """Tell whether the trainer said that it was stopped."""
    return "Job stopped" in text and _STOPPED.search(text.replace("\r\n", "\n")) is not None


def read_warnings(text: str) -> list[str]:
    """Return what went wrong without ending the job: images left out, batches skipped."""
    skipped = dict.fromkeys(_SKIPPED_IMAGE.findall(text) if "Error processing" in text else ())
    warnings = [f"The trainer could not read this image and trains without it: {path}" for path in skipped]
    if _SKIPPED_BATCH in text:
        warnings.append("Some training steps ran out of GPU memory and were skipped.")
    return warnings


def tidy_lines(text: str) -> list[str]:
    """Return the lines as a reader wants them: no escapes, and of each run of a bar's frames the last one only."""
    lines: list[str] = []
    label: str | None = None
    for piece in _pieces(text):
        frame = _FRAME.match(piece)
        if frame and label == frame["label"] and lines:
            lines[-1] = piece
        else:
            lines.append(piece)
        label = frame["label"] if frame else None
    return lines


def _pieces(text: str) -> Iterator[str]:
    """Yield each line, and each frame that was written over another, without escapes and without empty ones."""
    for line in _ANSI.sub("", text).split("\n"):
        for piece in line.split("\r"):
            if piece.strip():
                yield piece.rstrip()


def _frame(piece: str) -> Frame | None:
    match = _FRAME.match(piece)
    if match is None:
        return None
    postfix = match["postfix"] or ""
    loss, rate = _LOSS.search(postfix), _RATE.search(postfix)
    return Frame(
        label=match["label"].strip(),
        done=int(match["done"]),
        total=int(match["total"]),
        elapsed_s=_seconds(match["elapsed"]),
        eta_s=_seconds(match["left"]),
        steps_per_second=_steps_per_second(match["rate"], match["unit"]),
        loss=_number(loss["loss"]) if loss else None,
        learning_rate=_number(rate["lr"]) if rate else None,
    )


def _announced(piece: str) -> Phase | None:
    return next((phase for mark, phase in _PHASE_MARKS if piece.startswith(mark)), None)


def _is_training(frame: Frame, name: str) -> bool:
    return frame.label == name or frame.loss is not None


def _seconds(clock: str) -> int | None:
    if "?" in clock:
        return None
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part or 0)
    return seconds


def _steps_per_second(rate: str, unit: str) -> float | None:
    value = _number(rate)
    if value is None or value <= 0:
        return None
    return value if unit == "it/s" else 1 / value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
