"""Hand a stored config to a site as its training step, and say what the step does not carry."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from anyio import to_thread

from aitk_mcp.configs.configs import Configs
from aitk_mcp.datasets.paths import locate
from aitk_mcp.datasets.port import DatasetHome
from aitk_mcp.documents import dataset_path
from aitk_mcp.recipes import Place, RecipeRequest, build_config
from aitk_mcp.recipes.ecosystems import ECOSYSTEMS
from aitk_mcp.recipes.plans import out_of_bounds
from aitk_mcp.recipes.training_step import Priority, TrainingStep, read_step, write_input

# Where the images and the results lie is different on every machine.
_LOCAL = ("training_folder", "datasets.0.folder_path")


@dataclass(frozen=True)
class ExportedStep:
    """A config as a step, and what would be different if the step was trained."""

    step: TrainingStep
    not_carried: tuple[str, ...]
    warnings: tuple[str, ...]


class PlanSteps:
    """Write training steps from the configs of a server."""

    def __init__(self, configs: Configs, datasets: DatasetHome) -> None:
        self._configs = configs
        self._datasets = datasets

    async def export(
        self,
        config_name: str,
        *,
        model: str | None = None,
        source_url: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        priority: Priority = "normal",
        retries: int = 0,
    ) -> ExportedStep:
        """Return a stored config as a step; raises NotFound, and InvalidArguments for what a step has no word for."""
        config = await self._configs.get(config_name)
        process = config.document["config"]["process"][0]
        folder = dataset_path(config.training.datasets[0]) if config.training.datasets else ""
        images = await to_thread.run_sync(partial(locate, self._datasets, folder))
        written = write_input(process, images=images.images, model=model, source_url=source_url)
        step = TrainingStep(metadata=dict(metadata or {}), priority=priority, retries=retries, input=written)
        warnings: list[str] = []
        if not written.model.startswith("urn:air:"):
            warnings.append(
                f"`model` is {written.model}: a site names models by AIR URNs, such as"
                " `urn:air:sdxl:checkpoint:civitai:<model>@<version>`. Give that as `model`."
            )
        if source_url is None:
            warnings.append("`sourceUrl` is null: give the address of the zip of images as `training_data_url`.")
        request = _request(config_name, folder, str(process["model"]["name_or_path"]), step)
        plan = ECOSYSTEMS[written.ecosystem].plan
        warnings += [f"{problem.message} {problem.hint}" for problem in out_of_bounds(request, plan)]
        place = Place(str(self._configs.outputs), folder, images.images, images.captions)
        again = build_config(request, place, within_bounds=False).document["config"]["process"][0]
        return ExportedStep(step, tuple(_differences(process, again)), tuple(warnings))


def _request(name: str, folder: str, model_name: str, step: TrainingStep) -> RecipeRequest:
    arguments = {**read_step(step.as_json()), "name": name, "dataset_path": folder, "model_name": model_name}
    return RecipeRequest.model_validate(arguments)


def _differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    mine, theirs = dict(_leaves(here)), dict(_leaves(there))
    for path in dict.fromkeys((*mine, *theirs)):
        if mine.get(path) != theirs.get(path) and path not in _LOCAL:
            yield f"{path}: {mine.get(path)!r} here, {theirs.get(path)!r} by the step"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in cast(Mapping[str, Any], value).items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for index, inner in enumerate(cast(list[Any], value)):
            yield from _leaves(inner, f"{path}.{index}")
    else:
        yield path, value
