"""The training configs of a server: made by recipes, checked before they are stored, and again before a start."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import yaml
from anyio import to_thread

from aitk_mcp.configs.files import BrokenConfig, ConfigFiles, StoredConfig
from aitk_mcp.datasets.contents import TrainingImages
from aitk_mcp.datasets.paths import locate
from aitk_mcp.datasets.port import DatasetHome
from aitk_mcp.documents import TrainingDocument, dataset_path, read_document
from aitk_mcp.recipes import Place, Recipe, RecipeRequest, build_config
from aitk_mcp.recipes.architectures import ARCHITECTURES
from aitk_mcp.recipes.check import check_document
from aitk_mcp.recipes.doubts import embedded_doubts
from aitk_mcp.recipes.estimate import Estimate, estimate
from aitk_mcp.recipes.presets import find_preset
from aitk_mcp.recipes.problems import Problem, problem_of, refuse
from mcp_toolserver.errors import Conflict, ToolError

_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)(?:[eE][-+]?[0-9]+)?$")


class _Dumper(yaml.SafeDumper):
    """Put in quotes whatever AI Toolkit's loader takes for a number, such as the text 1e-4, and YAML 1.1 does not."""


cast(Any, _Dumper).add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


@dataclass(frozen=True)
class CreatedConfig:
    """A config that was just stored, and what its author should know before the start."""

    name: str
    path: Path
    document: dict[str, Any]
    warnings: tuple[str, ...]
    estimate: Estimate


@dataclass(frozen=True)
class Verdict:
    """Everything that is wrong or doubtful with a config, and how large the training is where that can be told."""

    problems: tuple[Problem, ...]
    estimate: Estimate | None

    @property
    def ok(self) -> bool:
        """Tell whether the training could start."""
        return not any(problem.severity == "error" for problem in self.problems)


