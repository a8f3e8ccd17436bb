"""Graphs to start from that the builders draw, so that they are what generate-image and generate-video would run.

What can be set in them is read from the titles of their nodes. Files bear their makers' names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from comfy_mcp.workflows.build import build
from comfy_mcp.workflows.build_video import build_video
from comfy_mcp.workflows.families import CHROMA, FLUX, QWEN_IMAGE, SD3, title_of
from comfy_mcp.workflows.graphs import Graph
from comfy_mcp.workflows.recipes import VideoRecipe
from comfy_mcp.workflows.requests import ControlNetUse, GenerationRequest, Hires, LoraUse, SplitModel, VideoRequest
from comfy_mcp.workflows.variants import (
    FLUX_KONTEXT,
    HUNYUAN_VIDEO_15,
    LTX_VIDEO_13B_DISTILLED,
    QWEN_IMAGE_EDIT,
    WAN_22_5B,
    Z_IMAGE_TURBO,
)
from comfy_mcp.workflows.video_recipes import recipe_named

_SEED = 42
_PROMPT = "a cat sitting on a windowsill in the morning sun"
_EDIT = "put a red scarf around the cat's neck, and keep everything else"
_LORA = (LoraUse(name="my_lora.safetensors"),)

# By the title of the node and the input: what people call it. An input may be set in several nodes at once.
_PARAMETERS: Mapping[tuple[str, str], str] = {
    ("Checkpoint", "ckpt_name"): "checkpoint",
    ("Diffusion model", "unet_name"): "diffusion_model",
    ("Text encoder", "clip_name"): "text_encoder",
    ("Text encoders", "clip_name1"): "text_encoder",
    ("Text encoders", "clip_name2"): "text_encoder_2",
    ("VAE", "vae_name"): "vae",
    ("Vision model", "clip_name"): "clip_vision",
    ("LoRA", "lora_name"): "lora",
    ("LoRA", "strength_model"): "lora_strength",
    ("LoRA", "strength_clip"): "lora_strength_clip",
    ("Prompt", "text"): "prompt",
    ("Prompt", "prompt"): "prompt",
    ("Negative prompt", "text"): "negative_prompt",
    ("Negative prompt", "prompt"): "negative_prompt",
    ("Guidance", "guidance"): "guidance",
    ("Input image", "image"): "input_image",
    ("First frame", "image"): "input_image",
    ("Reference", "image"): "reference_image",
    ("Mask", "image"): "mask",
    ("ControlNet", "control_net_name"): "controlnet",
    ("ControlNet", "name"): "controlnet",
    ("Control image", "image"): "control_image",
    ("Apply ControlNet", "strength"): "controlnet_strength",
    **{
        (title, field): name
        for title in ("Empty latent", "From the first frame", "Latents")
        for field, name in (("width", "width"), ("height", "height"), ("length", "frames"))
    },
    ("Empty latent", "batch_size"): "batch_size",
    **{(title, "seed"): "seed" for title in ("Sampler", "Second pass")},
    ("Sampler", "noise_seed"): "seed",
    ("Sampler", "steps"): "steps",
    ("Noise levels", "steps"): "steps",
    ("Sampler", "cfg"): "cfg_scale",
    ("Sampler", "sampler_name"): "sampler",
    ("Sampler", "scheduler"): "scheduler",
    ("Sampler", "denoise"): "denoise",
    ("Second pass", "steps"): "hires_steps",
    ("Second pass", "denoise"): "hires_denoise",
    ("Enlarge", "scale_by"): "hires_scale",
    ("Upscale model", "model_name"): "upscale_model",
    ("Frame rate", "frame_rate"): "fps",
    ("Video", "fps"): "fps",
    ("Save", "filename_prefix"): "filename_prefix",
}


@dataclass(frozen=True, kw_only=True)
class DrawnTemplate:
    """Hold a graph and the inputs that each of its parameters sets, as (node id, input)."""

    name: str
    title: str
    description: str
    family: str
    graph: Graph
    parameters: Mapping[str, tuple[tuple[str, str], ...]]


def drawn_templates() -> Iterator[DrawnTemplate]:
    """Draw every template."""
    flux = GenerationRequest(prompt=_PROMPT, checkpoint="flux1-dev.safetensors", seed=_SEED)
    yield _image(
        "flux-inpaint",
        "FLUX within a mask",
        "Draws anew what a mask leaves open in an uploaded image, and keeps the rest.",
        FLUX,
        replace(flux, input_image="input.png", mask="mask.png"),
    )
    yield _image(
        "flux-hires",
        "FLUX in two passes",
        "Enlarges the latents and draws over them, for detail that the first size has no room for.",
        FLUX,
        replace(flux, hires=Hires()),
    )
    yield _image(
        "flux-upscale",
        "FLUX, enlarged by a model",
        "Enlarges the finished picture with an upscale model.",
        FLUX,
        replace(flux, upscale_model="4x-UltraSharp.pth"),
    )
    control = ControlNetUse(name="flux_controlnet_union.safetensors", image="control.png", strength=0.7, end=0.8)
    yield _image(
        "flux-controlnet",
        "FLUX led by a ControlNet",
        "Follows the edges, the pose or the depth of an uploaded image.",
        FLUX,
        replace(flux, controlnet=control),
    )
    kontext = _split(FLUX_KONTEXT, "flux1-dev-kontext_fp8_scaled.safetensors")
    yield _image(
        "flux-kontext-edit",
        "Edit an image with FLUX.1 Kontext",
        "Changes an uploaded image as the prompt says, and looks at a second one.",
        FLUX_KONTEXT,
        replace(flux, checkpoint=kontext, prompt=_EDIT, input_image="input.png", reference_images=("reference.png",)),
    )
    yield _image(
        "qwen-image-edit",
        "Edit an image with Qwen-Image-Edit",
        "Changes an uploaded image as the prompt says.",
        QWEN_IMAGE_EDIT,
        replace(
            flux,
            checkpoint=_split(QWEN_IMAGE_EDIT, "qwen_image_edit_2509_fp8_e4m3fn.safetensors"),
            prompt=_EDIT,
            input_image="input.png",
        ),
    )
    for variant, checkpoint in (
        (SD3, "sd3.5_large_fp8_scaled.safetensors"),
        (CHROMA, _split(CHROMA, "Chroma1-HD-fp8mixed.safetensors")),
        (QWEN_IMAGE, _split(QWEN_IMAGE, "qwen_image_fp8_e4m3fn.safetensors")),
        (Z_IMAGE_TURBO, _split(Z_IMAGE_TURBO, "z_image_turbo_bf16.safetensors")),
    ):
        yield _image(
            f"{variant}-lora-txt2img",
            f"{title_of(variant)} with a LoRA, text to image",
            f"Makes a picture from a prompt with {title_of(variant)} and a LoRA.",
            variant,
            replace(flux, checkpoint=checkpoint, loras=_LORA),
        )
    for variant, file, name, from_image in (
        (LTX_VIDEO_13B_DISTILLED, "ltxv-13b-0.9.8-distilled-fp8.safetensors", "ltx-video", True),
        (LTX_VIDEO_13B_DISTILLED, "ltxv-13b-0.9.8-distilled-fp8.safetensors", "ltx-video", False),
        (WAN_22_5B, "wan2.2_ti2v_5B_fp16.safetensors", "wan", True),
        (WAN_22_5B, "wan2.2_ti2v_5B_fp16.safetensors", "wan", False),
        (HUNYUAN_VIDEO_15, "hunyuanvideo1.5_720p_i2v_fp16.safetensors", "hunyuan-video", True),
        (HUNYUAN_VIDEO_15, "hunyuanvideo1.5_720p_t2v_fp16.safetensors", "hunyuan-video", False),
    ):
        yield _video(name, variant, file, from_image=from_image)


def _image(name: str, title: str, description: str, variant: str, request: GenerationRequest) -> DrawnTemplate:
    return _template(name, title, description, variant, build(request, variant).graph)


def _video(name: str, variant: str, file: str, *, from_image: bool) -> DrawnTemplate:
    request = VideoRequest(
        prompt="the cat turns its head and yawns, slow pan to the right",
        checkpoint=_split(variant, file, from_image=from_image),
        seed=_SEED,
        input_image="input.png" if from_image else None,
    )
    start = "an uploaded image" if from_image else "a prompt"
    return _template(
        f"{name}-{'img2vid' if from_image else 'txt2vid'}",
        f"{title_of(variant)}, {'image' if from_image else 'text'} to video",
        f"Makes a video from {start} with {title_of(variant)}.",
        variant,
        build_video(request, variant).graph,
    )


def _split(variant: str, file: str, *, from_image: bool = False) -> SplitModel:
    recipe = recipe_named(variant)
    vision = recipe.vision if isinstance(recipe, VideoRecipe) else None
    if recipe is None or recipe.encoders is None:
        raise LookupError(variant)
    return SplitModel(
        diffusion_model=file,
        text_encoders=tuple(slot.file for slot in recipe.encoders.slots),
        # A checkpoint that lacks the encoders still holds its VAE.
        vae=recipe.vae.file if recipe.checkpoint_has_encoders else None,
        vision=vision.file if vision is not None and from_image else None,
        loader="UNETLoader" if recipe.checkpoint_has_encoders else "CheckpointLoaderSimple",
    )


def _template(name: str, title: str, description: str, variant: str, graph: Graph) -> DrawnTemplate:
    recipe = recipe_named(variant)
    sets: dict[str, list[tuple[str, str]]] = {}
    for node_id, node in graph.items():
        for field, value in node["inputs"].items():
            parameter = _PARAMETERS.get((node["_meta"]["title"], field))
            # A first pass from noise draws everything, or leaves some of the noise in the picture.
            if parameter is not None and not isinstance(value, list) and (parameter, value) != ("denoise", 1.0):
                sets.setdefault(parameter, []).append((node_id, field))
    if recipe is not None and recipe.fixed_cfg:
        # No other cfg is right, and so no negative prompt is ever read.
        sets = {parameter: places for parameter, places in sets.items() if parameter not in _UNUSED_AT_FIXED_CFG}
    return DrawnTemplate(
        name=name,
        title=title,
        description=description,
        family=recipe.family if recipe is not None else variant,
        graph=graph,
        parameters={parameter: tuple(places) for parameter, places in sets.items()},
    )


_UNUSED_AT_FIXED_CFG = frozenset({"cfg_scale", "negative_prompt"})
