"""The training configs of a server: AI Toolkit documents, one YAML file each, named as the job that they make."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from anyio import to_thread

from aitk_mcp.dataset_paths import TrainingImages, locate
from aitk_mcp.datasets import Datasets
from aitk_mcp.documents import BadDocument, TrainingDocument, dataset_path, read_text
from aitk_mcp.recipes import Place, Recipe, RecipeRequest, build_config
from aitk_mcp.recipes.check import check_document
from aitk_mcp.recipes.estimate import Estimate, estimate
from aitk_mcp.recipes.problems import Problem, problem_of, refuse
from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, ToolError, closest
from mcp_toolserver.files import make_folder, write_now

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class StoredConfig:
    """A config on disk, read as the trainer will read it; `modified` is a Unix time in seconds."""

    name: str
    path: Path
    training: TrainingDocument
    modified: float

    @property
    def document(self) -> dict[str, Any]:
        """Return the whole document as the trainer reads it, with its placeholders filled in."""
        return dict(self.training.raw)


@dataclass(frozen=True)
class BrokenConfig:
    """A file among the configs that is none, and why."""

    name: str
    path: Path
    problem: str
    modified: float


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
    """Make, check, list and delete configs; `engine` is what will train them: cli or embedded."""

    def __init__(self, folder: Path, *, outputs: Path, datasets: Datasets, engine: str) -> None:
        self.folder = folder
        self.outputs = outputs
        self.engine = engine
        self._datasets = datasets

    async def create(self, request: RecipeRequest, *, overwrite: bool = False) -> CreatedConfig:
        """Store the config of a request; raises InvalidArguments or NotFound for what is wrong with it.

        The same request again answers the same; another one under a name that is taken is Conflict, unless
        `overwrite` is set. Jobs keep a copy of their config, so that replacing it changes no job.
        """
        return await to_thread.run_sync(self._create, request, overwrite)

    async def check(self, request: RecipeRequest) -> Verdict:
        """Say what `create` would refuse or warn of, without storing anything."""
        return await to_thread.run_sync(self._check, request)

    async def check_stored(self, name: str) -> Verdict:
        """Say what is wrong with a stored config, which may have been changed by hand."""
        return await to_thread.run_sync(self._check_stored, name)

    async def get(self, name: str) -> StoredConfig:
        """Return a config; raises NotFound with the closest names, InvalidArguments where its file is broken."""
        return await to_thread.run_sync(self._get, name)

    async def all(self) -> list[StoredConfig | BrokenConfig]:
        """Return every config, the latest change first."""
        return await to_thread.run_sync(self._all)

    async def delete(self, name: str) -> Path:
        """Delete a config and return where it lay; jobs that were made from it keep their copy."""

        def remove() -> Path:
            path = self._find(name)
            path.unlink()
            return path

        return await to_thread.run_sync(remove)

    def _create(self, request: RecipeRequest, overwrite: bool) -> CreatedConfig:
        images = locate(self._datasets, request.dataset_path)
        recipe = self._build(request, images)
        # Only ASCII: YAML changes some characters, such as U+0085, that it does not escape.
        text = yaml.safe_dump(recipe.document, sort_keys=False, width=1000).encode("ascii")
        path = self.folder / f"{request.name}.yaml"
        make_folder(self.folder)
        taken = self._files().get(request.name)
        if taken is not None and not overwrite and (taken != path or taken.read_bytes() != text):
            raise Conflict(
                f"There is another config `{request.name}` already.",
                hint="Send `overwrite: true` to replace it, or choose another name.",
                details={"field": "name", "value": request.name},
            )
        write_now(path, text)
        if taken is not None and taken != path:
            taken.unlink()
        document = recipe.document
        return CreatedConfig(
            request.name, path, document, self._warnings(recipe, images), self._estimate(recipe, images, request)
        )

    def _check(self, request: RecipeRequest) -> Verdict:
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
        warnings = (Problem("", text, severity="warning") for text in self._warnings(recipe, images))
        return Verdict((*problems, *warnings), self._estimate(recipe, images, request))

    def _check_stored(self, name: str) -> Verdict:
        config = self._get(name)
        problems = check_document(config.document, name, str(self.outputs))
        images: TrainingImages | None = None
        for dataset in config.training.datasets:
            try:
                images = locate(self._datasets, dataset_path(dataset))
            except ToolError as error:
                problems.append(problem_of(error, "datasets.folder_path"))
        train = config.training.block("train")
        arch = str(config.training.block("model").get("arch"))
        size = estimate(
            arch, config.training.steps, int(train.get("batch_size", 1)), images.images if images else None, self.engine
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
        problems: list[Problem] = []
        architecture = recipe.model.architecture
        if images is not None and not images.images and architecture.group not in ("video", "audio"):
            problems.append(
                Problem(
                    "dataset_path",
                    f"{images.path} holds no image that AI Toolkit reads (.jpg, .jpeg, .png, .webp).",
                    hint="Fill it with upload-dataset.",
                )
            )
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

    def _warnings(self, recipe: Recipe, images: TrainingImages | None) -> tuple[str, ...]:
        more: list[str] = []
        if self.engine == "embedded" and not (recipe.model.preset and recipe.model.preset.embedded_only):
            more.append(
                f"No AI Toolkit is configured here: the embedded engine will train its miniature FLUX (tinyflux), not"
                f" {recipe.model.name_or_path}. Set AITK_DIR to a checkout of AI Toolkit to train the real model."
            )
        if images is not None and not images.is_ours:
            more.append(f"{images.path} is no dataset of this server; whoever owns it must keep it there.")
        return (*recipe.warnings, *more)

    def _estimate(self, recipe: Recipe, images: TrainingImages | None, request: RecipeRequest) -> Estimate:
        steps: int = recipe.document["config"]["process"][0]["train"]["steps"]
        count = images.images if images else None
        return estimate(recipe.model.architecture.id, steps, request.batch_size, count, self.engine)

    def _get(self, name: str) -> StoredConfig:
        path = self._find(name)
        try:
            return _read(path)
        except BadDocument as error:
            raise InvalidArguments(
                f"The config `{name}` cannot be used: {error}.",
                hint=f"Correct {path}, or make it anew with create-training-config.",
                details={"field": "name", "value": name},
            ) from error

    def _all(self) -> list[StoredConfig | BrokenConfig]:
        found: list[StoredConfig | BrokenConfig] = []
        for name, path in self._files().items():
            try:
                found.append(_read(path))
            except BadDocument as error:
                found.append(BrokenConfig(name, path, str(error), path.stat().st_mtime))
        return sorted(found, key=lambda config: config.modified, reverse=True)

    def _files(self) -> dict[str, Path]:
        if not self.folder.is_dir():
            return {}
        files = (path for path in self.folder.iterdir() if path.suffix in _SUFFIXES and not path.name.startswith("."))
        return {path.stem: path for path in sorted(files)}

    def _find(self, name: str) -> Path:
        known = self._files()
        if name in known:
            return known[name]
        matches = closest(name, known)
        cure = f"Did you mean `{matches[0]}`? " if matches else ""
        raise NotFound(
            f"There is no training config `{name}`.",
            hint=f"{cure}list-configs shows every config; create-training-config makes one.",
            details={"field": "name", "value": name, "closest_matches": matches},
        )


def _read(path: Path) -> StoredConfig:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadDocument(f"it is no UTF-8 text ({error.reason})") from error
    training = read_text(text, is_json=path.suffix == ".json", environment=os.environ)
    return StoredConfig(path.stem, path, training, path.stat().st_mtime)


def _problems_in(error: ToolError) -> list[Problem]:
    named = error.details.get("problems")
    if not named:
        return [problem_of(error, "model_name")]
    return [
        Problem(each["field"], each["message"], each["hint"], closest_matches=tuple(each["closest_matches"]))
        for each in named
    ]
