"""Which family a model file belongs to: by the tensors of its header, else by rules of thumb over name and size.

Adding a family is adding a row. The order of the rows is the order of the questions: a family whose tensors include
those of another (Chroma has FLUX's blocks) stands before it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

FLUX = "flux"
SDXL = "sdxl"
SD15 = "sd15"
SD3 = "sd3"

FoundBy = Literal["metadata", "header", "name", "size", "nothing"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Describe how a family of models is recognised.

    `tensors` are names inside the diffusion model, without the file's prefix; every one of a group must be there, and
    one group is enough. `width` narrows that by the last dimension of one tensor. `architectures` are the words of
    `modelspec.architecture` and of LoRA files; `names` is searched in the lower-case file name.
    """

    name: str
    title: str
    tensors: tuple[tuple[str, ...], ...] = ()
    width: tuple[str, int] | None = None
    architectures: tuple[str, ...] = ()
    names: str | None = None


FAMILIES: tuple[Family, ...] = (
    Family(
        name="chroma",
        title="Chroma",
        tensors=(("distilled_guidance_layer.in_proj.weight", "double_blocks.0.img_attn.qkv.weight"),),
        architectures=("chroma",),
        names=r"chroma",
    ),
    Family(
        name="flux2",
        title="FLUX.2",
        tensors=(("double_stream_modulation_img.lin.weight",),),
        architectures=("flux2", "flux.2", "flux-2"),
        names=r"flux[-_. ]?2(?![0-9])",
    ),
    Family(
        name="hunyuan-video",
        title="HunyuanVideo",
        tensors=(("txt_in.individual_token_refiner.blocks.0.norm1.weight",),),
        architectures=("hunyuan-video", "hunyuan_video", "hunyuanvideo"),
        names=r"hunyuan[-_ ]?video",
    ),
    Family(
        name=FLUX,
        title="FLUX.1",
        tensors=(
            ("double_blocks.0.img_attn.qkv.weight",),
            ("single_transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn.add_q_proj.weight"),
        ),
        architectures=("flux", "flux1", "flux.1", "flux-1", "flex1", "flex.1", "flex2", "tinyflux"),
        names=r"flux|flex[-_. ]?[12]",
    ),
    Family(
        name=SD3,
        title="Stable Diffusion 3",
        tensors=(("joint_blocks.0.context_block.attn.qkv.weight",), ("joint_blocks.0.x_block.attn.qkv.weight",)),
        architectures=("sd3", "sd3m", "sd35", "sd3.5", "stable-diffusion-3", "stable-diffusion-v3"),
        names=r"sd[-_ ]?3|stable[-_ ]?diffusion[-_ ]?3",
    ),
    Family(
        name="qwen-image",
        title="Qwen-Image",
        tensors=(("transformer_blocks.0.img_mod.1.weight", "txt_norm.weight"),),
        architectures=("qwen-image", "qwen_image", "qwenimage"),
        names=r"qwen[-_ ]?image",
    ),
    Family(
        name="z-image",
        title="Z-Image",
        tensors=(("noise_refiner.0.attention.qkv.weight", "cap_embedder.1.weight"),),
        width=("cap_embedder.1.weight", 2560),
        architectures=("z-image", "z_image", "zimage"),
        names=r"z[-_ ]?image",
    ),
    Family(
        name="wan",
        title="Wan",
        tensors=(("patch_embedding.weight", "blocks.0.cross_attn.k.weight", "head.modulation"),),
        architectures=("wan", "wan21", "wan22"),
        names=r"(?<![a-z])wan[-_ ]?2",
    ),
    Family(
        name="ltx-video",
        title="LTX-Video",
        tensors=(("adaln_single.emb.timestep_embedder.linear_1.bias", "patchify_proj.weight"),),
        architectures=("ltx-video", "ltx_video", "ltxv", "ltx"),
        names=r"ltx",
    ),
    Family(
        name=SDXL,
        title="Stable Diffusion XL",
        tensors=(("input_blocks.0.0.weight", "label_emb.0.0.weight"),),
        width=("label_emb.0.0.weight", 2816),
        architectures=("sdxl", "stable-diffusion-xl", "pony", "illustrious", "noobai"),
        names=r"xl",
    ),
    Family(
        name=SD15,
        title="Stable Diffusion 1.5",
        tensors=(("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",),),
        width=("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 768),
        architectures=("sd15", "sd1", "sd1.5", "sd-1.5", "sd_1.5", "sd_v1", "stable-diffusion-v1"),
        names=r"sd[-_ ]?v?1|v1-5",
    ),
)

_BY_NAME: Mapping[str, Family] = {family.name: family for family in FAMILIES}
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "model.", "")
_SDXL_OVER_BYTES = 6_000_000_000
_SD15_UNDER_BYTES = 5_000_000_000

