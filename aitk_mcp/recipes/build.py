"""Turn a request into the document that AI Toolkit runs: the defaults of the architecture, and what the caller changed.

The process is a `diffusion_trainer`, as AI Toolkit's own pages write it: started by `run.py` without AITK_JOB_ID it
leaves their database alone, so that one document serves the pages, the command line and the embedded engine.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from aitk_mcp.recipes.architectures import Process, default_process
from aitk_mcp.recipes.doubts import doubts_of
from aitk_mcp.recipes.names import check_training_name, doubt_of_outputs
from aitk_mcp.recipes.overrides import apply_overrides, check_overrides
from aitk_mcp.recipes.plans import out_of_bounds, planned
from aitk_mcp.recipes.presets import LR_SCHEDULERS, OPTIMIZERS, PRECISIONS, ModelChoice, resolve_model
from aitk_mcp.recipes.problems import Problem, problem_of, refuse
from aitk_mcp.recipes.request import RecipeRequest
from mcp_toolserver.errors import ToolError, closest

_VARIABLE = re.compile(r"\$\{[^}]+\}")


@dataclass(frozen=True)
class Place:
    """Where a training happens: absolute folders, the number of images there, and a few of their captions."""

    outputs_folder: str
    dataset_folder: str
    images: int | None = None
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A document for AI Toolkit, the model it trains, and what the caller should know before the start."""

    document: dict[str, Any]
    model: ModelChoice
    warnings: tuple[str, ...]


def build_config(request: RecipeRequest, place: Place, *, within_bounds: bool = True) -> Recipe:
    """Build the document of a request; raises InvalidArguments that names everything wrong with it at once.

    `within_bounds` says whether the bounds of an ecosystem's plan hold.
    """
    problems: list[Problem] = []
    model: ModelChoice | None = None
    try:
        check_training_name(request.name)
    except ToolError as error:
        problems.append(problem_of(error, "name"))
    try:
        model = resolve_model(request.model_name, request.ecosystem, request.model_variant)
    except ToolError as error:
        problems.append(problem_of(error, "model_name"))
    plan = model.plan if model and request.ecosystem else None
    if plan is not None:
        problems += out_of_bounds(request, plan) if within_bounds else ()
        request = planned(request, plan, place.images)
    settings, wrong_overrides = check_overrides(request.overrides)
    problems += [*_wrong_values(request), *wrong_overrides]
    refuse(problems)
    # `refuse` has raised where no model was found.
    assert model is not None
    steps = steps_of(request, place.images)
    warnings = [*model.warnings, *doubts_of(request, model, steps)]
    overlooked = doubt_of_outputs(place.outputs_folder, request.name)
    if overlooked:
        warnings.append(overlooked)
    process = default_process(model.architecture)
    process["model"]["name_or_path"] = model.name_or_path
    apply_overrides(process, model.settings)
    _fill(process, request, place, steps)
    _fill_optional(process, request, model, steps)
    apply_overrides(process, settings)
    document = {
        "job": "extension",
        "config": {"name": request.name, "process": [process]},
        "meta": {"name": "[name]", "version": "1.0"},
    }
    refuse(list(environment_references(document)))
    return Recipe(document, model, tuple(warnings))


def steps_of(request: RecipeRequest, images: int | None) -> int:
    """Return the number of steps; an epoch passes every image at each resolution, and mirrored ones again."""
    if request.epochs is None or not images:
        return request.steps
    resolutions = len(request.resolution) if isinstance(request.resolution, list) else 1
    passed = images * resolutions * (2 if request.flip_augmentation else 1)
    return math.ceil(passed / request.batch_size) * request.epochs


