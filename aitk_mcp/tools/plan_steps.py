"""The tools that hand a training config to a site as its training step, and take one from there."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from aitk_mcp.configs.configs import Configs
from aitk_mcp.configs.plan_steps import PlanSteps
from aitk_mcp.recipes.training_step import Priority, read_step
from aitk_mcp.tools.configs import CreatedTrainingConfig, CreateTrainingConfig, created
from mcp_toolserver.arguments import Arguments, parse_arguments
from mcp_toolserver.errors import InvalidArguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool


class ExportTrainingStep(Arguments):
    """Give a stored training config as the JSON training step (`$type: training`) that a site's orchestrator takes.

    Nothing is sent anywhere. `not_carried` names every setting that would be different if the step was trained, such
    as a trigger word, for which a step has no place.
    """

    classic_mistakes: ClassVar[Mapping[str, str]] = {"name": "the argument is `config_name`."}

    config_name: str = Field(description="Name of a config, as list-configs shows it.")
    model: str | None = Field(None, description="AIR URN of the base model; the config's own base model when left out.")
    training_data_url: str | None = Field(None, description="Where the zip of the images lies.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="What to attach, such as a `modelFileId`.")
    priority: Priority = Field("normal", description="Place in the site's queue.")
    retries: int = Field(0, ge=0, le=10, description="How often the site tries again.")


class ExportedTrainingStep(Result):
    """A config as a training step."""

    step: dict[str, Any] = Field(description="The step, as the site takes it.")
    not_carried: list[str] = Field(description="Settings that would be different if the step was trained.")
    warnings: list[str] = Field(description="What to know before it is sent.")


class ImportTrainingStep(Arguments):
    """Make a training config from a site's JSON training step (`$type: training`, or its `input` alone).

    Everything in the step is checked as create-training-config checks its arguments, and what is null takes the
    ecosystem's default. The images are those of `dataset_path`; the step's own zip is not fetched.
    """

    classic_mistakes: ClassVar[Mapping[str, str]] = {"dataset_name": "the argument is `dataset_path`."}

    step: dict[str, Any] = Field(description="The step.")
    name: str = Field(description="Name of the config, the job and its output files.")
    dataset_path: str = Field(description="Absolute path of the dataset folder, or the bare name of a dataset.")
    model_name: str | None = Field(None, description="Base model to train on in place of the step's `model`.")
    trigger_word: str | None = Field(None, min_length=1, max_length=100, description="Word that calls the subject.")
    overwrite: bool = Field(False, description="Replace another config of this name.")


def plan_step_tools(configs: Configs, steps: PlanSteps) -> list[AnyTool]:
    """Return the tools over these configs."""

    async def export(args: ExportTrainingStep, call: Call) -> ExportedTrainingStep:
        made = await steps.export(
            args.config_name,
            model=args.model,
            source_url=args.training_data_url,
            metadata=args.metadata,
            priority=args.priority,
            retries=args.retries,
        )
        return ExportedTrainingStep(
            step=made.step.as_json(), not_carried=list(made.not_carried), warnings=list(made.warnings)
        )

    async def take(args: ImportTrainingStep, call: Call) -> CreatedTrainingConfig:
        request = parse_arguments(CreateTrainingConfig, _arguments(args))
        return created(await configs.create(request, overwrite=args.overwrite))

    return [
        Tool(
            name="export-training-step",
            args=ExportTrainingStep,
            result=ExportedTrainingStep,
            effect=Effect.READ,
            run=export,
        ),
        Tool(
            name="import-training-step",
            args=ImportTrainingStep,
            result=CreatedTrainingConfig,
            effect=Effect.WRITE,
            run=take,
        ),
    ]


def _arguments(args: ImportTrainingStep) -> dict[str, Any]:
    settings = read_step(args.step)
    for taken in ("name", "dataset_path", "overwrite"):
        if taken in settings:
            raise InvalidArguments(
                f"`step` holds `{taken}`, which belongs beside it.", details={"field": f"step.input.{taken}"}
            )
    chosen = {"model_name": args.model_name, "trigger_word": args.trigger_word}
    own = {"name": args.name, "dataset_path": args.dataset_path}
    return {**settings, **own, **{key: value for key, value in chosen.items() if value is not None}}
