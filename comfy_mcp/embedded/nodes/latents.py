"""The nodes that make latents, enlarge them, and turn them into pictures and back."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from comfy_mcp.embedded.nodes.definitions import Input, NodeDefinition, NodeResult, Output, Run
from comfy_mcp.embedded.nodes.geometry import enlarge, reduce
from comfy_mcp.embedded.nodes.loaders import words
from comfy_mcp.embedded.nodes.models import RENDERED_SIZE_PX, Latents, Pictures, PixelSpace
from tinyflux import IMAGE_TOKENS, LATENT_WIDTH, from_bytes, pack, to_bytes, unpack

# ComfyUI's latents are eighths of a pixel: a width of 65 gives a picture of 64.
_GRID_PX = 8

_LATENT = Output("LATENT", "LATENT", "The latents.")
_IMAGE = Output("IMAGE", "IMAGE", "The pictures.")


def shown_pixels(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn latents (B, 64, 48) into bytes (B, 32, 32, 3); what is not a number becomes grey."""
    return to_bytes(np.nan_to_num(unpack(samples), nan=0.0))


def _empty(run: Run, *, width: int, height: int, batch_size: int) -> NodeResult:
    samples = np.zeros((batch_size, IMAGE_TOKENS, LATENT_WIDTH), np.float32)
    return NodeResult((Latents(samples, width // _GRID_PX * _GRID_PX, height // _GRID_PX * _GRID_PX),))


def _decode(run: Run, *, samples: Latents, vae: PixelSpace | None) -> NodeResult:
    if vae is None:
        raise RuntimeError("The `vae` input is null: connect it to a loader that has a VAE.")
    pixels = enlarge(shown_pixels(samples.samples), samples.width_px, samples.height_px)
    origin = (
        f"rendered by tinyflux at {RENDERED_SIZE_PX} x {RENDERED_SIZE_PX} pixels,"
        f" scaled to {samples.width_px} x {samples.height_px}"
    )
    return NodeResult((Pictures(pixels, origin),))


def _decode_tiled(
    run: Run,
    *,
    samples: Latents,
    vae: PixelSpace | None,
    tile_size: int,
    overlap: int,
    temporal_size: int,
    temporal_overlap: int,
) -> NodeResult:
    # 32 x 32 pixels are one tile of any size.
    return _decode(run, samples=samples, vae=vae)


def _encode(run: Run, *, pixels: Pictures, vae: PixelSpace | None) -> NodeResult:
    return NodeResult((encoded(pixels, vae),))


def encoded(pixels: Pictures, vae: PixelSpace | None) -> Latents:
    """Turn pictures into latents; their sides become whole numbers of latent cells."""
    if vae is None:
        raise RuntimeError("The `vae` input is null: connect it to a loader that has a VAE.")
    height, width = pixels.pixels.shape[1:3]
    samples = pack(from_bytes(reduce(pixels.pixels)))
    width, height = (max(_GRID_PX, length // _GRID_PX * _GRID_PX) for length in (width, height))
    return Latents(samples, width, height)


def _repeat(run: Run, *, samples: Latents, amount: int) -> NodeResult:
    repeated = np.tile(samples.samples, (amount, 1, 1))
    # One mask serves a whole batch; several stay beside their pictures.
    many = samples.mask is not None and len(samples.mask) > 1
    mask = np.tile(samples.mask, (amount, 1, 1, 1)) if many and samples.mask is not None else samples.mask
    return NodeResult((replace(samples, samples=repeated, mask=mask),))


def _enlarge(run: Run, *, samples: Latents, upscale_method: str, scale_by: float) -> NodeResult:
    # The model renders 32 x 32 pixels for every size: what grows is the size that decoding scales them to.
    width, height = (
        max(1, round(side / _GRID_PX * scale_by)) * _GRID_PX for side in (samples.width_px, samples.height_px)
    )
    return NodeResult((replace(samples, width_px=width, height_px=height),))


def _size(default: int, step: int) -> tuple[Input, Input, Input]:
    return (
        Input("width", "INT", {"default": default, "min": 16, "max": 16384, "step": step}),
        Input("height", "INT", {"default": default, "min": 16, "max": 16384, "step": step}),
        Input("batch_size", "INT", {"default": 1, "min": 1, "max": 4096}),
    )


def _tile(name: str, default: int, least: int, step: int) -> Input:
    return Input(name, "INT", {"default": default, "min": least, "max": 4096, "step": step, "advanced": True})


_SAMPLES = Input("samples", "LATENT", {"tooltip": "The latents to decode."})
_VAE = Input("vae", "VAE", {"tooltip": "The VAE that decodes them."})

LATENT_NODES = (
    NodeDefinition(
        "EmptyLatentImage",
        "Empty Latent Image",
        "latent",
        "Make latents to begin from, for pictures of a given size.",
        _size(512, 8),
        (_LATENT,),
        _empty,
    ),
    NodeDefinition(
        "EmptySD3LatentImage",
        "EmptySD3LatentImage",
        "latent/sd3",
        "Make latents to begin from, for models with sixteen channels.",
        _size(1024, 16),
        (_LATENT,),
        _empty,
    ),
    NodeDefinition(
        "VAEDecode",
        "VAE Decode",
        "latent",
        "Turn latents into pictures.",
        (_SAMPLES, _VAE),
        (_IMAGE,),
        _decode,
    ),
    NodeDefinition(
        "VAEDecodeTiled",
        "VAE Decode (Tiled)",
        "latent",
        "Turn latents into pictures, tile by tile.",
        (
            _SAMPLES,
            _VAE,
            _tile("tile_size", 512, 64, 32),
            _tile("overlap", 64, 0, 32),
            _tile("temporal_size", 64, 8, 4),
            _tile("temporal_overlap", 8, 4, 4),
        ),
        (_IMAGE,),
        _decode_tiled,
    ),
    NodeDefinition(
        "VAEEncode",
        "VAE Encode",
        "latent",
        "Turn pictures into latents.",
        (Input("pixels", "IMAGE"), Input("vae", "VAE")),
        (_LATENT,),
        _encode,
    ),
    NodeDefinition(
        "RepeatLatentBatch",
        "Repeat Latent Batch",
        "latent/batch",
        "Repeat latents, so that one picture becomes the start of several.",
        (Input("samples", "LATENT"), Input("amount", "INT", {"default": 1, "min": 1, "max": 64})),
        (_LATENT,),
        _repeat,
    ),
    NodeDefinition(
        "LatentUpscaleBy",
        "Upscale Latent By",
        "latent",
        "Enlarge latents by a factor, for a second pass over a larger picture.",
        (
            Input("samples", "LATENT"),
            Input("upscale_method", "COMBO", {}, words("nearest-exact", "bilinear", "area", "bicubic", "bislerp")),
            Input("scale_by", "FLOAT", {"default": 1.5, "min": 0.01, "max": 8.0, "step": 0.01}),
        ),
        (_LATENT,),
        _enlarge,
    ),
)