def environment_references(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for each `${…}`, which AI Toolkit replaces by an environment variable or fails on."""
    for path, text in _texts(document):
        found = _VARIABLE.search(text)
        if found:
            yield Problem(
                path,
                f"`{path}` holds `{found.group()}`, which AI Toolkit takes for an environment variable.",
                hint="Write it without `${` and `}`.",
            )


def _wrong_values(request: RecipeRequest) -> Iterator[Problem]:
    if request.epochs is not None and "steps" in request.model_fields_set:
        yield Problem("epochs", "`steps` and `epochs` were both given.", hint="Give only one of them.")
    resolutions = request.resolution if isinstance(request.resolution, list) else [request.resolution]
    for resolution in resolutions:
        if resolution % 32:
            nearest = max(64, round(resolution / 32) * 32)
            yield Problem("resolution", f"`resolution` is {resolution}, no multiple of 32.", hint=f"Use {nearest}.")
    if request.optimizer is not None and request.optimizer.lower() not in OPTIMIZERS:
        yield _unknown("optimizer", request.optimizer, OPTIMIZERS)
    if request.lr_scheduler == "step":
        yield Problem(
            "lr_scheduler",
            "AI Toolkit's `step` scheduler fails at the start: it is handed `total_iters`, which it does not take.",
            hint="Use `cosine` or `linear`.",
            closest_matches=("cosine", "linear"),
        )
    elif request.lr_scheduler is not None and request.lr_scheduler not in LR_SCHEDULERS:
        yield _unknown("lr_scheduler", request.lr_scheduler, LR_SCHEDULERS)
    if request.text_encoder_lr is not None and not request.train_text_encoder:
        yield Problem(
            "text_encoder_lr",
            "`text_encoder_lr` was given, but `train_text_encoder` is false.",
            hint="Set `train_text_encoder: true`, or leave `text_encoder_lr` out.",
        )


def _unknown(field: str, value: str, known: tuple[str, ...]) -> Problem:
    matches = tuple(closest(value, known))
    cure = f"Did you mean `{matches[0]}`? " if matches else ""
    return Problem(
        field, f"`{field}` is {value!r}.", hint=f"{cure}Allowed: {', '.join(known)}.", closest_matches=matches
    )


def _fill(process: Process, request: RecipeRequest, place: Place, steps: int) -> None:
    process["training_folder"] = place.outputs_folder
    process["trigger_word"] = request.trigger_word
    process["network"].update(linear=request.rank, linear_alpha=_whole(request.alpha))
    dataset = process["datasets"][0]
    dataset["folder_path"] = place.dataset_folder
    dataset["resolution"] = request.resolution if isinstance(request.resolution, list) else [request.resolution]
    process["train"].update(
        batch_size=request.batch_size,
        steps=steps,
        lr=request.learning_rate,
        gradient_checkpointing=request.gradient_checkpointing,
        disable_sampling=request.disable_sampling,
    )
    process["model"]["low_vram"] = request.low_vram
    process["sample"]["samples"] = [{"prompt": prompt} for prompt in _prompts(request, place)]


def _fill_optional(process: Process, request: RecipeRequest, model: ModelChoice, steps: int) -> None:
    train, dataset = process["train"], process["datasets"][0]
    if request.mixed_precision is not None:
        train["dtype"] = PRECISIONS[request.mixed_precision]
    if request.optimizer is not None:
        train["optimizer"] = request.optimizer.lower()
    if request.lr_scheduler is not None:
        train["lr_scheduler"] = request.lr_scheduler
        if parameters := _scheduler_parameters(request.lr_scheduler, steps):
            train["lr_scheduler_params"] = parameters
    if request.train_text_encoder:
        train["train_text_encoder"] = True
        if request.text_encoder_lr is not None:
            train["text_encoder_lr"] = request.text_encoder_lr
    if request.noise_offset is not None:
        train["noise_offset"] = request.noise_offset
    if request.min_snr_gamma is not None and model.is_ddpm:
        train["min_snr_gamma"] = request.min_snr_gamma
    if request.default_caption is not None:
        dataset["default_caption"] = request.default_caption
    if request.caption_dropout_rate is not None:
        dataset["caption_dropout_rate"] = request.caption_dropout_rate
    if request.flip_augmentation:
        dataset["flip_x"] = True
    if request.shuffle_tokens:
        dataset["shuffle_tokens"] = True
    if request.keep_tokens is not None:
        dataset["keep_tokens"] = request.keep_tokens
    if request.save_every is not None:
        process["save"]["save_every"] = request.save_every
    if request.sample_every is not None:
        process["sample"]["sample_every"] = request.sample_every
    if request.seed is not None:
        process["training_seed"] = request.seed
    if request.use_wandb:
        process["logging"]["use_wandb"] = True


def _scheduler_parameters(name: str, steps: int) -> dict[str, Any]:
    if name == "linear":
        # Left to itself torch's LinearLR rises, from a third of the rate to all of it.
        return {"start_factor": 1.0, "end_factor": 0.0}
    if name == "constant_with_warmup":
        # AI Toolkit's own default is 1000 steps, as long as many a training.
        return {"num_warmup_steps": max(1, steps // 10)}
    return {}


def _prompts(request: RecipeRequest, place: Place) -> list[str]:
    if request.test_prompts:
        return request.test_prompts
    trigger = request.trigger_word
    if not trigger:
        return list(place.captions)
    captions = [each if trigger.lower() in each.lower() else f"{trigger}, {each}" for each in place.captions]
    return captions or [trigger]


def _whole(number: float) -> int | float:
    return int(number) if number == int(number) else number


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in cast(Mapping[str, Any], value).items():
            yield from _texts(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(cast(list[Any], value)):
            yield from _texts(inner, f"{path}[{index}]")
