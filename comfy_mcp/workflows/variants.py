"""What a model is within its family: told by the width of a layer, or by the words that its makers put into its name.

An editing model has the layers of the model that it grew from, so that only its name tells; a model with more channels
to read, or of another size, tells it by a shape.
"""

import re
from dataclasses import dataclass

from lora_files.header import SafetensorsHeader

FLUX_SCHNELL = "flux-schnell"
FLUX_KONTEXT = "flux-kontext"
FLUX_FILL = "flux-fill"
SDXL_INPAINT = "sdxl-inpaint"
SD15_INPAINT = "sd15-inpaint"
QWEN_IMAGE_EDIT = "qwen-image-edit"
Z_IMAGE_TURBO = "z-image-turbo"
LTX_VIDEO_DISTILLED = "ltx-video-distilled"
LTX_VIDEO_13B = "ltx-video-13b"
LTX_VIDEO_13B_DISTILLED = "ltx-video-13b-distilled"
WAN_22_5B = "wan-2.2-ti2v-5b"
HUNYUAN_VIDEO_15 = "hunyuan-video-1.5"
HUNYUAN_VIDEO_15_DISTILLED = "hunyuan-video-1.5-distilled"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Name a variant of a family, and what gives it away.

    `named` is searched in the lower-case file name. Where the header has a weight whose name ends with `layer`, that
    counts instead: in this variant alone it takes `inputs` channels. `distilled` asks for that word in the name too,
    for no shape tells it.
    """

    name: str
    family: str
    title: str
    named: str
    layer: str | None = None
    inputs: int = 0
    distilled: bool = False


_FIRST_CONVOLUTION = "input_blocks.0.0.weight"
_LTX_QUERY = "transformer_blocks.0.attn1.to_q.weight"
_HUNYUAN_ENTRY = "img_in.proj.weight"
_HUNYUAN_15 = r"hunyuan[-_ ]?video[-_ ]?(?:v)?1[._]5"

# In the order of the questions: what asks for more stands first.
VARIANTS: tuple[Variant, ...] = (
    Variant(
        name=FLUX_FILL, family="flux", title="FLUX.1 Fill", named=r"fill[-_. ]?dev", layer="img_in.weight", inputs=384
    ),
    Variant(name=FLUX_KONTEXT, family="flux", title="FLUX.1 Kontext", named=r"kontext"),
    Variant(name=FLUX_SCHNELL, family="flux", title="FLUX.1 schnell", named=r"schnell"),
    Variant(
        name=SDXL_INPAINT,
        family="sdxl",
        title="Stable Diffusion XL for inpainting",
        named=r"inpaint",
        layer=_FIRST_CONVOLUTION,
        inputs=9,
    ),
    Variant(
        name=SD15_INPAINT,
        family="sd15",
        title="Stable Diffusion 1.5 for inpainting",
        named=r"inpaint",
        layer=_FIRST_CONVOLUTION,
        inputs=9,
    ),
    Variant(name=QWEN_IMAGE_EDIT, family="qwen-image", title="Qwen-Image-Edit", named=r"edit"),
    Variant(name=Z_IMAGE_TURBO, family="z-image", title="Z-Image Turbo", named=r"turbo"),
    Variant(
        name=LTX_VIDEO_13B_DISTILLED,
        family="ltx-video",
        title="LTX-Video 13B distilled",
        named=r"13b",
        layer=_LTX_QUERY,
        inputs=4096,
        distilled=True,
    ),
    Variant(name=LTX_VIDEO_13B, family="ltx-video", title="LTX-Video 13B", named=r"13b", layer=_LTX_QUERY, inputs=4096),
    Variant(
        name=LTX_VIDEO_DISTILLED,
        family="ltx-video",
        title="LTX-Video 2B distilled",
        named=r"",
        layer=_LTX_QUERY,
        inputs=2048,
        distilled=True,
    ),
    Variant(
        name=WAN_22_5B,
        family="wan",
        title="Wan 2.2 TI2V 5B",
        named=r"5b",
        layer="blocks.0.self_attn.q.weight",
        inputs=3072,
    ),
    Variant(
        name=HUNYUAN_VIDEO_15_DISTILLED,
        family="hunyuan-video",
        title="HunyuanVideo 1.5 distilled",
        named=_HUNYUAN_15,
        layer=_HUNYUAN_ENTRY,
        inputs=65,
        distilled=True,
    ),
    Variant(
        name=HUNYUAN_VIDEO_15,
        family="hunyuan-video",
        title="HunyuanVideo 1.5",
        named=_HUNYUAN_15,
        layer=_HUNYUAN_ENTRY,
        inputs=65,
    ),
)


def variant_of(family: str, file_name: str, header: SafetensorsHeader | None = None) -> str:
    """Return the variant that a file (its name in lower case) is of its family, or the family's own name."""
    for variant in VARIANTS:
        if variant.family != family or (variant.distilled and "distill" not in file_name):
            continue
        channels = None if variant.layer is None or header is None else _channels(header, variant.layer)
        if channels == variant.inputs or (channels is None and re.search(variant.named, file_name)):
            return variant.name
    return family


def _channels(header: SafetensorsHeader, layer: str) -> int | None:
    for name, info in header.tensors.items():
        if name == layer or name.endswith("." + layer):
            return info.shape[1] if len(info.shape) > 1 else None
    return None
