"""The first nodes of a graph: the model with its text encoders and VAE, the LoRAs on it, and what patches it."""

from typing import Any

from comfy_mcp.workflows.drawing import Drawing, Loaded, slot
from comfy_mcp.workflows.graphs import Link
from comfy_mcp.workflows.recipes import Recipe
from comfy_mcp.workflows.requests import LoraUse, SplitModel
from mcp_toolserver.errors import InvalidArguments


def load(drawing: Drawing, checkpoint: str | SplitModel, loras: tuple[LoraUse, ...], recipe: Recipe) -> Loaded:
    """Load a model and put LoRAs on it, in their order; the recipe's patches come later, after every other change."""
    loaded = _load(drawing, checkpoint, recipe)
    for lora in loras:
        loaded = _with_lora(drawing, lora, loaded)
    return Loaded(model=loaded.model, clip=drawing.patched(loaded.clip, recipe.clip_patches, "clip"), vae=loaded.vae)


def _load(drawing: Drawing, checkpoint: str | SplitModel, recipe: Recipe) -> Loaded:
    if isinstance(checkpoint, str):
        model = drawing.add("CheckpointLoaderSimple", "Checkpoint", ckpt_name=checkpoint)
        return Loaded(model=model, clip=slot(model, 1), vae=slot(model, 2))
    if checkpoint.loader == "CheckpointLoaderSimple":
        model = drawing.add("CheckpointLoaderSimple", "Checkpoint", ckpt_name=checkpoint.diffusion_model)
    else:
        model = drawing.add(
            "UNETLoader",
            "Diffusion model",
            unet_name=checkpoint.diffusion_model,
            weight_dtype=checkpoint.weight_dtype,
        )
    whole = checkpoint.loader == "CheckpointLoaderSimple"
    clip = slot(model, 1) if whole and not checkpoint.text_encoders else _encoders(drawing, checkpoint, recipe)
    vae = slot(model, 2) if checkpoint.vae is None else drawing.add("VAELoader", "VAE", vae_name=checkpoint.vae)
    return Loaded(model=model, clip=clip, vae=vae)


def _encoders(drawing: Drawing, parts: SplitModel, recipe: Recipe) -> Link:
    if recipe.encoders is None:
        raise InvalidArguments(
            f"A model of the family `{recipe.family}` comes as one checkpoint, not in parts.",
            hint="Give the name of the checkpoint.",
            details={"field": "checkpoint", "family": recipe.family},
        )
    wanted = len(recipe.encoders.slots)
    if len(parts.text_encoders) != wanted:
        raise InvalidArguments(
            f"`text_encoders` has {len(parts.text_encoders)} names; {recipe.encoders.loader} takes {wanted}.",
            hint=f"They are {', '.join(slot.role for slot in recipe.encoders.slots)}.",
            details={"field": "text_encoders", "value": list(parts.text_encoders), "wanted": wanted},
        )
    names: dict[str, Any] = {"clip_name": parts.text_encoders[0]}
    if wanted > 1:
        names = {f"clip_name{index}": name for index, name in enumerate(parts.text_encoders, start=1)}
    if recipe.encoders.type is not None:
        names["type"] = recipe.encoders.type
    return drawing.node(recipe.encoders.loader, "Text encoders" if wanted > 1 else "Text encoder", names)


def _with_lora(drawing: Drawing, lora: LoraUse, loaded: Loaded) -> Loaded:
    if lora.model_only:
        return loaded.with_model(
            drawing.add(
                "LoraLoaderModelOnly", "LoRA", lora_name=lora.name, strength_model=lora.strength, model=loaded.model
            )
        )
    strength_clip = lora.strength if lora.strength_clip is None else lora.strength_clip
    changed = drawing.add(
        "LoraLoader",
        "LoRA",
        lora_name=lora.name,
        strength_model=lora.strength,
        strength_clip=strength_clip,
        model=loaded.model,
        clip=loaded.clip,
    )
    return Loaded(model=changed, clip=slot(changed, 1), vae=loaded.vae)
