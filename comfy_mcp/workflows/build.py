"""Build the API-format graph of a request, by the recipe of its family."""

from dataclasses import dataclass
from typing import Any

from comfy_mcp.workflows.graphs import Graph, Link
from comfy_mcp.workflows.recipes import Recipe, recipe_of
from comfy_mcp.workflows.requests import GenerationRequest, LoraUse, Settings, SplitModel, settle
from mcp_toolserver.errors import InvalidArguments


@dataclass(frozen=True, kw_only=True)
class BuiltGraph:
    """Hold a graph ready to submit, what it is called, what it samples with, and what was changed on the way.

    `output_node` is the id of the node that saves the pictures.
    """

    graph: Graph
    workflow_name: str
    family: str
    settings: Settings
    warnings: tuple[str, ...]
    output_node: str


def build(request: GenerationRequest, family: str) -> BuiltGraph:
    """Build text to image, or image to image where the request has an input image.

    Raises InvalidArguments for a value out of range and for a family that has no recipe.
    """
    recipe = recipe_of(family)
    settings, warnings = settle(request, recipe)
    drawing = _Drawing()
    model, clip, vae = _load_model(drawing, request, recipe)
    for lora in request.loras:
        model, clip = _apply_lora(drawing, lora, model, clip)
    positive = drawing.add("CLIPTextEncode", "Prompt", text=request.prompt, clip=clip)
    negative = drawing.add("CLIPTextEncode", "Negative prompt", text=settings.negative_prompt, clip=clip)
    if settings.guidance is not None:
        positive = drawing.add("FluxGuidance", "Guidance", guidance=settings.guidance, conditioning=positive)
    samples = drawing.add(
        "KSampler",
        "Sampler",
        seed=settings.seed,
        steps=settings.steps,
        cfg=settings.cfg,
        sampler_name=settings.sampler,
        scheduler=settings.scheduler,
        denoise=settings.denoise,
        model=model,
        positive=positive,
        negative=negative,
        latent_image=_start(drawing, request, recipe, settings, vae),
    )
    images = _decode(drawing, settings, samples, vae)
    saved = drawing.add("SaveImage", "Save", filename_prefix=request.filename_prefix, images=images)
    mode = "txt2img" if request.input_image is None else "img2img"
    return BuiltGraph(
        graph=drawing.graph,
        workflow_name=f"{family}-{mode}",
        family=family,
        settings=settings,
        warnings=tuple(warnings),
        output_node=saved.node_id,
    )


class _Drawing:
    """Number the nodes in the order in which they are added."""

    def __init__(self) -> None:
        self.graph: Graph = {}

    def add(self, class_type: str, title: str, **inputs: Any) -> Link:
        """Add a node and return the link to its first output; inputs that are links become lists."""
        node_id = str(len(self.graph) + 1)
        self.graph[node_id] = {
            "class_type": class_type,
            "inputs": {name: value.as_input() if isinstance(value, Link) else value for name, value in inputs.items()},
            "_meta": {"title": title},
        }
        return Link(node_id, 0)


def _load_model(drawing: _Drawing, request: GenerationRequest, recipe: Recipe) -> tuple[Link, Link, Link]:
    if isinstance(request.checkpoint, str):
        loaded = drawing.add("CheckpointLoaderSimple", "Checkpoint", ckpt_name=request.checkpoint)
        return loaded, Link(loaded.node_id, 1), Link(loaded.node_id, 2)
    parts = request.checkpoint
    model = drawing.add(
        "UNETLoader", "Diffusion model", unet_name=parts.diffusion_model, weight_dtype=parts.weight_dtype
    )
    clip = _load_text_encoders(drawing, parts, recipe)
    vae = drawing.add("VAELoader", "VAE", vae_name=parts.vae)
    return model, clip, vae


_ENCODERS = {"DualCLIPLoader": 2, "TripleCLIPLoader": 3}


def _load_text_encoders(drawing: _Drawing, parts: SplitModel, recipe: Recipe) -> Link:
    if recipe.split_loader is None:
        raise InvalidArguments(
            f"A model of the family `{recipe.family}` comes as one checkpoint, not in parts.",
            hint="Give the name of the checkpoint.",
            details={"field": "checkpoint", "family": recipe.family},
        )
    wanted = _ENCODERS[recipe.split_loader]
    if len(parts.text_encoders) != wanted:
        raise InvalidArguments(
            f"`text_encoders` has {len(parts.text_encoders)} names; {recipe.split_loader} takes {wanted}.",
            hint="FLUX takes clip_l and t5xxl." if recipe.split_type == "flux" else None,
            details={"field": "text_encoders", "value": list(parts.text_encoders), "wanted": wanted},
        )
    names: dict[str, Any] = {f"clip_name{index}": name for index, name in enumerate(parts.text_encoders, start=1)}
    if recipe.split_type is not None:
        names["type"] = recipe.split_type
    return drawing.add(recipe.split_loader, "Text encoders", **names)


def _apply_lora(drawing: _Drawing, lora: LoraUse, model: Link, clip: Link) -> tuple[Link, Link]:
    if lora.model_only:
        changed = drawing.add(
            "LoraLoaderModelOnly", "LoRA", lora_name=lora.name, strength_model=lora.strength, model=model
        )
        return changed, clip
    strength_clip = lora.strength if lora.strength_clip is None else lora.strength_clip
    changed = drawing.add(
        "LoraLoader",
        "LoRA",
        lora_name=lora.name,
        strength_model=lora.strength,
        strength_clip=strength_clip,
        model=model,
        clip=clip,
    )
    return changed, Link(changed.node_id, 1)


def _start(drawing: _Drawing, request: GenerationRequest, recipe: Recipe, settings: Settings, vae: Link) -> Link:
    if request.input_image is None:
        return drawing.add(
            recipe.latent,
            "Empty latent",
            width=settings.width,
            height=settings.height,
            batch_size=settings.batch_size,
        )
    pixels = drawing.add("LoadImage", "Input image", image=request.input_image)
    if settings.width is not None:
        pixels = drawing.add(
            "ImageScale",
            "Fit to size",
            upscale_method="lanczos",
            width=settings.width,
            height=settings.height,
            crop="center",
            image=pixels,
        )
    encoded = drawing.add("VAEEncode", "Encode", pixels=pixels, vae=vae)
    if settings.batch_size == 1:
        return encoded
    return drawing.add("RepeatLatentBatch", "Batch", amount=settings.batch_size, samples=encoded)


def _decode(drawing: _Drawing, settings: Settings, samples: Link, vae: Link) -> Link:
    if not settings.tiled_decode:
        return drawing.add("VAEDecode", "Decode", samples=samples, vae=vae)
    return drawing.add(
        "VAEDecodeTiled",
        "Decode in tiles",
        samples=samples,
        vae=vae,
        tile_size=512,
        overlap=64,
        temporal_size=64,
        temporal_overlap=8,
    )
