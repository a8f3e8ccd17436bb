"""Build the API-format graph of a request for pictures, by the recipe of its model.

model ── LoRAs ── patches ─┐
prompts ── guidance ───────┼─ sampler ── (enlarge ── sampler) ── decode ── (enlarge) ── save
latents, empty or of an image ─┘
"""

from dataclasses import dataclass

from comfy_mcp.workflows.build_model import load
from comfy_mcp.workflows.build_pictures import (
    Pictures,
    control,
    control_model,
    empty,
    encode,
    encode_prompts,
    load_pictures,
    refer,
    several,
)
from comfy_mcp.workflows.drawing import Drawing, Loaded, Prompts, slot
from comfy_mcp.workflows.graphs import Graph, Link
from comfy_mcp.workflows.recipes import ImageRecipe
from comfy_mcp.workflows.requests import GenerationRequest, Hires
from comfy_mcp.workflows.settings import Settings, settle
from comfy_mcp.workflows.video_recipes import image_recipe


@dataclass(frozen=True, kw_only=True)
class BuiltGraph:
    """Hold a graph ready to submit, what it is called, what it samples with, and what was changed on the way.

    `output_node` is the id of the node that saves the pictures; `variant` names the recipe.
    """

    graph: Graph
    workflow_name: str
    variant: str
    settings: Settings
    warnings: tuple[str, ...]
    output_node: str


def build(request: GenerationRequest, variant: str) -> BuiltGraph:
    """Build what the request comes to: from text, from an image, within a mask, by an edit; enlarged if wanted.

    Raises InvalidArguments for a value out of range, for a variant without recipe, and for a mode that it lacks.
    """
    recipe = image_recipe(variant)
    settings, warnings = settle(request, recipe)
    drawing = Drawing()
    loaded = load(drawing, request.checkpoint, request.loras, recipe)
    patched_by_controlnet = request.controlnet is not None and recipe.controlnet == "model"
    if request.controlnet is not None and patched_by_controlnet:
        loaded = control_model(drawing, request.controlnet, loaded)
        if (request.controlnet.start, request.controlnet.end) != (0.0, 1.0):
            warnings.append("`controlnet.start` and `controlnet.end` were ignored: it works here from first to last.")
    loaded = loaded.with_model(drawing.patched(loaded.model, recipe.model_patches, "model"))
    pictures = load_pictures(drawing, request, settings)
    prompts = encode_prompts(drawing, request, recipe, settings, loaded, pictures)
    prompts, latents = _beginning(drawing, request, recipe, settings, loaded, prompts, pictures)
    if request.controlnet is not None and not patched_by_controlnet:
        prompts = control(drawing, request.controlnet, prompts, loaded.vae)
    samples = _sample(drawing, "Sampler", settings, loaded, prompts, latents, settings.steps, settings.denoise)
    if request.hires is not None:
        larger = _enlarged(drawing, request, request.hires, settings, samples, loaded.vae, pictures.mask)
        steps = request.hires.steps or settings.steps
        samples = _sample(drawing, "Second pass", settings, loaded, prompts, larger, steps, request.hires.denoise)
    images = _decode(drawing, samples, loaded.vae, in_tiles=settings.tiled_decode)
    if request.upscale_model is not None and request.hires is None:
        images = _enlarged_by_model(drawing, request.upscale_model, images)
    saved = drawing.add("SaveImage", "Save", filename_prefix=request.filename_prefix, images=images)
    return BuiltGraph(
        graph=drawing.graph,
        workflow_name=_name(request, recipe, settings),
        variant=variant,
        settings=settings,
        warnings=tuple(warnings),
        output_node=saved.node_id,
    )


