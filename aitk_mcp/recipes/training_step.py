"""The same recipe as a site's `TrainingStep`, and back: JSON with `$type: training`, in camelCase.

{"$type": "training", "metadata": {…}, "priority": "normal", "retries": 0,
 "input": {"engine": "ai-toolkit", "ecosystem": "flux1", "modelVariant": "dev", "model": "urn:air:…",
           "trainingData": {"type": "zip", "sourceUrl": …, "count": 20}, "samples": {"prompts": […]},
           "epochs": 5, "lr": 0.0001, …}}
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from aitk_mcp.recipes.architectures import ARCHITECTURES
from aitk_mcp.recipes.ecosystems import ECOSYSTEMS, family_of
from mcp_toolserver.errors import InvalidArguments

LrScheduler = Literal["constant", "constant_with_warmup", "cosine", "linear", "step"]
OptimizerType = Literal[
    "adam", "adamw", "adamw8bit", "adam8bit", "lion", "lion8bit", "adafactor", "adagrad", "prodigy", "prodigy8bit"
]
Priority = Literal["low", "normal", "high"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True)


class TrainingData(_Part):
    """The images of a step."""

    type: Literal["zip"] = Field("zip", description="A zip of images with captions beside them.")
    source_url: str | None = Field(None, description="Where the zip lies.")
    count: int | None = Field(None, description="Number of images in it.")


class Samples(_Part):
    """The sample pictures of a step."""

    prompts: list[str] = Field(default_factory=list, description="Their prompts.")


class TrainingInput(_Part):
    """What a step trains."""

    engine: Literal["ai-toolkit"] = Field("ai-toolkit", description="The trainer.")
    ecosystem: str = Field(description="sd1, sdxl, sd3, flux1 or wan.")
    model: str = Field(description="Base model.")
    model_variant: str | None = Field(None, description="Which model of the ecosystem; only where it has several.")
    training_data: TrainingData = Field(description="The images.")
    samples: Samples = Field(description="The sample pictures.")
    epochs: int = Field(description="Passes over the images.")
    resolution: int | None = Field(description="Side of the training buckets.")
    lr: float = Field(description="Learning rate.")
    text_encoder_lr: float | None = Field(description="Learning rate of the text encoder.")
    train_text_encoder: bool = Field(description="Whether the text encoder is trained too.")
    lr_scheduler: LrScheduler = Field(description="Course of the learning rate.")
    optimizer_type: OptimizerType = Field(description="Optimizer.")
    network_dim: int | None = Field(description="Rank of the LoRA.")
    network_alpha: float | None = Field(description="Alpha of the LoRA.")
    noise_offset: float | None = Field(description="Noise offset.")
    min_snr_gamma: float | None = Field(description="Min-SNR weighting.")
    flip_augmentation: bool = Field(description="Whether mirrored images are trained on too.")
    shuffle_tokens: bool = Field(description="Whether the parts of captions are shuffled.")
    keep_tokens: int = Field(description="Caption parts at the front that are kept.")


class TrainingStep(_Part):
    """A training as a site orders it."""

    metadata: dict[str, Any] = Field(default_factory=dict, description="What the site attached to it.")
    priority: Priority = Field("normal", description="Place in the site's queue.")
    retries: int = Field(0, description="How often the site tries again.")
    input: TrainingInput = Field(description="What it trains.")

    def as_json(self) -> dict[str, Any]:
        """Return the step as the site takes it; a variant that there is none of is left out."""
        left_out = {"input": {"model_variant"}} if self.input.model_variant is None else None
        return {"$type": "training", **self.model_dump(mode="json", by_alias=True, exclude=left_out)}


def write_input(process: Mapping[str, Any], *, images: int, model: str | None, source_url: str | None) -> TrainingInput:
    """Return what a step must say to train the same; raises InvalidArguments where a step has no word for it.

    Steps become the nearest whole number of epochs. `model` takes the place of the document's own base model.
    """
    train, dataset, network = process["train"], process["datasets"][0], process["network"]
    name, arch = str(process["model"]["name_or_path"]), str(process["model"]["arch"])
    ecosystem, variant = family_of(ARCHITECTURES[arch], name) if arch in ARCHITECTURES else (arch, None)
    if ecosystem not in ECOSYSTEMS:
        raise InvalidArguments(
            f"The config trains the architecture `{arch}`, which is of no ecosystem that a training step knows.",
            hint=f"A training step trains {', '.join(ECOSYSTEMS)}.",
            details={"field": "config_name", "value": arch, "closest_matches": list(ECOSYSTEMS)},
        )
    scheduler, optimizer = str(train.get("lr_scheduler") or "constant"), str(train.get("optimizer"))
    for field, value, allowed in (
        ("lr_scheduler", scheduler, LrScheduler.__args__),
        ("optimizer", optimizer, OptimizerType.__args__),
    ):
        if value not in allowed:
            raise InvalidArguments(
                f"The config has the {field} `{value}`, which a training step cannot say.",
                hint=f"A training step takes {', '.join(allowed)}.",
                details={"field": field, "value": value, "closest_matches": list(allowed)},
            )
    resolutions = dataset.get("resolution") or [512]
    resolutions = cast(list[int], resolutions) if isinstance(resolutions, list) else [resolutions]
    passed = images * len(resolutions) * (2 if dataset.get("flip_x") else 1)
    samples = cast(list[dict[str, Any]], process["sample"].get("samples") or [])
    return TrainingInput(
        engine="ai-toolkit",
        ecosystem=ecosystem,
        model=model or name,
        model_variant=variant,
        training_data=TrainingData(type="zip", source_url=source_url, count=images),
        samples=Samples(prompts=[str(sample["prompt"]) for sample in samples]),
        epochs=max(1, round(train["steps"] * train.get("batch_size", 1) / passed)) if passed else 1,
        resolution=max(resolutions),
        lr=train["lr"],
        text_encoder_lr=train.get("text_encoder_lr"),
        train_text_encoder=bool(train.get("train_text_encoder")),
        lr_scheduler=cast(LrScheduler, scheduler),
        optimizer_type=cast(OptimizerType, optimizer),
        network_dim=network.get("linear"),
        network_alpha=network.get("linear_alpha"),
        noise_offset=train.get("noise_offset") or None,
        min_snr_gamma=train.get("min_snr_gamma") or None,
        flip_augmentation=bool(dataset.get("flip_x")),
        shuffle_tokens=bool(dataset.get("shuffle_tokens")),
        keep_tokens=int(dataset.get("keep_tokens") or 0),
    )


def read_step(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step, or its `input` alone, as arguments of create-training-config but for name and dataset.

    What is null is left to the ecosystem's default. Raises InvalidArguments for another kind of step or engine; the
    settings themselves are checked by whoever takes the arguments.
    """
    kind = step.get("$type", "training" if "input" in step or "ecosystem" in step else None)
    if kind != "training":
        raise InvalidArguments(
            f"`$type` is {kind!r}; a step that AI Toolkit trains is a `training`.",
            hint="`imageResourceTraining` is the older form for other trainers; its settings have other names.",
            details={"field": "step.$type", "value": kind, "closest_matches": ["training"]},
        )
    given = step.get("input", step)
    if not isinstance(given, Mapping):
        raise InvalidArguments("`step.input` is no JSON object.", details={"field": "step.input"})
    settings = {str(key): value for key, value in cast(Mapping[Any, Any], given).items() if value is not None}
    engine = settings.pop("engine", "ai-toolkit")
    if engine != "ai-toolkit":
        raise InvalidArguments(
            f"`engine` is {engine!r}; here `ai-toolkit` trains.",
            details={"field": "step.input.engine", "value": engine, "closest_matches": ["ai-toolkit"]},
        )
    if "ecosystem" not in settings:
        raise InvalidArguments(
            "`ecosystem` is missing from the step.",
            hint=f"Give one of {', '.join(ECOSYSTEMS)}.",
            details={"field": "step.input.ecosystem", "closest_matches": list(ECOSYSTEMS)},
        )
    settings.pop("$type", None)
    settings.pop("trainingData", None)
    samples = settings.pop("samples", None)
    if isinstance(samples, Mapping):
        settings["test_prompts"] = list(cast(Mapping[str, Any], samples).get("prompts") or [])
    if "model" in settings:
        settings["model_name"] = settings.pop("model")
    if settings.get("trainTextEncoder") is False:
        # The plan's form sends its default rate even where nothing is trained at it.
        settings.pop("textEncoderLr", None)
    if settings.get("keepTokens") == 0:
        del settings["keepTokens"]
    return settings
