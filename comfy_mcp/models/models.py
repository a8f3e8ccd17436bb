"""What models ComfyUI has: their kinds, names, sizes and families."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.workflows import family_of
from lora_files.header import SafetensorsHeader
from mcp_toolserver.errors import InvalidArguments, NotFound, closest

CHECKPOINTS = "checkpoints"
DIFFUSION_MODELS = "diffusion_models"
TEXT_ENCODERS = "text_encoders"
LORAS = "loras"
VAE = "vae"

# Singular forms, and the folders' names before ComfyUI renamed them.
_OTHER_NAMES = {
    "checkpoint": CHECKPOINTS,
    "ckpt": CHECKPOINTS,
    "model": CHECKPOINTS,
    "lora": LORAS,
    "unet": DIFFUSION_MODELS,
    "diffusion_model": DIFFUSION_MODELS,
    "clip": TEXT_ENCODERS,
    "text_encoder": TEXT_ENCODERS,
    "vaes": VAE,
    "upscale_model": "upscale_models",
    "upscalers": "upscale_models",
    "embedding": "embeddings",
    "controlnets": "controlnet",
}
_HAVE_FAMILIES = frozenset({CHECKPOINTS, DIFFUSION_MODELS})
# They live under models/, and hold no models.
_NO_MODELS = frozenset({"custom_nodes", "configs", "datasets"})

ReadHeader = Callable[[str, str], Awaitable[SafetensorsHeader | None]]
"""Return the header of a model by kind and name, or None where it is out of reach."""


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model as its loader's list has it; size in bytes where ComfyUI tells, family where it is a base model."""

    name: str
    type: str
    size_bytes: int | None
    family: str | None


class Models:
    """List models and find the one that a caller means; without `header`, families go by name and size alone."""

    def __init__(self, comfyui: ComfyUI, header: ReadHeader | None = None) -> None:
        self._comfyui = comfyui
        self._header = header

    async def of_type(self, kind: str | None = None) -> list[ModelFile]:
        """Return the models of one kind, or of every kind; raises InvalidArguments with the closest kind."""
        kinds = await self._comfyui.model_folders()
        wanted = [name for name in kinds if name not in _NO_MODELS] if kind is None else [_kind_of(kind, kinds)]
        return [model for name in wanted for model in await self._of_kind(name)]

    async def kind(self, wanted: str) -> str:
        """Return the kind of model that a caller means; raises InvalidArguments with the closest."""
        return _kind_of(wanted, await self._comfyui.model_folders())

    async def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of one kind as the loaders take them; empty where ComfyUI has no such folder."""
        return await self._comfyui.models(kind) or ()

    async def sizes(self, kind: str) -> dict[str, int]:
        """Return sizes in bytes by name, as far as ComfyUI tells."""
        return dict(await self._comfyui.model_sizes(kind))

    async def _of_kind(self, kind: str) -> list[ModelFile]:
        names = await self.names(kind)
        sizes = await self.sizes(kind) if names else {}
        return [
            ModelFile(
                name=name,
                type=kind,
                size_bytes=sizes.get(name),
                family=await self._family(kind, name, sizes.get(name)) if kind in _HAVE_FAMILIES else None,
            )
            for name in names
        ]

    async def _family(self, kind: str, name: str, size_bytes: int | None) -> str:
        guess = family_of(name, size_bytes)
        if guess.certain or self._header is None:
            return guess.family
        # The header knows best, and takes too long to read for each of many.
        return family_of(name, size_bytes, await self._header(kind, name)).family


def find_name(wanted: str, names: tuple[str, ...], *, field: str, what: str) -> str:
    """Return the one of `names` that a caller means: itself, or but for case, separators, folder and extension.

    Raises NotFound with the closest names where there is none, and InvalidArguments where there are several.
    """
    if wanted in names:
        return wanted
    for plain in (_same_path, _same_file, _same_stem):
        # A model may lie in two folders under one name, as a checkpoint and as a diffusion model: that is one name.
        found = list(dict.fromkeys(name for name in names if plain(name) == plain(wanted)))
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidArguments(
                f"Argument `{field}` is `{wanted}`: {len(found)} {what}s are called that, in different folders.",
                hint=f"Name one in full: {', '.join(f'`{name}`' for name in found[:5])}.",
                details={"field": field, "value": wanted, "closest_matches": found},
            )
    # Of a short name, the extension that a caller leaves out is half of the letters.
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(_same_stem(name), []).append(name)
    matches = closest(wanted, names) or [name for stem in closest(_same_stem(wanted), stems) for name in stems[stem]]
    lister = "list-loras" if what == "LoRA" else "list-models"
    cure = f"{f'Did you mean `{matches[0]}`? ' if matches else ''}`{lister}` has the {what}s that there are."
    raise NotFound(
        f"Argument `{field}` is `{wanted}`: ComfyUI has no such {what}.",
        hint=cure,
        details={"field": field, "value": wanted, "closest_matches": matches},
    )


def _kind_of(kind: str, kinds: tuple[str, ...]) -> str:
    plain = kind.strip().lower().replace("-", "_")
    plain = plain if plain in kinds else _OTHER_NAMES.get(plain, plain)
    if plain in kinds:
        return plain
    matches = closest(kind, (*kinds, *_OTHER_NAMES))
    offered = list(dict.fromkeys(_OTHER_NAMES.get(match, match) for match in matches))
    cure = f"Did you mean `{offered[0]}`?" if offered else f"ComfyUI has {', '.join(kinds)}."
    raise InvalidArguments(
        f"Argument `type` is `{kind}`: ComfyUI has no such kind of model.",
        hint=cure,
        details={"field": "type", "value": kind, "closest_matches": offered, "types": list(kinds)},
    )


def _same_path(name: str) -> str:
    return name.replace("\\", "/").lower()


def _same_file(name: str) -> str:
    return _same_path(name).rsplit("/", 1)[-1]


def _same_stem(name: str) -> str:
    file = _same_file(name)
    stem, dot, extension = file.rpartition(".")
    return stem if dot and extension in {"safetensors", "sft", "ckpt", "pt", "pth", "bin", "gguf"} else file