# LoRAs that are meant for another family than the checkpoint's and still find most of their tensors there.
_SHARED_LORAS: frozenset[tuple[str, str]] = frozenset({(FLUX, "chroma")})


@dataclass(frozen=True, kw_only=True)
class FamilyGuess:
    """Name the family, and what it was read from; `certain` is False for rules of thumb over size or nothing."""

    family: str
    found_by: FoundBy

    @property
    def certain(self) -> bool:
        """Tell whether the file itself, or its name, says so."""
        return self.found_by in {"metadata", "header", "name"}


def family_of(
    checkpoint_name: str,
    size_bytes: int | None = None,
    tensors: Mapping[str, Sequence[int]] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> FamilyGuess:
    """Find the family of a checkpoint from the best evidence there is.

    `tensors` maps the header's tensor names to shapes, `metadata` is its string map; both may be absent where only the
    name, or name and size, can be known. Where nothing speaks, SDXL is taken: its graph is the one of SD 1.5, too.
    """
    declared = family_of_architecture((metadata or {}).get("modelspec.architecture", ""))
    if declared is not None:
        return FamilyGuess(family=declared, found_by="metadata")
    shaped = _by_tensors(tensors) if tensors else None
    if shaped is not None:
        return FamilyGuess(family=shaped, found_by="header")
    file_name = re.split(r"[\\/]", checkpoint_name.lower())[-1]
    for family in FAMILIES:
        if family.names is not None and re.search(family.names, file_name):
            return FamilyGuess(family=family.name, found_by="name")
    if size_bytes is not None and size_bytes > _SDXL_OVER_BYTES:
        return FamilyGuess(family=SDXL, found_by="size")
    if size_bytes is not None and size_bytes < _SD15_UNDER_BYTES:
        return FamilyGuess(family=SD15, found_by="size")
    return FamilyGuess(family=SDXL, found_by="nothing")


def family_of_architecture(architecture: str) -> str | None:
    """Return the family that an architecture's name belongs to, or None for an unknown one.

    Takes our own names, and those of `modelspec.architecture` with a variant or a kind behind them
    (`flux-1-dev/lora`, `stable-diffusion-xl-v1-base`, `tinyflux-1`).
    """
    name = architecture.strip().lower().split("/")[0]
    if name in _BY_NAME:
        return name
    known = [(word, family.name) for family in FAMILIES for word in family.architectures]
    # The longest word wins: `flux2-dev` begins with `flux`, too.
    for word, family_name in sorted(known, key=lambda pair: -len(pair[0])):
        if name == word or re.match(re.escape(word) + r"[^a-z0-9]", name):
            return family_name
    return None


def title_of(family: str) -> str:
    """Return a family's name as people write it."""
    known = _BY_NAME.get(family)
    return known.title if known else family


def lora_fits(lora_family: str, checkpoint_family: str) -> bool:
    """Tell whether a LoRA made for one family can have its effect on a checkpoint of another."""
    return lora_family == checkpoint_family or (lora_family, checkpoint_family) in _SHARED_LORAS


def _by_tensors(tensors: Mapping[str, Sequence[int]]) -> str | None:
    for prefix in _PREFIXES:
        for family in FAMILIES:
            if any(_has_all(tensors, prefix, group) for group in family.tensors) and _is_wide(tensors, prefix, family):
                return family.name
    return None


def _has_all(tensors: Mapping[str, Sequence[int]], prefix: str, names: Iterable[str]) -> bool:
    return all(prefix + name in tensors for name in names)


def _is_wide(tensors: Mapping[str, Sequence[int]], prefix: str, family: Family) -> bool:
    if family.width is None:
        return True
    name, size = family.width
    shape = tensors[prefix + name]
    return bool(shape) and shape[-1] == size
