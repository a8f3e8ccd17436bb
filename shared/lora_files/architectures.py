"""Which models a LoRA was made for: by the names and shapes of its layers, then by its metadata.

Adding an architecture is adding rows. The words are those of the wire (`flux`, `sdxl`, `z-image`, …).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lora_files.networks import Layer

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Signature:
    """Say by which layers an architecture is known.

    `pattern` is searched at the start of each layer's name (without prefix, `_` for `.`). Where `inputs` or `ratio`
    are given, one of the layers found must have that many inputs, or that many outputs for each input. `variants`
    names a variant by the inputs.
    """

    architecture: str
    pattern: "re.Pattern[str]"
    inputs: frozenset[int] = frozenset()
    ratio: int | None = None
    variants: Mapping[int, str] = field(default_factory=dict[int, str])


def _known(
    architecture: str,
    pattern: str,
    *inputs: int,
    ratio: int | None = None,
    variants: Mapping[int, str] | None = None,
) -> Signature:
    return Signature(
        architecture,
        re.compile(rf"^(?:{pattern}).*$", re.MULTILINE),
        frozenset((*inputs, *(variants or {}))),
        ratio,
        variants or {},
    )


_UNET = r"(?:input_blocks|middle_block|output_blocks|down_blocks|mid_block|up_blocks)_"
_FLUX2 = {6144: "FLUX.2 dev", 4096: "FLUX.2 klein 9B"}
_JOINT = r"transformer_blocks_\d+_(?:attn_(?:to_[qkv]|add_[qkv]_proj|to_out|to_add_out)|ff_context_net)"

# In the order of the questions: an architecture whose layers include those of another stands before it.
SIGNATURES: tuple[Signature, ...] = (
    # FLUX and what grew from it. FLUX.1 has 19 double and 38 single blocks of width 3072.
    _known("flux2", r"(?:single_)?transformer_blocks_\d+_(?:attn_to_qkv_mlp_proj|ff(?:_context)?_linear_in)"),
    _known("flux2", r"(?:double|single)_stream_modulation"),
    _known("flux2", r"single_blocks_\d+_linear1$", ratio=9),
    _known("flux2", r"double_blocks_\d+_(?:img|txt)_mlp_0$", ratio=6),
    _known("flux2", r"double_blocks_\d+_(?:img|txt)_attn_qkv$", variants=_FLUX2),
    _known("chroma", r"distilled_guidance_layer"),
    _known("hunyuan-video", r"(?:context_embedder_token_refiner|txt_in_individual_token_refiner)"),
    _known("hunyuan-video", r"double_blocks_\d+_(?:img|txt)_attn_[qkv]$", variants={2048: "HunyuanVideo 1.5"}),
    _known("hunyuan-video", r"double_blocks_\d+_(?:img|txt)_attn_qkv$", variants={2048: "HunyuanVideo 1.5"}),
    _known("hunyuan-video", r"double_blocks_\d+_(?:img|txt)_(?:mlp_fc[12]|mod_linear|attn_[qkv])$"),
    _known("hunyuan-video", r"single_blocks_\d+_modulation_linear"),
    _known("hunyuan-video", r"(?:double_blocks_19|single_blocks_3[89])_"),
    _known("hunyuan-video", r"single_transformer_blocks_3[89]_"),
    _known("flux", r"double_blocks_\d+_(?:img|txt)_(?:attn|mlp|mod)_|single_blocks_\d+_(?:linear[12]|modulation_lin)"),
    _known("flux", r"(?:single_)?transformer_blocks_\d+_attn_(?:to_[qkv]|add_[qkv]_proj)", variants={96: "tinyflux"}),
    _known("flux", r"single_transformer_blocks_\d+_(?:attn_to_|proj_|norm_linear)"),
    # Joint transformers that share the spelling of diffusers, told apart by width and number of blocks.
    _known("sd3", r"joint_blocks_\d+_(?:context_block|x_block)_"),
    _known("sd3", _JOINT, variants={1536: "SD 3 medium", 2432: "SD 3.5 large"}),
    _known("qwen-image", r"transformer_blocks_\d+_(?:img|txt)_(?:mlp|mod)_"),
    _known("qwen-image", r"transformer_blocks_(?:19|[2-5]\d)_attn_(?:to_[qkv]|add_[qkv]_proj|to_out|to_add_out)"),
    _known("flux", _JOINT),
    _known("auraflow", r"joint_transformer_blocks_|double_layers_\d+_attn_w|single_layers_\d+_attn_w"),
    _known("hidream", r"(?:double|single)_stream_blocks_\d+_block_"),
    # Cross-attention transformers.
    _known("ltx2", r"transformer_blocks_\d+_(?:audio_|video_to_audio|audio_to_video)"),
    _known("ltx-video", r"transformer_blocks_\d+_attn[12]_to_[qkv]", variants={2048: "LTX 2B", 4096: "LTX 13B"}),
    _known("pixart", r"transformer_blocks_\d+_attn[12]_to_[qkv]", 1152),
    _known(
        "cogvideox", r"transformer_blocks_\d+_attn1_to_[qkv]", variants={1920: "CogVideoX 2B", 3072: "CogVideoX 5B"}
    ),
    _known(
        "wan",
        r"blocks_\d+_(?:self_attn_[qkvo]|attn1_to_[qkv])$",
        variants={1536: "Wan 1.3B", 3072: "Wan 2.2 5B", 5120: "Wan 14B"},
    ),
    _known("wan", r"(?:vace_)?blocks_\d+_(?:(?:self|cross)_attn_(?:[qkvo]|[kv]_img)$|attn[12]_|ffn_)"),
    _known("anima", r"blocks_\d+_(?:self|cross)_attn_(?:[qkv]|output)_proj"),
    _known("mochi", r"blocks_\d+_attn_(?:qkv|proj)_[xy]"),
    _known("hunyuan-dit", r"blocks_\d+_attn[12]_(?:Wqkv|q_proj|kv_proj)"),
    _known("krea2", r"blocks_\d+_attn_w[qkvo]$|text_fusion_"),
    _known("kandinsky5", r"(?:visual|text)_transformer_blocks_\d+_"),
    # Lumina's line: one kind of layer, told apart by width.
    _known("z-image", r"(?:layers|noise_refiner|context_refiner)_\d+_(?:attention_|feed_forward_w[13])", 3840),
    _known("z-image", r"(?:layers|noise_refiner|context_refiner)_\d+_adaLN_modulation", 256),
    _known("lumina2", r"(?:layers|noise_refiner|context_refiner)_\d+_(?:attention_|attn_|feed_forward_)", 2304),
    _known("omnigen2", r"(?:layers|noise_refiner|context_refiner|ref_image_refiner)_\d+_attn_", 2520),
    _known("ernie-image", r"layers_\d+_self_attention_"),
    # UNets: the width of the text that they attend to, then where they have attention at all.
    _known("sd15", _UNET + r".*attn2_(?:processor_)?to_[kv]$", 768),
    _known("sd2", _UNET + r".*attn2_(?:processor_)?to_[kv]$", 1024),
    _known("sdxl", _UNET + r".*attn2_(?:processor_)?to_[kv]$", 2048),
    _known("sdxl-refiner", _UNET + r".*attn2_(?:processor_)?to_[kv]$", 1280),
    _known("sdxl", _UNET + r".*transformer_blocks_[2-9]_"),
    _known("sdxl", r"up_blocks_0_attentions_"),
    _known(
        "sd15", r"down_blocks_0_attentions_|up_blocks_3_attentions_|input_blocks_[12]_1_|output_blocks_(?:9|1[01])_1_"
    ),
)

# The words of `ss_base_model_version` and `modelspec.architecture`, in the order of the questions.
_WORDS: tuple[tuple[str, "re.Pattern[str]"], ...] = tuple(
    (architecture, re.compile(words))
    for architecture, words in (
        ("chroma", r"chroma"),
        ("flux2", r"flux[._-]?2"),
        ("flux", r"flux|flex"),
        ("sdxl-refiner", r"refiner"),
        ("sdxl", r"sdxl|stable-diffusion-xl|illustrious|pony|noobai"),
        ("sd3", r"sd[_-]?3|stable-diffusion-(?:v)?3"),
        ("sd2", r"sd[_-]?v?2|stable-diffusion-v2"),
        ("sd15", r"sd[_-]?v?1|stable-diffusion-v1"),
        ("wan", r"wan"),
        ("qwen-image", r"qwen"),
        ("z-image", r"z[_-]?image"),
        ("hunyuan-video", r"hunyuan[_-]?video"),
        ("hunyuan-dit", r"hunyuan"),
        ("ltx2", r"ltx[._-]?2"),
        ("ltx-video", r"ltx"),
        ("hidream", r"hidream"),
        ("lumina2", r"lumina"),
        ("pixart", r"pixart"),
        ("auraflow", r"aura"),
    )
)

# A LoRA that trains only some layers can leave these open; there the metadata decides.
_LEFT_OPEN_BY_KEYS: Mapping[str, frozenset[str]] = {
    "flux": frozenset({"chroma", "flux2", "hunyuan-video", "qwen-image"}),
    "qwen-image": frozenset({"flux"}),
    "ltx-video": frozenset({"ltx2", "pixart"}),
    "sdxl": frozenset({"sdxl-refiner"}),
    "anima": frozenset({"cosmos"}),
}


@dataclass(frozen=True, slots=True)
class Detection:
    """Name the architecture, its variant where the shapes tell, and a remark where metadata and layers disagree."""

    architecture: str
    variant: str | None = None
    found_by: Literal["keys", "metadata", "nothing"] = "nothing"
    remark: str | None = None


def detect_architecture(layers: Sequence[Layer], metadata: Mapping[str, str]) -> Detection:
    """Find out what a LoRA is for; `unknown` where neither its layers nor its metadata tell."""
    by_keys = _by_layers([layer for layer in layers if layer.target == "model"])
    said = architecture_in_words(metadata)
    if by_keys is None:
        return Detection(said, found_by="metadata") if said else Detection(UNKNOWN)
    if said is None or said == by_keys.architecture:
        return by_keys
    if said in _LEFT_OPEN_BY_KEYS.get(by_keys.architecture, ()):
        return Detection(said, found_by="metadata")
    return Detection(
        by_keys.architecture,
        by_keys.variant,
        "keys",
        f"The metadata says {said}, but the layers are those of {by_keys.architecture}; the layers count.",
    )


def architecture_in_words(metadata: Mapping[str, str]) -> str | None:
    """Return the architecture that the metadata names, in the words of this table where it has them."""
    for name in ("modelspec.architecture", "ss_base_model_version"):
        said = metadata.get(name, "").strip().lower().split("/", 1)[0]
        if said:
            found = next((architecture for architecture, words in _WORDS if words.search(said)), None)
            return found or said.replace("_", "-")
    return None


def _by_layers(layers: Sequence[Layer]) -> Detection | None:
    # One text for all layers: a pattern over it costs less than a pattern over each.
    by_name = {plain: layer for layer in layers if "\n" not in (plain := layer.key.plain)}
    text = "\n".join(by_name)
    for signature in SIGNATURES:
        found = [by_name[match.group()] for match in signature.pattern.finditer(text)]
        if found and _fits(signature, found):
            variant = next((name for width, name in signature.variants.items() if width in _inputs(found)), None)
            return Detection(signature.architecture, variant, "keys")
    return None


def _fits(signature: Signature, layers: Sequence[Layer]) -> bool:
    if signature.inputs and not signature.inputs & _inputs(layers):
        return False
    if signature.ratio is None:
        return True
    return any(layer.weight and layer.weight[0] == signature.ratio * layer.weight[1] for layer in layers)


def _inputs(layers: Iterable[Layer]) -> set[int]:
    return {layer.weight[1] for layer in layers if layer.weight}
