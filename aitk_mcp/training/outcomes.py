"""What becomes of a start, a stop and a deletion, and what that means in words. Pure."""

from dataclasses import dataclass

from aitk_mcp.training.reports import TrainingReport


@dataclass(frozen=True, slots=True)
class StopOutcome:
    """What became of a stop: the job as it is now, whether this stop saved it, and what that means in words."""

    report: TrainingReport
    saved: bool
    message: str


@dataclass(frozen=True, slots=True)
class DeleteOutcome:
    """What became of a deletion: the job as it last was, and its LoRAs (as paths below the outputs folder)."""

    report: TrainingReport
    was_stopped: bool
    deleted_models: tuple[str, ...]
    kept_models: tuple[str, ...]
    message: str


def earlier_in_words(started: TrainingReport) -> str | None:
    """Say what an earlier training under the same name means for one that starts; None where there was none."""
    step = started.checkpoint_step
    if step is None:
        return None
    if step < started.total_steps:
        return f"Its output folder holds a checkpoint of step {step} of an earlier training: it goes on from there."
    return (
        f"Its output folder holds a LoRA of step {step} already, so nothing is left to train: raise `steps` to train"
        " further, or create a config with another name to begin anew."
    )


def stop_in_words(before: TrainingReport, after: TrainingReport, *, saved: bool, why_not: str) -> str:
    """Say how a stop ended; `why_not` is a sentence on a save that was wanted and could not be, or empty."""
    if not after.has_ended:
        return "The trainer was asked to stop and has not ended yet; wait-training waits for its end."
    if before.status == "queued" and after.started_at is None:
        return "The job was still waiting and had trained nothing; it will not start."
    if after.status == "completed":
        return "The job completed before the stop reached it."
    if saved:
        return f"Stopped and saved: step {after.checkpoint_step} is on disk. resume-training goes on from it."
    if after.checkpoint_step is None:
        return f"Stopped at step {after.step} without a checkpoint: nothing is on disk.{why_not}"
    lost = max(0, after.step - after.checkpoint_step)
    return (
        f"Stopped at step {after.step}; the newest checkpoint on disk is step {after.checkpoint_step},"
        f" so {lost} steps are lost. resume-training goes on from it.{why_not}"
    )


def deletion_in_words(*, was_stopped: bool, deleted: int, kept: int, shared: bool) -> str:
    """Say what a deletion took and left; `shared` where another job uses the same output folder."""
    first = "The job was stopped and deleted" if was_stopped else "The job was deleted"
    if shared:
        return f"{first}; its output folder stays as it is, for another job uses it too."
    if deleted:
        return f"{first}, with {_models(deleted)}, its samples and its log."
    if kept:
        return f"{first}, with its samples and its log; list-exported-models still shows {_models(kept)}."
    return f"{first}; it had saved no LoRA."


def _models(count: int) -> str:
    return "its LoRA" if count == 1 else f"its {count} LoRA files"