class Configs:
    """Make, check, list and delete configs."""

    def __init__(
        self,
        folder: Path,
        *,
        outputs: Path,
        datasets: DatasetHome,
        engine: str,
        refusal: Callable[[TrainingDocument], str | None] = lambda document: None,
    ) -> None:
        """Take what will train the configs (cli or embedded), and why it would not train one (None where it would)."""
        self._files = ConfigFiles(folder)
        self.outputs = outputs
        self.engine = engine
        self._datasets = datasets
        self._refusal = refusal

    async def create(self, request: RecipeRequest, *, overwrite: bool = False) -> CreatedConfig:
        """Store the config of a request; raises InvalidArguments or NotFound for what is wrong with it.

        The same request again answers the same; another one under a name that is taken is Conflict, unless
        `overwrite` is set. Jobs keep a copy of their config, so that replacing it changes no job.
        """
        return await to_thread.run_sync(self._create, request, overwrite)

    async def check(self, request: RecipeRequest, *, overwrite: bool = False) -> Verdict:
        """Say what `create` would refuse or warn of, without storing anything."""
        return await to_thread.run_sync(self._check, request, overwrite)

    async def preview(self, request: RecipeRequest) -> tuple[dict[str, Any], int]:
        """Return the document that `create` would store, and the number of images; raises as it does."""

        def make() -> tuple[dict[str, Any], int]:
            images = locate(self._datasets, request.dataset_path)
            return self._build(request, images).document, images.images

        return await to_thread.run_sync(make)

    async def images_of(self, name: str) -> int | None:
        """Return the number of images that a stored config trains on, None where its dataset is gone."""

        def count() -> int | None:
            datasets = self._files.get(name).training.datasets
            try:
                return sum(locate(self._datasets, dataset_path(dataset)).images for dataset in datasets)
            except ToolError:
                return None

        return await to_thread.run_sync(count)

    async def check_stored(self, name: str) -> Verdict:
        """Say what is wrong with a stored config, which may have been changed by hand."""
        return await to_thread.run_sync(self._check_stored, name)

    async def get(self, name: str) -> StoredConfig:
        """Return a config; raises NotFound with the closest names, InvalidArguments where its file is broken."""
        return await to_thread.run_sync(self._files.get, name)

    async def all(self) -> list[StoredConfig | BrokenConfig]:
        """Return every config, the latest change first."""
        return await to_thread.run_sync(self._files.all)

    async def delete(self, name: str) -> Path:
        """Delete a config and return where it lay; jobs that were made from it keep their copy."""

        def remove() -> Path:
            path = self._files.path_of(name)
            path.unlink()
            return path

        return await to_thread.run_sync(remove)

    def _create(self, request: RecipeRequest, overwrite: bool) -> CreatedConfig:
        images: TrainingImages | None = None
        missing: ToolError | None = None
        try:
            images = locate(self._datasets, request.dataset_path)
        except ToolError as error:
            missing = error
        try:
            recipe = self._build(request, images)
        except ToolError as error:
            # The caller corrects everything at once, not the dataset first and the rest the next time.
            refuse([*([problem_of(missing, "dataset_path")] if missing else []), *_problems_in(error)])
            raise
        if missing is not None:
            missing.details.setdefault("field", "dataset_path")
            raise missing
        text = _render(recipe)
        if not overwrite:
            self._files.refuse_taken(request.name, text)
        return CreatedConfig(
            name=request.name,
            path=self._files.write(request.name, text),
            document=recipe.document,
            warnings=self._warnings(request, recipe, images),
            estimate=self._estimate(recipe, images, request),
        )

    def _check(self, request: RecipeRequest, overwrite: bool) -> Verdict:
        problems: list[Problem] = []
        images: TrainingImages | None = None
        try:
            images = locate(self._datasets, request.dataset_path)
        except ToolError as error:
            problems.append(problem_of(error, "dataset_path"))
        try:
            recipe = self._build(request, images)
        except ToolError as error:
            problems += _problems_in(error)
            return Verdict(tuple(problems), None)
        try:
            if not overwrite:
                self._files.refuse_taken(request.name, _render(recipe))
        except Conflict as error:
            problems.append(problem_of(error, "name"))
        warnings = (Problem("", text, severity="warning") for text in self._warnings(request, recipe, images))
        return Verdict((*problems, *warnings), self._estimate(recipe, images, request))

    def _check_stored(self, name: str) -> Verdict:
        config = self._files.get(name)
        problems = check_document(config.document, name, str(self.outputs))
        images: TrainingImages | None = None
        for dataset in config.training.datasets:
            try:
                images = locate(self._datasets, dataset_path(dataset))
            except ToolError as error:
                problems.append(replace(problem_of(error, ""), field="datasets.folder_path"))
            else:
                problems += _emptiness(images, "datasets.folder_path", config.training.architecture)
        if any(problem.severity == "error" for problem in problems):
            return Verdict(tuple(problems), None)
        refused = self._refusal(config.training)
        if refused:
            problems.append(Problem("model", f"It cannot be trained here: {refused}.", severity="warning"))
        elif self.engine == "embedded":
            problems = _for_embedded(problems, str(config.training.block("model").get("name_or_path")))
        batch_size = config.training.block("train").get("batch_size", 1)
        size = estimate(
            config.training.architecture,
            config.training.steps,
            batch_size if type(batch_size) is int and batch_size > 0 else 1,
            images.images if images else None,
            self.engine,
        )
        return Verdict(tuple(problems), size)

    def _build(self, request: RecipeRequest, images: TrainingImages | None) -> Recipe:
        place = Place(
            outputs_folder=str(self.outputs),
            dataset_folder=str(images.path) if images else request.dataset_path,
            images=images.images if images else None,
            captions=images.captions if images else (),
        )
        recipe = build_config(request, place)
        problems = _emptiness(images, "dataset_path", recipe.model.architecture.id)
        if recipe.model.preset is not None and recipe.model.preset.embedded_only and self.engine != "embedded":
            problems.append(
                Problem(
                    "model_name",
                    f"`{recipe.model.name_or_path}` is the model of the embedded engine, but AI Toolkit trains here.",
                    hint="Name a real base model, such as `ostris/Flex.1-alpha`.",
                    closest_matches=("ostris/Flex.1-alpha",),
                )
            )
        refuse(problems)
        return recipe

    def _warnings(self, request: RecipeRequest, recipe: Recipe, images: TrainingImages | None) -> tuple[str, ...]:
        more: list[str] = []
        refused = self._refusal(read_document(recipe.document))
        if refused:
            more.append(f"The config is fit for AI Toolkit, but start-training will refuse it here: {refused}.")
        elif self.engine == "embedded" and not (recipe.model.preset and recipe.model.preset.embedded_only):
            more.append(_stand_in(recipe.model.name_or_path))
        if self.engine == "embedded" and not refused:
            more += embedded_doubts(request)
        if images is not None and not images.is_ours:
            more.append(f"{images.path} is no dataset of this server; whoever owns it must keep it there.")
        return (*recipe.warnings, *more)

    def _estimate(self, recipe: Recipe, images: TrainingImages | None, request: RecipeRequest) -> Estimate:
        steps: int = recipe.document["config"]["process"][0]["train"]["steps"]
        count = images.images if images else None
        return estimate(recipe.model.architecture.id, steps, request.batch_size, count, self.engine)


def _for_embedded(problems: Sequence[Problem], model: str) -> list[Problem]:
    """Return the problems of a config where the miniature stands in for its model, which is not loaded here."""
    found = [problem for problem in problems if problem.field != "model.name_or_path" or problem.severity == "error"]
    preset = find_preset(model)
    if preset is not None and preset.embedded_only:
        return found
    return [*found, Problem("model.name_or_path", _stand_in(model), severity="warning")]


def _stand_in(model: str) -> str:
    return (
        "No AI Toolkit is configured here: the embedded engine will train its miniature FLUX (tinyflux), not"
        f" {model}. Set AITK_DIR to a checkout of AI Toolkit to train the real model."
    )


def _emptiness(images: TrainingImages | None, field: str, architecture: str) -> list[Problem]:
    row = ARCHITECTURES.get(architecture)
    if images is None or images.images or (row is not None and row.group in ("video", "audio")):
        return []
    message = f"{images.path} holds no image that AI Toolkit reads (.jpg, .jpeg, .png, .webp)."
    return [Problem(field, message, hint="Fill it with upload-dataset.")]


def _render(recipe: Recipe) -> bytes:
    # Only ASCII: YAML changes some characters, such as U+0085, that it does not escape.
    return yaml.dump(recipe.document, Dumper=_Dumper, sort_keys=False, width=1000).encode("ascii")


def _problems_in(error: ToolError) -> list[Problem]:
    named = error.details.get("problems")
    if not named:
        return [problem_of(error, "model_name")]
    return [
        Problem(each["field"], each["message"], each["hint"], closest_matches=tuple(each["closest_matches"]))
        for each in named
    ]
