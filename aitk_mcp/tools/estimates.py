"""The tool that says how large a training will be."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from aitk_mcp.recipes import RecipeOptions, RecipeRequest
from aitk_mcp.tools.configs import CONFIG_MISTAKES
from aitk_mcp.training.estimates import Estimates, TrainingSize
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import InvalidArguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool

_OWN = {"name", "hourly_rate"}


class EstimateTraining(RecipeOptions, Arguments):
    """Say how many steps, how much time, GPU memory and disk a training takes, and what it costs, before it starts.

    Give the arguments of create-training-config, or only the `name` of a stored config; nothing is stored. The figures
    come from finished trainings of the same architecture on this machine; where there are none, from rules of thumb,
    and `based_on` says which.
    """

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        **CONFIG_MISTAKES,
        "config_name": "the argument is `name`.",
        "cost_per_hour": "the argument is `hourly_rate`.",
    }

    name: str | None = Field(None, description="Name of a stored config.")
    model_name: str | None = Field(None, description="Base model, as create-training-config takes it.")
    dataset_path: str | None = Field(None, description="Dataset, as create-training-config takes it.")
    hourly_rate: float | None = Field(None, ge=0, description="What the machine costs an hour, in any currency.")


class EstimateBasis(Result):
    """Where the figures come from."""

    seconds: str = Field(description="The time.")
    vram: str = Field(description="The GPU memory.")
    disk: str = Field(description="The disk.")


class EstimatedTraining(Result):
    """A training before its start."""

    steps: int = Field(description="Optimizer steps.")
    images: int | None = Field(description="Images in the dataset; null where they cannot be counted.")
    epochs: float | None = Field(description="Passes over the images.")
    seconds: float | None = Field(description="Time from start to end; null where nothing is known.")
    vram_bytes: int | None = Field(description="GPU memory; null where nothing is known.")
    disk_bytes: int | None = Field(description="Disk in the outputs folder; null where nothing is known.")
    cost: float | None = Field(description="Cost at `hourly_rate`; null without it, or without a time.")
    hourly_rate: float | None = Field(description="The rate that was given.")
    based_on: EstimateBasis = Field(description="Where each figure comes from.")
    learned_from: list[str] = Field(description="Ids of the finished jobs that the figures come from.")


def estimate_tools(estimates: Estimates) -> list[AnyTool]:
    """Return the tool over these estimates."""

    async def run(args: EstimateTraining, call: Call) -> EstimatedTraining:
        if args.name is not None and args.model_fields_set <= _OWN:
            return _estimated(await estimates.of_config(args.name, args.hourly_rate), args.hourly_rate)
        missing = [name for name in ("model_name", "dataset_path") if getattr(args, name) is None]
        if missing:
            raise InvalidArguments(
                " ".join(f"Argument `{name}` is missing." for name in missing),
                hint="Give the arguments of create-training-config, or only the `name` of a stored config.",
                details={"problems": [{"field": name, "type": "missing"} for name in missing]},
            )
        given = {"name": "unnamed", **args.model_dump(exclude_unset=True, exclude_none=True, exclude={"hourly_rate"})}
        request = RecipeRequest.model_validate(given)
        return _estimated(await estimates.of_request(request, args.hourly_rate), args.hourly_rate)

    return [
        Tool(name="estimate-training", args=EstimateTraining, result=EstimatedTraining, effect=Effect.READ, run=run)
    ]


def _estimated(size: TrainingSize, hourly_rate: float | None) -> EstimatedTraining:
    return EstimatedTraining(
        steps=size.steps,
        images=size.images,
        epochs=size.epochs,
        seconds=size.seconds,
        vram_bytes=size.vram.bytes,
        disk_bytes=size.disk.bytes,
        cost=size.cost,
        hourly_rate=hourly_rate,
        based_on=EstimateBasis(seconds=size.seconds_based_on, vram=size.vram.based_on, disk=size.disk.based_on),
        learned_from=list(size.learned_from),
    )