def _beginning(
    drawing: Drawing,
    request: GenerationRequest,
    recipe: ImageRecipe,
    settings: Settings,
    loaded: Loaded,
    prompts: Prompts,
    pictures: Pictures,
) -> tuple[Prompts, Link]:
    """Return the prompts as the sampler reads them, and the latents that it begins from."""
    if pictures.input is None:
        return refer(drawing, prompts, (), settings.guidance), empty(drawing, recipe, settings)
    if pictures.mask is not None and recipe.inpaint == "channels":
        prompts = refer(drawing, prompts, (), settings.guidance)
        begun = drawing.add(
            "InpaintModelConditioning",
            "Picture and mask",
            noise_mask=True,
            positive=prompts.positive,
            negative=prompts.negative,
            vae=loaded.vae,
            pixels=pictures.input,
            mask=pictures.mask,
        )
        return Prompts(positive=begun, negative=slot(begun, 1)), several(drawing, slot(begun, 2), settings)
    encoded = encode(drawing, pictures.input, loaded.vae)
    references: tuple[Link, ...] = ()
    if settings.mode == "edit" and recipe.reads_references == "latents":
        references = (encoded, *(encode(drawing, link, loaded.vae) for link in pictures.references))
    prompts = refer(drawing, prompts, references, settings.guidance)
    if settings.mode == "edit" and settings.width is not None:
        return prompts, empty(drawing, recipe, settings)
    latents = several(drawing, encoded, settings)
    return prompts, latents if pictures.mask is None else _within(drawing, latents, pictures.mask)


def _sample(
    drawing: Drawing,
    title: str,
    settings: Settings,
    loaded: Loaded,
    prompts: Prompts,
    latents: Link,
    steps: int,
    denoise: float,
) -> Link:
    return drawing.add(
        "KSampler",
        title,
        seed=settings.seed,
        steps=steps,
        cfg=settings.cfg,
        sampler_name=settings.sampler,
        scheduler=settings.scheduler,
        denoise=denoise,
        model=loaded.model,
        positive=prompts.positive,
        negative=prompts.negative,
        latent_image=latents,
    )


def _enlarged(
    drawing: Drawing,
    request: GenerationRequest,
    hires: Hires,
    settings: Settings,
    samples: Link,
    vae: Link,
    mask: Link | None,
) -> Link:
    """Enlarge latents for the second pass: as they are, or as a picture by a model that knows edges and texture."""
    if request.upscale_model is None or settings.width is None or settings.height is None:
        return drawing.add(
            "LatentUpscaleBy", "Enlarge", upscale_method="bislerp", scale_by=hires.scale, samples=samples
        )
    images = _enlarged_by_model(drawing, request.upscale_model, _decode(drawing, samples, vae, in_tiles=False))
    width, height = (max(16, round(side * hires.scale / 16) * 16) for side in (settings.width, settings.height))
    # Such a model enlarges by a factor of its own, mostly four.
    fitted = drawing.add(
        "ImageScale",
        "To the size wanted",
        upscale_method="lanczos",
        width=width,
        height=height,
        crop="disabled",
        image=images,
    )
    latents = encode(drawing, fitted, vae)
    # Latents that were enlarged as such still carry their mask; those of a picture have none.
    return latents if mask is None else _within(drawing, latents, mask)


def _within(drawing: Drawing, latents: Link, mask: Link) -> Link:
    return drawing.add("SetLatentNoiseMask", "Only within the mask", samples=latents, mask=mask)


def _enlarged_by_model(drawing: Drawing, model: str, images: Link) -> Link:
    loaded = drawing.add("UpscaleModelLoader", "Upscale model", model_name=model)
    return drawing.add("ImageUpscaleWithModel", "Enlarge", upscale_model=loaded, image=images)


def _decode(drawing: Drawing, samples: Link, vae: Link, *, in_tiles: bool) -> Link:
    if not in_tiles:
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


def _name(request: GenerationRequest, recipe: ImageRecipe, settings: Settings) -> str:
    parts = [recipe.name] if recipe.name.endswith(settings.mode) else [recipe.name, settings.mode]
    parts += ["controlnet"] if request.controlnet else []
    parts += ["hires"] if request.hires else []
    parts += ["upscale"] if request.upscale_model else []
    return "-".join(parts)
