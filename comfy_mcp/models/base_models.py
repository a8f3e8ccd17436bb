"""Choose the model that a picture starts from: a checkpoint, or a diffusion model with its encoders and VAE."""

from dataclasses import dataclass

from comfy_mcp.models.folders import ModelFolders
from comfy_mcp.models.models import CHECKPOINTS, DIFFUSION_MODELS, TEXT_ENCODERS, VAE, Models, find_name
from comfy_mcp.workflows import FamilyGuess, SplitModel, family_of
from comfy_mcp.workflows.families import FLUX, title_of
from mcp_toolserver.errors import NotFound


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """The chosen model, its family, and what the caller should know of the choice."""

    name: str
    model: str | SplitModel
    family: str
    warnings: tuple[str, ...] = ()


class BaseModels:
    """Find a checkpoint by name, or the best one where the caller leaves the choice."""

    def __init__(self, models: Models, folders: ModelFolders) -> None:
        self._models = models
        self._folders = folders

    async def choose(self, wanted: str | None) -> BaseModel:
        """Return the model that the caller means; without a name, the first of the FLUX family, else the first.

        Raises NotFound with the closest names, or where ComfyUI has no model at all.
        """
        checkpoints = await self._models.names(CHECKPOINTS)
        parts = await self._models.names(DIFFUSION_MODELS)
        if wanted is not None:
            name = find_name(wanted, (*checkpoints, *parts), field="checkpoint", what="checkpoint")
            renamed = (f"`checkpoint` {wanted} was taken for `{name}`.",) if name != wanted else ()
        else:
            flux = [name for name in (*checkpoints, *parts) if family_of(name).family == FLUX]
            name = next(iter((*flux, *checkpoints, *parts)), "")
            renamed = ()
        if not name:
            raise NotFound(
                "ComfyUI has no checkpoint and no diffusion model.",
                hint="Put one into ComfyUI's models/checkpoints folder; `list-models` shows what it finds.",
            )
        kind = CHECKPOINTS if name in checkpoints else DIFFUSION_MODELS
        guess = await self._family(kind, name)
        warnings = renamed if guess.certain else (*renamed, _unsure(name, guess))
        model = name if kind == CHECKPOINTS else await self._with_parts(name, guess.family)
        return BaseModel(name=name, model=model, family=guess.family, warnings=warnings)

    async def certain_family(self, name: str) -> str | None:
        """Return the family that the header of a model says, or None where it is out of reach or silent."""
        for kind in (CHECKPOINTS, DIFFUSION_MODELS):
            header = await self._folders.header(kind, name)
            if header is not None:
                guess = family_of(name, None, header)
                return guess.family if guess.found_by == "header" else None
        return None

    async def _family(self, kind: str, name: str) -> FamilyGuess:
        header = await self._folders.header(kind, name)
        guess = family_of(name, None, header)
        return guess if guess.certain else family_of(name, (await self._models.sizes(kind)).get(name), header)

    async def _with_parts(self, name: str, family: str) -> SplitModel:
        encoders = await self._models.names(TEXT_ENCODERS)
        vaes = await self._models.names(VAE)
        clip_l = _first(encoders, "clip_l", "clip-l", "vit-l")
        t5 = _first(encoders, "t5")
        vae = _first(vaes, "ae.", "flux")
        missing = [what for what, found in (("clip_l", clip_l), ("t5xxl", t5), ("ae (VAE)", vae)) if found is None]
        if family != FLUX or clip_l is None or t5 is None or vae is None:
            lacking = (
                f"ComfyUI has no {', '.join(missing)} to go with it" if family == FLUX else "its parts are unknown"
            )
            raise NotFound(
                f"`{name}` is a diffusion model without text encoders and VAE, and {lacking}.",
                hint="Put clip_l and t5xxl into models/text_encoders and ae.safetensors into models/vae, name a whole "
                "checkpoint, or send your own graph with `execute-workflow`.",
                details={"field": "checkpoint", "value": name, "family": family, "missing": missing},
            )
        return SplitModel(diffusion_model=name, text_encoders=(clip_l, t5), vae=vae)


def _first(names: tuple[str, ...], *words: str) -> str | None:
    return next((name for name in names if any(word in name.lower() for word in words)), None)


def _unsure(name: str, guess: FamilyGuess) -> str:
    evidence = "its size" if guess.found_by == "size" else "nothing but habit"
    return f"`{name}` was taken for {title_of(guess.family)} by {evidence}; name another checkpoint if that is wrong."
