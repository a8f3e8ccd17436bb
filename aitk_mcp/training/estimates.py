"""How large a training will be, before it is started: steps, time, GPU memory, disk, and what it may cost."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyio import to_thread

from aitk_mcp.configs.configs import Configs
from aitk_mcp.recipes import RecipeRequest
from aitk_mcp.recipes.estimate import Estimate, estimate
from aitk_mcp.recipes.resources import Amount, complete, disk_of, lora_of, vram_of, work_of
from aitk_mcp.training.run_history import FinishedRun, RunHistory

_FEW_RUNS = 5


@dataclass(frozen=True)
class TrainingSize:
    """A training before its start; `learned_from` names the jobs that the figures come from."""

    steps: int
    images: int | None
    epochs: float | None
    seconds: float | None
    seconds_based_on: str
    vram: Amount
    disk: Amount
    cost: float | None
    learned_from: tuple[str, ...]


class Estimates:
    """Estimate stored configs, and requests that are not stored."""

    def __init__(self, configs: Configs, history: RunHistory) -> None:
        self._configs = configs
        self._history = history

    async def of_config(self, name: str, hourly_rate: float | None = None) -> TrainingSize:
        """Estimate a stored config; raises NotFound with the closest names."""
        config = await self._configs.get(name)
        return await self._of(config.document["config"]["process"][0], await self._configs.images_of(name), hourly_rate)

    async def of_request(self, request: RecipeRequest, hourly_rate: float | None = None) -> TrainingSize:
        """Estimate what create-training-config would make of a request; raises as it does."""
        document, images = await self._configs.preview(request)
        return await self._of(document["config"]["process"][0], images, hourly_rate)

    async def _of(self, process: Mapping[str, Any], images: int | None, hourly_rate: float | None) -> TrainingSize:
        process = complete(process)
        train, arch = process["train"], str(process["model"].get("arch"))
        steps, batch_size = int(train.get("steps", 1000)), int(train.get("batch_size") or 1)
        runs = (await self._history.finished(arch))[:_FEW_RUNS]
        known = estimate(arch, steps, batch_size, images, self._configs.engine)
        seconds, based_on = _seconds(process, steps, runs, known, self._configs.engine)
        embedded = self._configs.engine == "embedded"
        return TrainingSize(
            steps=steps,
            images=images,
            epochs=known.epochs,
            seconds=seconds,
            seconds_based_on=based_on,
            vram=Amount(0, "the embedded engine trains on the CPU") if embedded else vram_of(process),
            disk=await to_thread.run_sync(_disk, process, images or 0, runs, embedded),
            cost=None if seconds is None or hourly_rate is None else round(seconds / 3600 * hourly_rate, 4),
            learned_from=tuple(run.job_id for run in runs),
        )


def _seconds(
    process: Mapping[str, Any], steps: int, runs: Sequence[FinishedRun], known: Estimate, engine: str
) -> tuple[float | None, str]:
    if not runs:
        return known.seconds, f"{known.based_on}; loading the model, sampling and saving are not in it"
    work = work_of(process)
    # The embedded engine brings every image to 32 x 32, whatever the config's resolution.
    scaled = [run.seconds_per_step * (1 if engine == "embedded" or not run.work else work / run.work) for run in runs]
    seconds = statistics.median(scaled) * steps + statistics.median(run.other_seconds for run in runs)
    what = "batch and resolution scaled in proportion" if engine != "embedded" else "on the same engine"
    return round(seconds, 1), (
        f"the newest finished {'training' if len(runs) == 1 else f'{len(runs)} trainings'} of this architecture on this"
        f" machine, {what}; loading, sampling and saving as they took there"
    )


def _disk(process: Mapping[str, Any], images: int, runs: Sequence[FinishedRun], embedded: bool) -> Amount:
    rank = int(process["network"].get("linear") or 0)
    sizes = [run.lora_bytes * rank / run.rank for run in runs if run.lora_bytes and run.rank]
    beside = "with checkpoints, the optimizer's state, samples and cached latents, without the base model"
    if sizes:
        learned = int(statistics.median(sizes))
        return Amount(disk_of(process, learned, images), f"the LoRAs of finished trainings on this machine; {beside}")
    if embedded:
        return Amount(None, "nothing: the embedded engine has finished no training here yet")
    lora = lora_of(process)
    if lora.bytes is None:
        return lora
    return Amount(disk_of(process, lora.bytes, images), f"{lora.based_on}; {beside}")
