"""How to render with a model or a LoRA: the figures of its recipe, found by its header, else by rules of thumb."""

from collections.abc import Sequence
from dataclasses import dataclass

from comfy_mcp.loras.info import LoraInfo
from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.models.folders import ModelFolders
from comfy_mcp.models.models import CHECKPOINTS, DIFFUSION_MODELS, LORAS, Models, find_name
from comfy_mcp.workflows import FamilyGuess, family_of
from comfy_mcp.workflows.families import SD15, SDXL, title_of
from comfy_mcp.workflows.recipes import ImageRecipe, VideoRecipe
from comfy_mcp.workflows.video_recipes import recipe_named
from lora_files.architectures import UNKNOWN
from mcp_toolserver.errors import InvalidArguments, NotFound

_BY_TAGS = frozenset({SDXL, SD15, "sd2"})
_EVIDENCE = {
    "header": "the layers in its file",
    "name": "its name",
    "size": "its size, as a rule of thumb",
    "nothing": "nothing but habit",
}


@dataclass(frozen=True, kw_only=True)
class ModelTips:
    """What is known of rendering with a file: `recipe` is None for a model without a built-in graph.

    `found_by` is what the family was read from; `lora` is there for a LoRA.
    """

    name: str
    type: str
    family: str
    title: str
    found_by: str
    recipe: ImageRecipe | VideoRecipe | None
    lora: LoraInfo | None
    example_prompt: str
    warnings: tuple[str, ...]


class TipBook:
    """Give tips for the models and LoRAs that ComfyUI has."""

    def __init__(self, models: Models, folders: ModelFolders, library: LoraLibrary) -> None:
        self._models = models
        self._folders = folders
        self._library = library

    async def tips(self, filename: str) -> ModelTips:
        """Return the tips for a checkpoint, a diffusion model or a LoRA.

        Raises NotFound with the closest names, and InvalidArguments for a file of another kind.
        """
        names = {kind: await self._models.names(kind) for kind in (CHECKPOINTS, DIFFUSION_MODELS, LORAS)}
        every = tuple(name for kind in names for name in names[kind])
        try:
            name = find_name(filename, every, field="filename", what="model")
        except NotFound:
            other = next((model for model in await self._models.of_type() if model.name == filename), None)
            if other is None:
                raise
            raise InvalidArguments(
                f"Argument `filename` is `{filename}`, one of the {other.type}: tips are for models and LoRAs.",
                hint="Name a checkpoint, a diffusion model or a LoRA.",
                details={"field": "filename", "value": filename, "type": other.type},
            ) from None
        kind = next(kind for kind, known in names.items() if name in known)
        renamed = (f"`{filename}` was taken for `{name}`.",) if name != filename else ()
        return await (self._of_lora(name, renamed) if kind == LORAS else self._of_model(kind, name, renamed))

    async def _of_model(self, kind: str, name: str, warnings: tuple[str, ...]) -> ModelTips:
        header = await self._folders.header(kind, name)
        guess = family_of(name, None, header)
        if not guess.certain:
            guess = family_of(name, (await self._models.sizes(kind)).get(name), header)
        recipe = recipe_named(guess.variant)
        problem = await self._folders.problem(kind, name)
        if problem is not None:
            warnings = (*warnings, f"`{name}` cannot be loaded. {problem}")
        return ModelTips(
            name=name,
            type=kind,
            family=guess.family,
            title=title_of(guess.variant),
            found_by=guess.found_by,
            recipe=recipe,
            lora=None,
            example_prompt=_example(guess.family, recipe, ()),
            warnings=(*warnings, *_doubts(name, guess, recipe)),
        )

    async def _of_lora(self, name: str, warnings: tuple[str, ...]) -> ModelTips:
        lora = await self._library.info(name.replace("\\", "/"), hashes=False)
        family, found_by = lora.architecture, "header" if lora.description else "name"
        if family == UNKNOWN:
            guess = family_of(name)
            family, found_by = (guess.family, "name") if guess.found_by == "name" else (UNKNOWN, "nothing")
        recipe = recipe_named(family)
        told = (*lora.notices, *(lora.description.warnings if lora.description else ()), *_problem(lora))
        if recipe is None:
            told = (*told, f"There is no built-in graph for {family} models: it needs your own, by `execute-workflow`.")
        return ModelTips(
            name=name,
            type=LORAS,
            family=family,
            title=title_of(family),
            found_by=found_by,
            recipe=recipe,
            lora=lora,
            example_prompt=_example(family, recipe, lora.trigger_words),
            warnings=(*warnings, *told),
        )


def _problem(lora: LoraInfo) -> tuple[str, ...]:
    return (lora.problem,) if lora.problem else ()


def _doubts(name: str, guess: FamilyGuess, recipe: ImageRecipe | VideoRecipe | None) -> list[str]:
    doubts: list[str] = []
    if not guess.certain:
        doubts.append(
            f"`{name}` was taken for {title_of(guess.variant)} by {_EVIDENCE[guess.found_by]}: the figures may not suit"
            " it."
        )
    elif guess.found_by == "name":
        doubts.append(f"`{name}` was known by its name alone: its header cannot be read here.")
    if recipe is None:
        doubts.append(
            f"There is no built-in graph for {title_of(guess.variant)}: it needs your own, by `execute-workflow`."
        )
    elif recipe.fixed_cfg:
        doubts.append(
            f"cfg stays at {recipe.cfg:g}: the guidance is trained in, a higher one burns the picture, and a negative"
            " prompt is never read."
        )
    return doubts


def _example(family: str, recipe: ImageRecipe | VideoRecipe | None, trigger_words: Sequence[str]) -> str:
    subject = trigger_words[0] if trigger_words else "a red fox"
    if isinstance(recipe, VideoRecipe):
        return f"{subject} runs through fresh snow towards the camera, which glides back at its side; morning light"
    if family in _BY_TAGS:
        return f"{subject}, sitting in fresh snow, forest, morning light, detailed fur, sharp focus"
    return f"A photograph of {subject} sitting in fresh snow at the edge of a forest, in soft morning light."
