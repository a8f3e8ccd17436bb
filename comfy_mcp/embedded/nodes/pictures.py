"""The nodes that load, scale, save and show pictures."""

import secrets
import string
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from comfy_mcp.embedded.folders import Folders
from comfy_mcp.embedded.nodes.definitions import Input, NodeDefinition, NodeResult, Output, Run
from comfy_mcp.embedded.nodes.loaders import words
from comfy_mcp.embedded.nodes.models import Pictures, file_stamp
from comfy_mcp.embedded.nodes.saving import SavedSeries, png_texts

_RESAMPLING: Mapping[str, Image.Resampling] = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
# Previews of one server run do not continue those of another.
_PREVIEW_SUFFIX = "".join(secrets.choice(string.ascii_lowercase) for _ in range(5))


def _unreadable(folders: Folders, image: Any) -> str | None:
    if isinstance(image, str) and folders.find_picture(image) is not None:
        return None
    return f"Invalid image file: {image}"


def _picture_stamp(folders: Folders, inputs: Mapping[str, Any]) -> str:
    path = folders.find_picture(inputs["image"])
    return "missing" if path is None else file_stamp(path)


def _load(run: Run, *, image: str) -> NodeResult:
    path = run.folders.find_picture(image)
    if path is None:
        raise FileNotFoundError(f"Invalid image file: {image}")
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file).convert("RGBA")
    pixels = np.asarray(picture)
    mask: NDArray[np.float32] = 1.0 - pixels[None, :, :, 3].astype(np.float32) / 255.0
    return NodeResult((Pictures(np.ascontiguousarray(pixels[None, :, :, :3])), mask))


def _scale(run: Run, *, image: Pictures, upscale_method: str, width: int, height: int, crop: str) -> NodeResult:
    old_height, old_width = image.pixels.shape[1:3]
    if width == 0 and height == 0:
        return NodeResult((image,))
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    box = (0.0, 0.0, float(old_width), float(old_height))
    if crop == "center":
        kept_width = min(old_width, old_height * width / height)
        kept_height = min(old_height, old_width * height / width)
        left, top = (old_width - kept_width) / 2, (old_height - kept_height) / 2
        box = (left, top, left + kept_width, top + kept_height)
    method = _RESAMPLING[upscale_method]
    scaled = [np.asarray(Image.fromarray(one).resize((width, height), method, box)) for one in image.pixels]
    return NodeResult((Pictures(np.stack(scaled), image.origin),))


def _write(run: Run, pictures: Pictures, prefix: str, folder_type: str) -> NodeResult:
    folder = run.folders.root / folder_type
    height, width = pictures.pixels.shape[1:3]
    series = SavedSeries(folder, prefix, width, height)
    texts = png_texts(run.png_texts, pictures.origin)
    images = [
        {"filename": series.save(pixels, texts, number), "subfolder": series.subfolder, "type": folder_type}
        for number, pixels in enumerate(pictures.pixels)
    ]
    shown: dict[str, list[Any]] = {"images": images}
    if pictures.origin is not None:
        shown |= {"engine": ["embedded"], "note": [pictures.origin]}
    return NodeResult((pictures,), shown)


def _save(run: Run, *, images: Pictures, filename_prefix: str) -> NodeResult:
    return _write(run, images, filename_prefix, "output")


def _preview(run: Run, *, images: Pictures) -> NodeResult:
    return _write(run, images, f"ComfyUI_temp_{_PREVIEW_SUFFIX}", "temp")


_IMAGE = Output("IMAGE", "IMAGE", "The pictures.")

PICTURE_NODES = (
    NodeDefinition(
        "LoadImage",
        "Load Image",
        "image",
        "Load a picture from the input folder; `name [output]` takes one from the output folder.",
        (Input("image", "COMBO", {"image_upload": True}, Folders.input_pictures, check=_unreadable),),
        (_IMAGE, Output("MASK", "MASK", "Where the picture is transparent.")),
        _load,
        fingerprint=_picture_stamp,
    ),
    NodeDefinition(
        "ImageScale",
        "Upscale Image",
        "image/upscaling",
        "Scale pictures to a size; 0 keeps the proportions.",
        (
            Input("image", "IMAGE"),
            Input("upscale_method", "COMBO", {}, words(*_RESAMPLING)),
            Input("width", "INT", {"default": 512, "min": 0, "max": 16384, "step": 1}),
            Input("height", "INT", {"default": 512, "min": 0, "max": 16384, "step": 1}),
            Input("crop", "COMBO", {}, words("disabled", "center")),
        ),
        (_IMAGE,),
        _scale,
    ),
    NodeDefinition(
        "SaveImage",
        "Save Image",
        "image",
        "Save pictures in the output folder.",
        (
            Input("images", "IMAGE", {"tooltip": "The pictures to save."}),
            Input("filename_prefix", "STRING", {"default": "ComfyUI", "tooltip": "How the file names begin."}),
        ),
        (Output("IMAGE", "images"),),
        _save,
        output_node=True,
        hidden=_HIDDEN,
    ),
    NodeDefinition(
        "PreviewImage",
        "Preview Image",
        "image",
        "Show pictures without keeping them.",
        (Input("images", "IMAGE"),),
        (Output("IMAGE", "images"),),
        _preview,
        output_node=True,
        hidden=_HIDDEN,
    ),
)
