"""A model of each recipe, with the files that go with it, out of the server's lists."""

from comfy_mcp.workflows import SplitModel
from comfy_mcp.workflows.image_recipes import IMAGE_RECIPES
from comfy_mcp.workflows.parts import pick
from comfy_mcp.workflows.recipes import Recipe, VideoRecipe
from comfy_mcp.workflows.video_recipes import VIDEO_RECIPES

from .server import listed

FILES = {
    "flux": "flux1-dev.safetensors",
    "flux-schnell": "flux1-schnell.safetensors",
    "flux-kontext": "flux1-dev-kontext_fp8_scaled.safetensors",
    "flux-fill": "flux1-fill-dev.safetensors",
    "sdxl": "sd_xl_base_1.0.safetensors",
    "sdxl-inpaint": "sd_xl_base_1.0_inpainting_0.1.safetensors",
    "sd15": "v1-5-pruned.safetensors",
    "sd15-inpaint": "sd-v1-5-inpainting.ckpt",
    "sd3": "sd3_medium.safetensors",
    "chroma": "Chroma1-HD-fp8mixed.safetensors",
    "qwen-image": "qwen_image_fp8_e4m3fn.safetensors",
    "qwen-image-edit": "qwen_image_edit_2509_fp8_e4m3fn.safetensors",
    "z-image": "z_image_bf16.safetensors",
    "z-image-turbo": "z_image_turbo_bf16.safetensors",
    "ltx-video": "ltx-video-2b-v0.9.safetensors",
    "ltx-video-distilled": "ltxv-2b-0.9.8-distilled-fp8.safetensors",
    "ltx-video-13b": "ltxv-13b-0.9.8-dev-fp8.safetensors",
    "ltx-video-13b-distilled": "ltxv-13b-0.9.8-distilled-fp8.safetensors",
    "wan-2.2-ti2v-5b": "TI2V/Wan2_2-TI2V-5B_fp8_e4m3fn_scaled_KJ.safetensors",
    "hunyuan-video-1.5": "hunyuanvideo1.5_720p_t2v_fp16.safetensors",
    "hunyuan-video-1.5-distilled": "hunyuanvideo1.5_720p_i2v_cfg_distilled_fp16.safetensors",
}

LISTS = {
    "text_encoders": listed("CLIPLoader", "clip_name"),
    "vae": listed("VAELoader", "vae_name"),
    "clip_vision": listed("CLIPVisionLoader", "clip_name"),
}


def in_parts(name: str, file: str | None = None) -> SplitModel:
    """Return the model of a recipe with every file that goes with it."""
    recipe: Recipe = IMAGE_RECIPES.get(name) or VIDEO_RECIPES[name]
    is_checkpoint = FILES[name] in listed("CheckpointLoaderSimple", "ckpt_name")
    encoders = recipe.encoders.slots if recipe.encoders else ()
    vision = (recipe.vision,) if isinstance(recipe, VideoRecipe) and recipe.vision else ()
    files = pick((*encoders, recipe.vae, *vision), LISTS, model=name, family=name)
    return SplitModel(
        diffusion_model=file or FILES[name],
        text_encoders=files[: len(encoders)],
        vae=files[len(encoders)],
        vision=files[-1] if vision else None,
        loader="CheckpointLoaderSimple" if is_checkpoint else "UNETLoader",
    )
