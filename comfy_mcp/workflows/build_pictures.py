"""What a sampler begins with: pictures loaded and fitted, the prompts that they lead, and the latents.

input image ── fit to size ── encode ─┬─ latents, held to the mask
                                      └─ reference of an editing model
"""

from dataclasses import dataclass

from comfy_mcp.workflows.drawing import Drawing, Loaded, Prompts, slot
from comfy_mcp.workflows.graphs import Link
from comfy_mcp.workflows.recipes import ImageRecipe
from comfy_mcp.workflows.requests import ControlNetUse, GenerationRequest
from comfy_mcp.workflows.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Link to the pictures that a request names, brought to size; `input` is None without an input image."""

    input: Link | None = None
    references: tuple[Link, ...] = ()
    mask: Link | None = None

    @property
    def shown(self) -> tuple[Link, ...]:
        """All pictures that an editing model reads."""
        return () if self.input is None else (self.input, *self.references)


def load_pictures(drawing: Drawing, request: GenerationRequest, settings: Settings) -> Pictures:
    """Load the pictures of a request."""
    if request.input_image is None:
        return Pictures()
    loaded = drawing.add("LoadImage", "Input image", image=request.input_image)
    if settings.mode == "edit":
        references = [drawing.add("LoadImage", "Reference", image=name) for name in request.reference_images]
        # Editing models were trained on a few sizes of about a megapixel.
        first, *more = (drawing.add("FluxKontextImageScale", "Fit", image=link) for link in (loaded, *references))
        return Pictures(input=first, references=tuple(more))
    mask = None
    if request.mask is not None:
        shape = _fitted(drawing, drawing.add("LoadImage", "Mask", image=request.mask), settings)
        mask = drawing.add("ImageToMask", "White is drawn anew", image=shape, channel="red")
    return Pictures(input=_fitted(drawing, loaded, settings), mask=mask)


def encode_prompts(
    drawing: Drawing,
    request: GenerationRequest,
    recipe: ImageRecipe,
    settings: Settings,
    loaded: Loaded,
    pictures: Pictures,
) -> Prompts:
    """Turn the prompts into conditioning, with the guidance and the pictures that an editing model reads beside it."""
    if recipe.references and recipe.reads_references == "text":
        shown = {f"image{number}": link for number, link in enumerate(pictures.shown, start=1)}
        positive, negative = (
            drawing.node(
                "TextEncodeQwenImageEditPlus", title, {"prompt": text, "clip": loaded.clip, "vae": loaded.vae, **shown}
            )
            for title, text in (("Prompt", request.prompt), ("Negative prompt", settings.negative_prompt))
        )
        return Prompts(positive=positive, negative=negative)
    positive = drawing.add("CLIPTextEncode", "Prompt", text=request.prompt, clip=loaded.clip)
    negative = drawing.add("CLIPTextEncode", "Negative prompt", text=settings.negative_prompt, clip=loaded.clip)
    return Prompts(positive=positive, negative=negative)


def refer(drawing: Drawing, prompts: Prompts, latents: tuple[Link, ...], guidance: float | None) -> Prompts:
    """Show the model reference latents beside the prompt, and set its guidance."""
    positive = prompts.positive
    for latent in latents:
        positive = drawing.add("ReferenceLatent", "Reference", conditioning=positive, latent=latent)
    if guidance is not None:
        positive = drawing.add("FluxGuidance", "Guidance", guidance=guidance, conditioning=positive)
    return Prompts(positive=positive, negative=prompts.negative)


def control(drawing: Drawing, use: ControlNetUse, prompts: Prompts, vae: Link) -> Prompts:
    """Let a ControlNet lead the prompts by a picture; those of FLUX and SD 3 encode it with the model's VAE."""
    applied = drawing.add(
        "ControlNetApplyAdvanced",
        "Apply ControlNet",
        strength=use.strength,
        start_percent=use.start,
        end_percent=use.end,
        positive=prompts.positive,
        negative=prompts.negative,
        control_net=drawing.add("ControlNetLoader", "ControlNet", control_net_name=use.name),
        image=drawing.add("LoadImage", "Control image", image=use.image),
        vae=vae,
    )
    return Prompts(positive=applied, negative=slot(applied, 1))


def control_model(drawing: Drawing, use: ControlNetUse, loaded: Loaded) -> Loaded:
    """Let a ControlNet that patches the model itself lead it by a picture."""
    return loaded.with_model(
        drawing.add(
            "QwenImageDiffsynthControlnet",
            "Apply ControlNet",
            strength=use.strength,
            model=loaded.model,
            model_patch=drawing.add("ModelPatchLoader", "ControlNet", name=use.name),
            vae=loaded.vae,
            image=drawing.add("LoadImage", "Control image", image=use.image),
        )
    )


def encode(drawing: Drawing, pixels: Link, vae: Link) -> Link:
    """Turn a picture into latents."""
    return drawing.add("VAEEncode", "Encode", pixels=pixels, vae=vae)


def empty(drawing: Drawing, recipe: ImageRecipe, settings: Settings) -> Link:
    """Make latents of a size to begin from."""
    return drawing.add(
        recipe.latent,
        "Empty latent",
        width=settings.width,
        height=settings.height,
        batch_size=settings.batch_size,
    )


def several(drawing: Drawing, latents: Link, settings: Settings) -> Link:
    """Repeat latents for a batch."""
    if settings.batch_size == 1:
        return latents
    return drawing.add("RepeatLatentBatch", "Batch", amount=settings.batch_size, samples=latents)


def _fitted(drawing: Drawing, pixels: Link, settings: Settings) -> Link:
    if settings.width is None:
        return pixels
    return drawing.add(
        "ImageScale",
        "Fit to size",
        upscale_method="lanczos",
        width=settings.width,
        height=settings.height,
        crop="center",
        image=pixels,
    )
