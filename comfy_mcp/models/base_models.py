"""Choose the model that a picture or a video starts from: a checkpoint, or a diffusion model and what goes with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from comfy_mcp.models.folders import ModelFolders
from comfy_mcp.models.models import CHECKPOINTS, DIFFUSION_MODELS, Models, find_name
from comfy_mcp.workflows import FamilyGuess, SplitModel, family_of
from comfy_mcp.workflows.families import FLUX, title_of
from comfy_mcp.workflows.image_recipes import IMAGE_RECIPES
from comfy_mcp.workflows.parts import CLIP_VISION, VAE, Slot, pick
from comfy_mcp.workflows.recipes import Recipe, VideoRecipe
from comfy_mcp.workflows.video_recipes import VIDEO_RECIPES, image_recipe, video_recipe
from lora_files.header import SafetensorsHeader
from mcp_toolserver.errors import InvalidArguments, NotFound

Makes = Literal["images", "videos"]

_FIELDS: Mapping[Makes, str] = {"images": "checkpoint", "videos": "video_model"}
_ENCODERS_INSIDE = ("text_encoders.", "conditioner.embedders.", "cond_stage_model.", "text_encoder.")
_VAE_INSIDE = ("first_stage_model.", "vae.")
# Its loaders give both out of the one file.
_WHOLE_IN_ITSELF = "tinyflux"


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """The chosen model, its family and variant, and what the caller should know of the choice."""

    name: str
    model: str | SplitModel
    family: str
    variant: str
    warnings: tuple[str, ...] = ()


class BaseModels:
    """Find a checkpoint by name, or the best one where the caller leaves the choice."""

    def __init__(self, models: Models, folders: ModelFolders) -> None:
        self._models = models
        self._folders = folders

    async def choose(
        self, wanted: str | None, makes: Makes = "images", *, reads_image: bool | None = None
    ) -> BaseModel:
        """Return the model that the caller means; without a name, for pictures the first of the FLUX family, else the
        first that has a graph.

        Raises NotFound with the closest names, where ComfyUI has no such model at all, and where the files that go with
        the model are missing; InvalidArguments for a model that makes something else, or has no graph. Without a name,
        `reads_image` leaves out a video model that was made for the other beginning. A file that no loader can read is
        passed over, and refused by InvalidArguments where it was named.
        """
        field = _FIELDS[makes]
        checkpoints = await self._models.names(CHECKPOINTS)
        parts = await self._models.names(DIFFUSION_MODELS)
        if wanted is not None:
            name = find_name(wanted, (*checkpoints, *parts), field=field, what="checkpoint")
            renamed = (f"`{field}` {wanted} was taken for `{name}`.",) if name != wanted else ()
            problem = await self._folders.problem(_kind_of(name, checkpoints), name)
            if problem is not None:
                raise _unreadable(field, name, problem)
        else:
            fitting = _fitting((*checkpoints, *parts), makes, reads_image=reads_image)
            name, renamed = await self._first_readable(fitting, checkpoints, field)
        kind = _kind_of(name, checkpoints)
        header = await self._folders.header(kind, name)
        guess = await self._family(kind, name, header)
        # A model of the other kind is refused as such, before files that it would need are missed.
        recipe = image_recipe(guess.variant) if makes == "images" else video_recipe(guess.variant)
        warnings = renamed if guess.certain else (*renamed, _unsure(name, guess))
        model = await self._with_parts(kind, name, recipe, header, reads_image=bool(reads_image))
        return BaseModel(name=name, model=model, family=guess.family, variant=guess.variant, warnings=warnings)

    async def certain_family(self, name: str) -> str | None:
        """Return the family that the header of a model says, or None where it is out of reach or silent."""
        for kind in (CHECKPOINTS, DIFFUSION_MODELS):
            header = await self._folders.header(kind, name)
            if header is not None:
                guess = family_of(name, None, header)
                return guess.family if guess.found_by == "header" else None
        return None

    async def _first_readable(
        self, fitting: Sequence[str], checkpoints: Sequence[str], field: str
    ) -> tuple[str, tuple[str, ...]]:
        problems: dict[str, str] = {}
        for name in fitting:
            problem = await self._folders.problem(_kind_of(name, checkpoints), name)
            if problem is None:
                return name, tuple(
                    f"`{each}` was passed over: it cannot be loaded. {problems[each]}" for each in problems
                )
            problems[name] = problem
        raise _unreadable(field, *next(iter(problems.items())))

    async def _family(self, kind: str, name: str, header: SafetensorsHeader | None) -> FamilyGuess:
        guess = family_of(name, None, header)
        return guess if guess.certain else family_of(name, (await self._models.sizes(kind)).get(name), header)

    async def _with_parts(
        self, kind: str, name: str, recipe: Recipe, header: SafetensorsHeader | None, *, reads_image: bool
    ) -> str | SplitModel:
        encoders = () if recipe.encoders is None else recipe.encoders.slots
        if kind == CHECKPOINTS and _encoders_inside(header, recipe):
            encoders = ()
        vae = () if kind == CHECKPOINTS and _inside(header, _VAE_INSIDE) else (recipe.vae,)
        vision = (recipe.vision,) if isinstance(recipe, VideoRecipe) and recipe.vision and reads_image else ()
        slots: tuple[Slot, ...] = (*encoders, *vae, *vision)
        if not slots:
            return name
        available = {slot.kind: await self._models.names(slot.kind) for slot in slots}
        files = pick(
            slots,
            available,
            model=name,
            family=recipe.name,
            field=_FIELDS["videos" if isinstance(recipe, VideoRecipe) else "images"],
        )
        found = dict(zip(slots, files, strict=True))
        return SplitModel(
            diffusion_model=name,
            text_encoders=tuple(found[slot] for slot in encoders),
            vae=next((file for slot, file in found.items() if slot.kind == VAE), None),
            vision=next((file for slot, file in found.items() if slot.kind == CLIP_VISION), None),
            loader="CheckpointLoaderSimple" if kind == CHECKPOINTS else "UNETLoader",
        )


def _kind_of(name: str, checkpoints: Sequence[str]) -> str:
    return CHECKPOINTS if name in checkpoints else DIFFUSION_MODELS


def _unreadable(field: str, name: str, problem: str) -> InvalidArguments:
    return InvalidArguments(
        f"Argument `{field}` is `{name}`, a file that cannot be loaded. {problem}",
        hint="Nothing was queued. Get the file anew where it came from, or name another; `list-models` has a `problem` "
        "for each that cannot be loaded.",
        details={"field": field, "value": name, "problem": problem},
    )


def _fitting(names: tuple[str, ...], makes: Makes, *, reads_image: bool | None) -> list[str]:
    """Return the models that have a graph, the best first; raises NotFound where there is none."""
    guesses = {name: family_of(name) for name in names}
    if makes == "videos":
        fitting = [name for name in names if guesses[name].variant in VIDEO_RECIPES]
        # The other of the two stands in their names, where they make only one of them.
        barred = "t2v" if reads_image else "i2v"
        fitting = [name for name in fitting if barred not in name.lower() or "ti2v" in name.lower()]
    else:
        fitting = [name for name in names if "txt2img" in _modes(guesses[name])]
        fitting.sort(key=lambda name: (guesses[name].family != FLUX, guesses[name].variant != FLUX))
    if fitting:
        return fitting
    folders = "models/checkpoints or models/diffusion_models"
    if makes == "videos":
        raise NotFound(
            "ComfyUI has no model that makes videos.",
            hint=f"Graphs exist for {', '.join(map(title_of, VIDEO_RECIPES))}; put one into ComfyUI's {folders} "
            "folder.",
            details={"field": "video_model", "variants": list(VIDEO_RECIPES)},
        )
    if names:
        raise NotFound(
            f"None of ComfyUI's {len(names)} models makes pictures from a prompt by a built-in graph.",
            hint=f"Name one as `checkpoint`, or put one into ComfyUI's {folders} folder: graphs exist for "
            f"{', '.join(map(title_of, IMAGE_RECIPES))}.",
            details={"field": "checkpoint", "variants": list(IMAGE_RECIPES)},
        )
    raise NotFound(
        "ComfyUI has no checkpoint and no diffusion model.",
        hint="Put one into ComfyUI's models/checkpoints folder; `list-models` shows what it finds.",
    )


def _modes(guess: FamilyGuess) -> frozenset[str]:
    recipe = IMAGE_RECIPES.get(guess.variant)
    return frozenset() if recipe is None else frozenset(recipe.modes)


def _encoders_inside(header: SafetensorsHeader | None, recipe: Recipe) -> bool:
    return recipe.checkpoint_has_encoders if header is None else _inside(header, _ENCODERS_INSIDE)


def _inside(header: SafetensorsHeader | None, prefixes: tuple[str, ...]) -> bool:
    """Tell whether a checkpoint holds such weights; one out of reach is taken to be whole, as most are."""
    if header is None or header.metadata.get("modelspec.architecture", "").startswith(_WHOLE_IN_ITSELF):
        return True
    return any(name.startswith(prefixes) for name in header.tensors)


def _unsure(name: str, guess: FamilyGuess) -> str:
    evidence = "its size" if guess.found_by == "size" else "nothing but habit"
    return f"`{name}` was taken for {title_of(guess.family)} by {evidence}; name another checkpoint if that is wrong."
