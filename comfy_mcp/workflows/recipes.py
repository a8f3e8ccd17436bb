"""The shape of a recipe: how one kind of model is rendered, told in data. The rows are in `image_recipes` and
`video_recipes`; the builders read nothing else of a family."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from comfy_mcp.workflows.families import title_of
from comfy_mcp.workflows.parts import Slot
from mcp_toolserver.errors import InvalidArguments, closest

Mode = Literal["txt2img", "img2img", "edit", "inpaint", "hires", "controlnet"]


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """Say how the text encoders are loaded where the model's file has none: the node, its `type`, and the files."""

    loader: str
    slots: tuple[Slot, ...]
    type: str | None = None


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Name a node that the model, or the text encoder, passes through before it is used, with its settings."""

    class_type: str
    title: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hold what is common to pictures and videos of one kind of model.

    `name` is that of a variant, or of the family. `fixed_cfg` says that the guidance is trained in, so that another cfg
    burns the picture and a negative prompt is never read. `unfit_schedulers` are replaced by `scheduler`; `schedulers`
    are those to offer. `encoders` is None where only whole checkpoints exist; `checkpoint_has_encoders` is False where
    even the makers' checkpoints hold none. Sides are multiples of `side_step` pixels.
    """

    name: str
    family: str
    vae: Slot
    width: int = 1024
    height: int = 1024
    side_step: int = 8
    steps: int = 20
    cfg: float = 7.0
    fixed_cfg: bool = False
    sampler: str = "euler"
    scheduler: str = "normal"
    schedulers: tuple[str, ...] = ()
    unfit_schedulers: frozenset[str] = field(default_factory=frozenset[str])
    encoders: Encoders | None = None
    checkpoint_has_encoders: bool = True
    model_patches: tuple[Patch, ...] = ()
    clip_patches: tuple[Patch, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageRecipe(Recipe):
    """Add what is told of pictures alone.

    `modes` are those that the model has; enlarging by a model works on every picture. `guidance` is that of
    FluxGuidance, None where the model has none. `samplers` are those to offer where `euler`, the habit from Stable
    Diffusion, is replaced; empty where every sampler suits. An inpainting model reads picture and mask beside the noise
    (`inpaint="channels"`), any other is held to the mask while it samples. An editing model reads up to `references`
    pictures, as latents or through its text encoder. A ControlNet is applied to the prompts, or patches the model.
    """

    modes: frozenset[Mode]
    guidance: float | None = None
    guidance_range: tuple[float, float] = (1.0, 10.0)
    samplers: tuple[str, ...] = ()
    advised_steps: tuple[int, int] | None = None
    latent: str = "EmptyLatentImage"
    inpaint: Literal["noise-mask", "channels"] = "noise-mask"
    controlnet: Literal["prompts", "model"] = "prompts"
    reads_references: Literal["latents", "text"] = "latents"
    references: int = 0


@dataclass(frozen=True, kw_only=True)
class VideoRecipe(Recipe):
    """Add what is told of videos alone.

    A video has one frame and a multiple of `frame_step` more, no more than `trained_frames` if it is to hold together.
    `latents` names the nodes that begin it. `motion_shift` is (least, most) shift of the noise levels, which is how
    strongly the model moves things, or None where nothing sets that. `vision` is what reads an input image.
    `vram_gb` is that of 49 frames of 768 x 768 pixels.
    """

    frame_step: int
    trained_frames: int
    latents: Literal["ltx", "wan", "hunyuan"]
    negative: str
    vram_gb: float
    motion_shift: tuple[float, float] | None = None
    vision: Slot | None = None


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def find_recipe(variant: str, rows: Mapping[str, AnyRecipe], *, tool: str | None) -> AnyRecipe:
    """Return the row of a variant; raises InvalidArguments with those that there are, or with the `tool` for it."""
    recipe = rows.get(variant)
    if recipe is not None:
        return recipe
    if tool is not None:
        message, hint = f"{title_of(variant)} is a model for `{tool}`.", f"Call `{tool}`, or name another model."
    else:
        message = f"There is no built-in graph for {title_of(variant)} (`{variant}`)."
        hint = f"Built-in graphs exist for {', '.join(rows)}; send your own graph with `execute-workflow`."
    raise InvalidArguments(
        message,
        hint=hint,
        details={"family": variant, "families": list(rows), "closest_matches": closest(variant, rows)},
    )
