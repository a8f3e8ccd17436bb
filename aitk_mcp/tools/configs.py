"""The tools for training configs: make, check, list, show and delete them, and list the base models."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from pydantic import Field

from aitk_mcp.configs.configs import Configs, CreatedConfig, Verdict
from aitk_mcp.configs.files import BrokenConfig, StoredConfig
from aitk_mcp.documents import dataset_path
from aitk_mcp.recipes import RecipeOptions, RecipeRequest
from aitk_mcp.recipes.architectures import ARCHITECTURES
from aitk_mcp.recipes.ecosystems import ECOSYSTEMS
from aitk_mcp.recipes.estimate import Estimate
from aitk_mcp.recipes.presets import PRESETS
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import InvalidArguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool

CONFIG_MISTAKES = {
    "dataset_name": "the argument is `dataset_path`, which takes the bare name of a dataset too.",
    "dataset": "the argument is `dataset_path`, which takes the bare name of a dataset too.",
    "model": "the argument is `model_name`.",
    "base_model": "the argument is `model_name`.",
    "numRepeats": "AI Toolkit repeats no images; say `epochs` or `steps`.",
    "num_repeats": "AI Toolkit repeats no images by default; say `epochs` or `steps`.",
    "trainBatchSize": "the plan has none for AI Toolkit; the argument is `batch_size`.",
    "train_batch_size": "the plan has none for AI Toolkit; the argument is `batch_size`.",
    "prompts": "the argument is `test_prompts`.",
    "sample_prompts": "the argument is `test_prompts`.",
    "config_name": "the argument is `name`.",
}


class CreateTrainingConfig(RecipeRequest, Arguments):
    """Make and store the exact config document that AI Toolkit trains a LoRA by.

    It has the defaults of the architecture, with what you set changed. Everything wrong is refused at once, by field;
    what is only doubtful (a gated model, a prompt without the trigger word) is in `warnings`. Then: start-training.
    """

    classic_mistakes: ClassVar[Mapping[str, str]] = CONFIG_MISTAKES

    overwrite: bool = Field(False, description="Replace another config of this name.")


class TrainingEstimate(Result):
    """How large a training is, and how long it may take."""

    steps: int = Field(description="Optimizer steps.")
    images: int | None = Field(description="Images in the dataset.")
    epochs: float | None = Field(description="Passes over the images.")
    seconds: float | None = Field(description="Time of the steps; null where none was ever measured.")
    based_on: str = Field(description="Where the time comes from; loading the model is not in it.")


class CreatedTrainingConfig(Result):
    """A config that was stored."""

    name: str = Field(description="Its name: what start-training takes as `config_name`.")
    config_path: str = Field(description="Where it is kept.")
    config: dict[str, Any] = Field(description="The document, as AI Toolkit runs it.")
    warnings: list[str] = Field(description="What to know before the start.")
    estimate: TrainingEstimate = Field(description="How large the training is.")


class ValidateConfig(RecipeOptions, Arguments):
    """Say what is wrong with a training config before anything is stored or started.

    Give the arguments of create-training-config, or only `name` for a config that is stored.
    """

    classic_mistakes: ClassVar[Mapping[str, str]] = CONFIG_MISTAKES

    name: str | None = Field(None, description="Name of a stored config, or of the one that is to be made.")
    model_name: str | None = Field(None, description="Base model, as create-training-config takes it.")
    dataset_path: str | None = Field(None, description="Dataset, as create-training-config takes it.")
    overwrite: bool = Field(False, description="Whether another config of this name may be replaced.")


class ConfigProblem(Result):
    """One finding."""

    severity: Literal["error", "warning"] = Field(description="An error keeps the training from being made or started.")
    field: str = Field(description="The argument or the setting; empty where the finding is about the whole.")
    message: str = Field(description="What is wrong.")
    hint: str | None = Field(description="What to do about it.")
    closest_matches: list[str] = Field(description="Values that were probably meant.")


class ConfigVerdict(Result):
    """What is wrong with a config."""

    valid: bool = Field(description="Whether there is no error among the problems.")
    problems: list[ConfigProblem] = Field(description="What was found.")
    estimate: TrainingEstimate | None = Field(description="How large the training is; null where errors hide it.")


class ListConfigs(Arguments):
    """List the stored training configs, the latest change first."""


class ConfigSummary(Result):
    """A stored config in short."""

    name: str = Field(description="Its name.")
    config_path: str = Field(description="Where it is kept.")
    model: str | None = Field(description="Base model.")
    architecture: str | None = Field(description="AI Toolkit's `arch`.")
    dataset_path: str | None = Field(description="The dataset's folder.")
    steps: int | None = Field(description="Optimizer steps.")
    trigger_word: str | None = Field(description="The trigger word.")
    modified: datetime = Field(description="When it was last changed.")
    problem: str | None = Field(description="Why the file is no config that could be run; null where it is one.")


class ConfigList(Result):
    """Every stored config."""

    configs: list[ConfigSummary] = Field(description="The configs.")
    total: int = Field(description="How many there are.")


class GetConfig(Arguments):
    """Show a stored training config."""

    name: str = Field(description="Its name, as list-configs shows it.")


class FullConfig(ConfigSummary):
    """A stored config with its document."""

    config: dict[str, Any] = Field(description="The document, as AI Toolkit runs it.")


class DeleteConfig(Arguments):
    """Delete a stored training config. Jobs that were made from it keep their own copy."""

    name: str = Field(description="Its name, as list-configs shows it.")


class ConfigDeleted(Result):
    """A config that is gone."""

    name: str = Field(description="Its name.")
    config_path: str = Field(description="Where it lay.")


class ListModelPresets(Arguments):
    """List the base models that create-training-config knows by name, with their architectures and ecosystems."""

    query: str | None = Field(None, description="Only those whose name, architecture or label holds this text.")


class ModelPreset(Result):
    """A base model."""

    model_name: str = Field(description="What `model_name` takes.")
    aliases: list[str] = Field(description="Shorter names that it takes too.")
    architecture: str = Field(description="AI Toolkit's `arch`; `ecosystem` takes it too.")
    label: str = Field(description="The architecture's name for people.")
    group: str = Field(description="image, instruction, video, audio or experimental.")
    gated: bool = Field(description="Whether its licence must be accepted, and an HF_TOKEN given, before a start.")
    public_alternative: str | None = Field(description="A similar model that needs no token.")
    notes: str | None = Field(description="What else to know.")


class ModelPresetList(Result):
    """The base models."""

    models: list[ModelPreset] = Field(description="The models; any other Hugging Face name or local path works too.")
    ecosystems: dict[str, list[str]] = Field(description="What `ecosystem` takes, with the variants that each needs.")
    total: int = Field(description="How many models there are.")


def config_tools(configs: Configs) -> list[AnyTool]:
    """Return the tools over these configs."""

    async def create(args: CreateTrainingConfig, call: Call) -> CreatedTrainingConfig:
        return created(await configs.create(args, overwrite=args.overwrite))

    async def validate(args: ValidateConfig, call: Call) -> ConfigVerdict:
        if args.name is not None and args.model_fields_set == {"name"}:
            return _verdict(await configs.check_stored(args.name))
        missing = [name for name in ("model_name", "dataset_path") if getattr(args, name) is None]
        if missing:
            raise InvalidArguments(
                " ".join(f"Argument `{name}` is missing." for name in missing),
                hint="Give the arguments of create-training-config, or only the `name` of a stored config.",
                details={"problems": [{"field": name, "type": "missing"} for name in missing]},
            )
        given = {"name": "unnamed", **args.model_dump(exclude_unset=True, exclude_none=True, exclude={"overwrite"})}
        return _verdict(await configs.check(RecipeRequest.model_validate(given), overwrite=args.overwrite))

    async def list_all(args: ListConfigs, call: Call) -> ConfigList:
        found = [_summary(config) for config in await configs.all()]
        return ConfigList(configs=found, total=len(found))

    async def get(args: GetConfig, call: Call) -> FullConfig:
        config = await configs.get(args.name)
        return FullConfig(**_summary(config).model_dump(), config=config.document)

    async def delete(args: DeleteConfig, call: Call) -> ConfigDeleted:
        return ConfigDeleted(name=args.name, config_path=str(await configs.delete(args.name)))

    async def presets(args: ListModelPresets, call: Call) -> ModelPresetList:
        found = [preset for preset in _presets() if _matches(preset, args.query)]
        variants = {name: list(ecosystem.variants) for name, ecosystem in ECOSYSTEMS.items()}
        return ModelPresetList(models=found, ecosystems=variants, total=len(found))

    return [
        Tool(
            name="create-training-config",
            args=CreateTrainingConfig,
            result=CreatedTrainingConfig,
            effect=Effect.WRITE,
            run=create,
        ),
        Tool(name="validate-config", args=ValidateConfig, result=ConfigVerdict, effect=Effect.READ, run=validate),
        Tool(name="list-configs", args=ListConfigs, result=ConfigList, effect=Effect.READ, run=list_all),
        Tool(name="get-config", args=GetConfig, result=FullConfig, effect=Effect.READ, run=get),
        Tool(name="delete-config", args=DeleteConfig, result=ConfigDeleted, effect=Effect.DESTROY, run=delete),
        Tool(name="list-model-presets", args=ListModelPresets, result=ModelPresetList, effect=Effect.READ, run=presets),
    ]


def created(made: CreatedConfig) -> CreatedTrainingConfig:
    """Return a config that was just stored as its author sees it."""
    return CreatedTrainingConfig(
        name=made.name,
        config_path=str(made.path),
        config=made.document,
        warnings=list(made.warnings),
        estimate=_estimate(made.estimate),
    )


def _estimate(found: Estimate) -> TrainingEstimate:
    return TrainingEstimate(
        steps=found.steps, images=found.images, epochs=found.epochs, seconds=found.seconds, based_on=found.based_on
    )


def _verdict(found: Verdict) -> ConfigVerdict:
    return ConfigVerdict(
        valid=found.ok,
        problems=[
            ConfigProblem(
                severity=problem.severity,
                field=problem.field,
                message=problem.message,
                hint=problem.hint,
                closest_matches=list(problem.closest_matches),
            )
            for problem in found.problems
        ],
        estimate=_estimate(found.estimate) if found.estimate else None,
    )


def _summary(config: StoredConfig | BrokenConfig) -> ConfigSummary:
    modified = datetime.fromtimestamp(config.modified, UTC)
    if isinstance(config, BrokenConfig):
        return ConfigSummary(
            name=config.name,
            config_path=str(config.path),
            model=None,
            architecture=None,
            dataset_path=None,
            steps=None,
            trigger_word=None,
            modified=modified,
            problem=config.problem,
        )
    training, model = config.training, config.training.block("model")
    return ConfigSummary(
        name=config.name,
        config_path=str(config.path),
        model=model.get("name_or_path"),
        architecture=model.get("arch"),
        dataset_path=next((dataset_path(dataset) for dataset in training.datasets), None),
        steps=training.steps,
        trigger_word=training.trigger_word,
        modified=modified,
        problem=None,
    )


def _presets() -> list[ModelPreset]:
    return [
        ModelPreset(
            model_name=preset.name,
            aliases=list(preset.aliases),
            architecture=preset.arch,
            label=ARCHITECTURES[preset.arch].label,
            group=ARCHITECTURES[preset.arch].group,
            gated=preset.gated,
            public_alternative=preset.public_alternative,
            notes=preset.notes,
        )
        for preset in PRESETS
        if preset.moved_to is None
    ]


def _matches(preset: ModelPreset, query: str | None) -> bool:
    texts = (preset.model_name, preset.architecture, preset.label, *preset.aliases)
    return query is None or any(query.lower() in text.lower() for text in texts)
