"""How each kind of model makes videos. The figures are those that the makers give with their models."""

from collections.abc import Mapping

from comfy_mcp.workflows.families import HUNYUAN_VIDEO, LTX_VIDEO, WAN
from comfy_mcp.workflows.image_recipes import IMAGE_RECIPES
from comfy_mcp.workflows.parts import (
    BYT5,
    HUNYUAN_15_VAE,
    LTX_VAE,
    QWEN_25_VL,
    SIGCLIP,
    T5XXL,
    UMT5,
    WAN_22_VAE,
)
from comfy_mcp.workflows.recipes import Encoders, ImageRecipe, Patch, VideoRecipe, find_recipe
from comfy_mcp.workflows.variants import (
    HUNYUAN_VIDEO_15,
    HUNYUAN_VIDEO_15_DISTILLED,
    LTX_VIDEO_13B,
    LTX_VIDEO_13B_DISTILLED,
    LTX_VIDEO_DISTILLED,
    WAN_22_5B,
)

_NEGATIVE = "blurry, low quality, distorted, deformed, jittery motion, watermark"
_SIDE = 768
# The shift at which Wan is rendered by its makers is that of a motion strength of 0.7.
_WAN_SHIFTS = (1.0, 11.0)


def _ltx(name: str, *, vram_gb: float, distilled: bool = False) -> VideoRecipe:
    return VideoRecipe(
        name=name,
        family=LTX_VIDEO,
        width=_SIDE,
        height=_SIDE,
        side_step=32,
        steps=8 if distilled else 30,
        cfg=1.0 if distilled else 3.0,
        fixed_cfg=distilled,
        encoders=Encoders(loader="CLIPLoader", type="ltxv", slots=(T5XXL,)),
        vae=LTX_VAE,
        checkpoint_has_encoders=False,
        frame_step=8,
        trained_frames=257,
        latents="ltx",
        negative=_NEGATIVE,
        vram_gb=vram_gb,
    )


def _hunyuan(name: str, *, distilled: bool = False) -> VideoRecipe:
    return VideoRecipe(
        name=name,
        family=HUNYUAN_VIDEO,
        width=_SIDE,
        height=_SIDE,
        side_step=16,
        steps=20,
        cfg=1.0 if distilled else 6.0,
        fixed_cfg=distilled,
        scheduler="simple",
        encoders=Encoders(loader="DualCLIPLoader", type="hunyuan_video_15", slots=(QWEN_25_VL, BYT5)),
        vae=HUNYUAN_15_VAE,
        model_patches=(Patch(class_type="ModelSamplingSD3", title="Noise levels", settings={"shift": 7.0}),),
        frame_step=4,
        trained_frames=121,
        latents="hunyuan",
        negative="",
        vram_gb=16.0,
        vision=SIGCLIP,
    )


VIDEO_RECIPES: Mapping[str, VideoRecipe] = {
    recipe.name: recipe
    for recipe in (
        _ltx(LTX_VIDEO_13B, vram_gb=14.0),
        _ltx(LTX_VIDEO_13B_DISTILLED, vram_gb=14.0, distilled=True),
        _ltx(LTX_VIDEO, vram_gb=8.0),
        _ltx(LTX_VIDEO_DISTILLED, vram_gb=8.0, distilled=True),
        VideoRecipe(
            name=WAN_22_5B,
            family=WAN,
            width=_SIDE,
            height=_SIDE,
            side_step=32,
            steps=20,
            cfg=5.0,
            sampler="uni_pc",
            scheduler="simple",
            encoders=Encoders(loader="CLIPLoader", type="wan", slots=(UMT5,)),
            vae=WAN_22_VAE,
            frame_step=4,
            trained_frames=121,
            latents="wan",
            negative=_NEGATIVE,
            vram_gb=10.0,
            motion_shift=_WAN_SHIFTS,
        ),
        _hunyuan(HUNYUAN_VIDEO_15),
        _hunyuan(HUNYUAN_VIDEO_15_DISTILLED, distilled=True),
    )
}


def video_recipe(variant: str) -> VideoRecipe:
    """Return the recipe of a variant; raises InvalidArguments with those that there are, for stills with their tool."""
    return find_recipe(variant, VIDEO_RECIPES, tool="generate-image" if variant in IMAGE_RECIPES else None)


def image_recipe(variant: str) -> ImageRecipe:
    """Return the recipe of a variant; raises InvalidArguments with those that there are, for videos with their tool."""
    return find_recipe(variant, IMAGE_RECIPES, tool="generate-video" if variant in VIDEO_RECIPES else None)


def recipe_named(variant: str) -> ImageRecipe | VideoRecipe | None:
    """Return the recipe of a variant, whatever it makes, or None."""
    return IMAGE_RECIPES.get(variant) or VIDEO_RECIPES.get(variant)
