"""Build the API-format graph of a request for a video, by the recipe of its model.

model ── LoRAs ── patches ─┐
prompts ── (input image) ──┼─ sampler ── decode ── save
latents of all frames ─────┘
"""

from dataclasses import dataclass

from comfy_mcp.workflows.build_model import load
from comfy_mcp.workflows.drawing import Drawing, Loaded, Prompts, slot
from comfy_mcp.workflows.graphs import Graph, Link
from comfy_mcp.workflows.recipes import Patch, VideoRecipe
from comfy_mcp.workflows.requests import SplitModel, VideoRequest
from comfy_mcp.workflows.video_recipes import video_recipe
from comfy_mcp.workflows.video_settings import VideoSettings, settle_video
from mcp_toolserver.errors import InvalidArguments


@dataclass(frozen=True, kw_only=True)
class BuiltVideo:
    """Hold a graph ready to submit, what it is called, what it samples with, and what was changed on the way."""

    graph: Graph
    workflow_name: str
    variant: str
    settings: VideoSettings
    warnings: tuple[str, ...]
    output_node: str


def build_video(request: VideoRequest, variant: str) -> BuiltVideo:
    """Build a video from a prompt, from an image, or from both.

    Raises InvalidArguments for a value out of range, for a variant without recipe, and where neither is given.
    """
    recipe = video_recipe(variant)
    settings, warnings = settle_video(request, recipe)
    drawing = Drawing()
    loaded = load(drawing, request.checkpoint, request.loras, recipe)
    prompts = Prompts(
        positive=drawing.add("CLIPTextEncode", "Prompt", text=request.prompt, clip=loaded.clip),
        negative=drawing.add("CLIPTextEncode", "Negative prompt", text=settings.negative_prompt, clip=loaded.clip),
    )
    image = drawing.add("LoadImage", "First frame", image=request.input_image) if request.input_image else None
    samples = _SAMPLERS[recipe.latents](_Scene(drawing, request, recipe, settings, loaded, prompts, image))
    images = drawing.add("VAEDecode", "Decode", samples=samples, vae=loaded.vae)
    saved = _save(drawing, request, settings, images)
    return BuiltVideo(
        graph=drawing.graph,
        workflow_name=f"{variant}-{'txt2vid' if image is None else 'img2vid'}",
        variant=variant,
        settings=settings,
        warnings=tuple(warnings),
        output_node=saved.node_id,
    )


@dataclass(frozen=True)
class _Scene:
    """Hold what the sampling of a video is made from."""

    drawing: Drawing
    request: VideoRequest
    recipe: VideoRecipe
    settings: VideoSettings
    loaded: Loaded
    prompts: Prompts
    image: Link | None

    @property
    def size(self) -> dict[str, int]:
        """The inputs that every node of latents takes."""
        settings = self.settings
        return {"width": settings.width, "height": settings.height, "length": settings.frames, "batch_size": 1}


def _ltx(scene: _Scene) -> Link:
    drawing, settings, prompts = scene.drawing, scene.settings, scene.prompts
    if scene.image is None:
        latents = drawing.node("EmptyLTXVLatentVideo", "Empty latent", scene.size)
    else:
        begun = drawing.node(
            "LTXVImgToVideo",
            "From the first frame",
            {
                "positive": prompts.positive,
                "negative": prompts.negative,
                "vae": scene.loaded.vae,
                "image": scene.image,
                "strength": 1.0,
                **scene.size,
            },
        )
        prompts, latents = Prompts(positive=begun, negative=slot(begun, 1)), slot(begun, 2)
    timed = drawing.add(
        "LTXVConditioning",
        "Frame rate",
        frame_rate=float(settings.fps),
        positive=prompts.positive,
        negative=prompts.negative,
    )
    levels = drawing.add(
        "LTXVScheduler",
        "Noise levels",
        steps=settings.steps,
        max_shift=2.05,
        base_shift=0.95,
        stretch=True,
        terminal=0.1,
        latent=latents,
    )
    return drawing.add(
        "SamplerCustom",
        "Sampler",
        add_noise=True,
        noise_seed=settings.seed,
        cfg=settings.cfg,
        model=drawing.patched(scene.loaded.model, scene.recipe.model_patches, "model"),
        positive=timed,
        negative=slot(timed, 1),
        sampler=drawing.add("KSamplerSelect", "Sampling method", sampler_name=scene.recipe.sampler),
        sigmas=levels,
        latent_image=latents,
    )


def _wan(scene: _Scene) -> Link:
    start = {} if scene.image is None else {"start_image": scene.image}
    latents = scene.drawing.node("Wan22ImageToVideoLatent", "Latents", {"vae": scene.loaded.vae, **start, **scene.size})
    return _sample(scene, scene.prompts, latents)


def _hunyuan(scene: _Scene) -> Link:
    if scene.image is None:
        return _sample(
            scene, scene.prompts, scene.drawing.node("EmptyHunyuanVideo15Latent", "Empty latent", scene.size)
        )
    checkpoint = scene.request.checkpoint
    vision = checkpoint.vision if isinstance(checkpoint, SplitModel) else None
    if vision is None:
        raise InvalidArguments(
            "HunyuanVideo reads an input image with a CLIP vision model, and none is named.",
            hint="Put sigclip_vision_patch14_384.safetensors into models/clip_vision.",
            details={"field": "input_image", "missing": "clip_vision"},
        )
    seen = scene.drawing.add(
        "CLIPVisionEncode",
        "Look at it",
        crop="center",
        clip_vision=scene.drawing.add("CLIPVisionLoader", "Vision model", clip_name=vision),
        image=scene.image,
    )
    begun = scene.drawing.node(
        "HunyuanVideo15ImageToVideo",
        "From the first frame",
        {
            "positive": scene.prompts.positive,
            "negative": scene.prompts.negative,
            "vae": scene.loaded.vae,
            "start_image": scene.image,
            "clip_vision_output": seen,
            **scene.size,
        },
    )
    return _sample(scene, Prompts(positive=begun, negative=slot(begun, 1)), slot(begun, 2))


_SAMPLERS = {"ltx": _ltx, "wan": _wan, "hunyuan": _hunyuan}


def _sample(scene: _Scene, prompts: Prompts, latents: Link) -> Link:
    settings = scene.settings
    patches = scene.recipe.model_patches
    if settings.motion_shift is not None:
        patches = (
            *patches,
            Patch(class_type="ModelSamplingSD3", title="Motion", settings={"shift": settings.motion_shift}),
        )
    return scene.drawing.add(
        "KSampler",
        "Sampler",
        seed=settings.seed,
        steps=settings.steps,
        cfg=settings.cfg,
        sampler_name=scene.recipe.sampler,
        scheduler=scene.recipe.scheduler,
        denoise=1.0,
        model=scene.drawing.patched(scene.loaded.model, patches, "model"),
        positive=prompts.positive,
        negative=prompts.negative,
        latent_image=latents,
    )


def _save(drawing: Drawing, request: VideoRequest, settings: VideoSettings, images: Link) -> Link:
    if request.as_webp:
        return drawing.add(
            "SaveAnimatedWEBP",
            "Save",
            filename_prefix=request.filename_prefix,
            fps=float(settings.fps),
            lossless=False,
            quality=90,
            method="default",
            images=images,
        )
    video = drawing.add("CreateVideo", "Video", fps=float(settings.fps), images=images)
    return drawing.add(
        "SaveVideo", "Save", filename_prefix=request.filename_prefix, format="auto", codec="auto", video=video
    )
