"""What a diffusion model needs beside it, and which of the server's files that is: known by their names.

    slot ── clip_l      models/text_encoders   "clip_l", "clip-l", …
         ├─ t5xxl       models/text_encoders   "t5xxl", and neither "umt5" nor "byt5"
         └─ ae          models/vae             "ae.safetensors", …

The lists of the loaders are all that a server without file access tells, and the makers' file names are kept by nearly
everyone who downloads them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comfy_mcp.workflows.families import title_of
from mcp_toolserver.errors import NotFound

TEXT_ENCODERS = "text_encoders"
VAE = "vae"
CLIP_VISION = "clip_vision"


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Name a file that is needed: its kind of folder, the makers' file name, and the pattern that finds its like.

    The pattern is searched in the lower-case file name, without its folder.
    """

    role: str
    kind: str
    file: str
    named: str


def _encoder(role: str, file: str, named: str) -> Slot:
    return Slot(role=role, kind=TEXT_ENCODERS, file=file, named=named)


def _vae(role: str, file: str, named: str) -> Slot:
    return Slot(role=role, kind=VAE, file=file, named=named)


CLIP_L = _encoder("clip_l", "clip_l.safetensors", r"clip[-_]l(?![a-z])|vit-l")
CLIP_G = _encoder("clip_g", "clip_g.safetensors", r"clip[-_]g(?![a-z])|bigg")
T5XXL = _encoder("t5xxl", "t5xxl_fp16.safetensors", r"(?<![a-z])t5")
UMT5 = _encoder("umt5_xxl", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", r"umt5")
BYT5 = _encoder("byt5_small", "byt5_small_glyphxl_fp16.safetensors", r"byt5")
QWEN_25_VL = _encoder("qwen_2.5_vl_7b", "qwen_2.5_vl_7b_fp8_scaled.safetensors", r"qwen[-_ ]?2[._]5[-_ ]?vl")
QWEN_3_4B = _encoder("qwen_3_4b", "qwen_3_4b.safetensors", r"qwen[-_ ]?3[-_ ]?4b")
FLUX_VAE = _vae("ae", "ae.safetensors", r"(?:^|[-_])ae[-_.]|flux")
SDXL_VAE = _vae("sdxl_vae", "sdxl_vae.safetensors", r"xl")
SD3_VAE = _vae("sd3_vae", "sd3_vae.safetensors", r"sd[-_]?3")
SD15_VAE = _vae("sd15_vae", "vae-ft-mse-840000-ema-pruned.safetensors", r"ft-(?:mse|ema)|sd[-_]?v?1")
QWEN_VAE = _vae("qwen_image_vae", "qwen_image_vae.safetensors", r"qwen")
LTX_VAE = _vae("ltx_vae", "ltxv-13b-0.9.7-vae-BF16.safetensors", r"ltx")
WAN_22_VAE = _vae("wan2.2_vae", "wan2.2_vae.safetensors", r"wan[-_ ]?2[._]?2")
HUNYUAN_15_VAE = _vae("hunyuanvideo15_vae", "hunyuanvideo15_vae_fp16.safetensors", r"hunyuan[-_ ]?video[-_ ]?1[._]?5")
SIGCLIP = Slot(
    role="sigclip_vision", kind=CLIP_VISION, file="sigclip_vision_patch14_384.safetensors", named=r"sig(?:c)?lip"
)


def pick(
    slots: Sequence[Slot],
    available: Mapping[str, Sequence[str]],
    *,
    model: str,
    family: str,
    field: str = "checkpoint",
) -> tuple[str, ...]:
    """Return the file for each slot out of the server's lists by kind, the first that fits.

    Raises NotFound that names every missing file, and where to put it; `field` is the argument that names the model.
    """
    found = [_fitting(slot, available.get(slot.kind, ())) for slot in slots]
    missing = [slot for slot, name in zip(slots, found, strict=True) if name is None]
    if missing:
        named = ", ".join(f"{slot.role} ({'VAE' if slot.kind == VAE else slot.kind.rstrip('s')})" for slot in missing)
        places = " and ".join(f"{slot.file} into models/{slot.kind}" for slot in missing)
        raise NotFound(
            f"`{model}` ({title_of(family)}) is without text encoders or VAE of its own, and ComfyUI has no {named} "
            "to go with it.",
            hint=f"Put {places}; a file of the same kind under a similar name does, too. Or name another model, or "
            "send your own graph with `execute-workflow`.",
            details={
                "field": field,
                "value": model,
                "family": family,
                "missing": [slot.role for slot in missing],
                "files": {f"models/{slot.kind}/{slot.file}": slot.role for slot in missing},
            },
        )
    return tuple(name for name in found if name is not None)


def _fitting(slot: Slot, names: Sequence[str]) -> str | None:
    return next((name for name in names if re.search(slot.named, re.split(r"[\\/]", name.lower())[-1])), None)
