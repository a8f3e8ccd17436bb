"""The nodes around masks: made of pictures, and set on latents so that sampling changes only what they leave open."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from comfy_mcp.embedded.nodes.definitions import Input, NodeDefinition, NodeResult, Output, Run
from comfy_mcp.embedded.nodes.geometry import reduce
from comfy_mcp.embedded.nodes.latents import encoded
from comfy_mcp.embedded.nodes.loaders import words
from comfy_mcp.embedded.nodes.models import Latents, Pictures, PixelSpace

_CHANNELS = ("red", "green", "blue", "alpha")
_GREY = 128
_LATENT = Output("LATENT", "LATENT", "The latents, with the mask.")


def _mask_of(run: Run, *, image: Pictures, channel: str) -> NodeResult:
    # Pictures are without transparency here as in ComfyUI, where `alpha` of such a picture fails in this way, too.
    return NodeResult((image.pixels[..., _CHANNELS.index(channel)].astype(np.float32) / np.float32(255.0),))


def _set(run: Run, *, samples: Latents, mask: NDArray[np.float32]) -> NodeResult:
    return NodeResult((replace(samples, mask=_rendered(_layers(mask, samples.width_px, samples.height_px))),))


def _encode(
    run: Run, *, pixels: Pictures, vae: PixelSpace | None, mask: NDArray[np.float32], grow_mask_by: int
) -> NodeResult:
    height, width = pixels.pixels.shape[1:3]
    layers = _layers(mask, width, height)
    open_ = np.stack([np.asarray(layer) for layer in layers]) >= _GREY
    hidden = np.where(open_[..., None], np.uint8(_GREY), pixels.pixels)
    # A filter's side is odd: the pixel itself and as many on either side.
    grown = [layer.filter(ImageFilter.MaxFilter(grow_mask_by | 1)) for layer in layers]
    return NodeResult((replace(encoded(Pictures(hidden), vae), mask=_rendered(grown)),))


def _layers(mask: NDArray[np.float32], width_px: int, height_px: int) -> list[Image.Image]:
    """Bring masks to a size, as ComfyUI does: without regard to proportions."""
    levels = np.clip(np.rint(mask * 255.0), 0, 255).astype(np.uint8)
    return [Image.fromarray(one).resize((width_px, height_px), Image.Resampling.BILINEAR) for one in levels]


def _rendered(layers: list[Image.Image]) -> NDArray[np.float32]:
    """Scale masks to the pixels that the model renders, (B, 32, 32, 1), as pictures are."""
    pictures = np.stack([np.asarray(layer.convert("RGB")) for layer in layers])
    return (reduce(pictures)[..., :1] / 255.0).astype(np.float32)


MASK_NODES = (
    NodeDefinition(
        "ImageToMask",
        "Convert Image to Mask",
        "mask",
        "Take one channel of a picture for a mask: bright is open, dark is closed.",
        (Input("image", "IMAGE"), Input("channel", "COMBO", {}, words(*_CHANNELS))),
        (Output("MASK", "MASK"),),
        _mask_of,
    ),
    NodeDefinition(
        "SetLatentNoiseMask",
        "Set Latent Noise Mask",
        "latent/inpaint",
        "Let sampling change latents only where a mask is open.",
        (Input("samples", "LATENT"), Input("mask", "MASK")),
        (_LATENT,),
        _set,
    ),
    NodeDefinition(
        "VAEEncodeForInpaint",
        "VAE Encode (for Inpainting)",
        "latent/inpaint",
        "Turn pictures into latents, with grey where a mask is open, and let sampling change them only there.",
        (
            Input("pixels", "IMAGE"),
            Input("vae", "VAE"),
            Input("mask", "MASK"),
            Input("grow_mask_by", "INT", {"default": 6, "min": 0, "max": 64, "step": 1}),
        ),
        (_LATENT,),
        _encode,
    ),
)
