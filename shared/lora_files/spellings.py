"""The names under which ComfyUI looks for a layer in a LoRA file.

Every layer is looked for in the model's own spelling (`lora_unet_double_blocks_0_img_attn_qkv`,
`diffusion_model.double_blocks.0.img_attn.qkv`). For some architectures a second spelling counts, mostly that of
diffusers, under prefixes that differ from one architecture to the next. A name that is in neither is not loaded, and
only the log says so (`lora key not loaded`). Source: comfy/lora.py and comfy/utils.py of ComfyUI 0.30.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lora_files.keys import LoraKey

COMMON_PREFIXES = ("lora_unet_", "lora_unet__", "diffusion_model.")
Spell = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class SecondSpelling:
    """Say how an architecture's layers may be called besides their own names.

    `spell` maps a layer's own name to its other names: several share its outputs in their order, each but the last as
    many as the layer has inputs (fused query, key and value). `not_own` and `not_second` are found in names (with `_`
    for `.`) that cannot be of that spelling; `refused` in full names that are not looked for in spite of their prefix.
    """

    prefixes: tuple[str, ...]
    spell: Spell
    not_own: "re.Pattern[str] | None" = None
    not_second: "re.Pattern[str] | None" = None
    refused: "re.Pattern[str] | None" = None


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Map the layers of one kind of block; with `rest`, layers that are not in the table keep their name."""

    own: str
    second: str
    layers: Mapping[str, tuple[str, ...]]
    rest: bool = False


def _spell_blocks(blocks: Sequence[_Blocks], top: Mapping[str, tuple[str, ...]]) -> Spell:
    def spell(layer: str) -> Sequence[str]:
        for block in blocks:
            if layer.startswith(block.own):
                number, _, inner = layer[len(block.own) :].partition(".")
                names = block.layers.get(inner, (inner,) if block.rest else ())
                return [f"{block.second}{number}.{name}" for name in names]
        return top.get(layer, ())

    return spell


def _same(layer: str) -> Sequence[str]:
    return (layer,)


def _embedder(own: str, second: str) -> dict[str, tuple[str, ...]]:
    return {f"{own}.in_layer": (f"{second}.linear_1",), f"{own}.out_layer": (f"{second}.linear_2",)}


_FLUX = _spell_blocks(
    (
        _Blocks(
            "double_blocks.",
            "transformer_blocks.",
            {
                "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
                "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
                "img_attn.proj": ("attn.to_out.0",),
                "txt_attn.proj": ("attn.to_add_out",),
                "img_mod.lin": ("norm1.linear",),
                "txt_mod.lin": ("norm1_context.linear",),
                "img_mlp.0": ("ff.net.0.proj",),
                "img_mlp.2": ("ff.net.2",),
                "txt_mlp.0": ("ff_context.net.0.proj",),
                "txt_mlp.2": ("ff_context.net.2",),
            },
        ),
        _Blocks(
            "single_blocks.",
            "single_transformer_blocks.",
            {
                "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
                "linear2": ("proj_out",),
                "modulation.lin": ("norm.linear",),
            },
        ),
    ),
    {
        "img_in": ("x_embedder",),
        "txt_in": ("context_embedder",),
        "final_layer.linear": ("proj_out",),
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
        **_embedder("time_in", "time_text_embed.timestep_embedder"),
        **_embedder("vector_in", "time_text_embed.text_embedder"),
        **_embedder("guidance_in", "time_text_embed.guidance_embedder"),
    },
)
_FLUX2 = _spell_blocks(
    (
        _Blocks(
            "double_blocks.",
            "transformer_blocks.",
            {
                "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
                "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
                "img_attn.proj": ("attn.to_out.0",),
                "txt_attn.proj": ("attn.to_add_out",),
                "img_mlp.0": ("ff.linear_in",),
                "img_mlp.2": ("ff.linear_out",),
                "txt_mlp.0": ("ff_context.linear_in",),
                "txt_mlp.2": ("ff_context.linear_out",),
            },
        ),
        _Blocks(
            "single_blocks.",
            "single_transformer_blocks.",
            {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)},
        ),
    ),
    {},
)
_SD3 = _spell_blocks(
    (
        _Blocks(
            "joint_blocks.",
            "transformer_blocks.",
            {
                "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
                "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
                "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
                "x_block.attn.proj": ("attn.to_out.0",),
                "x_block.attn2.proj": ("attn2.to_out.0",),
                "context_block.attn.proj": ("attn.to_add_out",),
                "x_block.mlp.fc1": ("ff.net.0.proj",),
                "x_block.mlp.fc2": ("ff.net.2",),
                "context_block.mlp.fc1": ("ff_context.net.0.proj",),
                "context_block.mlp.fc2": ("ff_context.net.2",),
                "x_block.adaLN_modulation.1": ("norm1.linear",),
                "context_block.adaLN_modulation.1": ("norm1_context.linear",),
            },
        ),
    ),
    {
        "x_embedder.proj": ("pos_embed.proj",),
        "context_embedder": ("context_embedder",),
        "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
        "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
        "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
        "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
        "final_layer.linear": ("proj_out",),
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    },
)
_LUMINA_LAYERS: Mapping[str, tuple[str, ...]] = {
    "attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention.out": ("attention.to_out.0",),
}
_LUMINA = _spell_blocks(
    tuple(_Blocks(name, name, _LUMINA_LAYERS, rest=True) for name in ("layers.", "noise_refiner.", "context_refiner.")),
    {
        "x_embedder": ("all_x_embedder.2-1",),
        "final_layer.linear": ("all_final_layer.2-1.linear",),
        "final_layer.adaLN_modulation.1": ("all_final_layer.2-1.adaLN_modulation.1",),
        **{name: (name,) for name in ("cap_embedder.0", "cap_embedder.1", "t_embedder.mlp.0", "t_embedder.mlp.2")},
    },
)


def _hunyuan_video(layer: str) -> Sequence[str]:
    for own, second in (
        ("_mod.lin", "_mod.linear"),
        ("_attn.qkv", "_attn_qkv"),
        ("_attn.proj", "_attn_proj"),
        ("mlp.0", "mlp.fc1"),
        ("mlp.2", "mlp.fc2"),
        (".modulation.lin", ".modulation.linear"),
    ):
        if layer.endswith(own):
            layer = layer.removesuffix(own) + second
    return (layer,)


_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_UNET_TOP = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
}
_UNET_LAYER = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d+)\.(.+)")


def _unet(layer: str) -> Sequence[str]:
    """Return the name in diffusers of a layer of Stable Diffusion's UNet: two residual blocks at each level."""
    if layer in _UNET_TOP:
        return (_UNET_TOP[layer],)
    match = _UNET_LAYER.fullmatch(layer)
    if match is None:
        return ()
    side, number, rest = match[1], int(match[2]), match[3]
    if side == "middle_block":
        place = {0: "mid_block.resnets.0", 1: "mid_block.attentions.0", 2: "mid_block.resnets.1"}.get(number)
        return (f"{place}.{_RESNET.get(rest, rest)}",) if place else ()
    slot, _, inner = rest.partition(".")
    if side == "input_blocks":
        level, place = divmod(number - 1, 3)
        if inner == "op":
            return (f"down_blocks.{level}.downsamplers.0.conv",)
        kind = "resnets" if slot == "0" else "attentions"
        return (f"down_blocks.{level}.{kind}.{place}.{_RESNET.get(inner, inner)}",)
    level, place = divmod(number, 3)
    if inner == "conv":
        return (f"up_blocks.{level}.upsamplers.0.conv",)
    kind = "resnets" if slot == "0" else "attentions"
    return (f"up_blocks.{level}.{kind}.{place}.{_RESNET.get(inner, inner)}",)


_FLUX_NAMES = {
    "not_own": re.compile(r"^(?:single_)?transformer_blocks_"),
    "not_second": re.compile(r"^(?:double|single)_blocks_"),
}
_FLUX_PREFIXES = ("transformer.", "lycoris_", "lora_transformer_", "")
_UNET_SPELLING = SecondSpelling(
    ("lora_unet_", "lycoris_", "unet.", ""),
    _unet,
    not_own=re.compile(r"^(?:(?:down|up)_blocks_|mid_block_)"),
    not_second=re.compile(r"^(?:(?:input|output)_blocks_|middle_block_)"),
    # Under these two prefixes, attention is looked for as `attn1.processor.to_q`, the old spelling of diffusers.
    refused=re.compile(r"^(?:unet\.)?(?:down|up|mid)_.*attn[12]\.to_"),
)
_LUMINA_SPELLING = SecondSpelling(
    ("diffusion_model.", "transformer.", "lycoris_", ""),
    _LUMINA,
    not_own=re.compile(r"attention_to_"),
    not_second=re.compile(r"attention_(?:qkv|out)$"),
)

SECOND_SPELLINGS: Mapping[str, SecondSpelling] = {
    "flux": SecondSpelling(_FLUX_PREFIXES, _FLUX, **_FLUX_NAMES),
    "chroma": SecondSpelling(_FLUX_PREFIXES, _FLUX, **_FLUX_NAMES),
    "flux2": SecondSpelling(_FLUX_PREFIXES, _FLUX2, **_FLUX_NAMES),
    "sd3": SecondSpelling(
        ("transformer.", "base_model.model.", "lora_transformer_", "lycoris_"),
        _SD3,
        not_own=re.compile(r"^transformer_blocks_"),
        not_second=re.compile(r"^joint_blocks_"),
    ),
    "sd15": _UNET_SPELLING,
    "sd2": _UNET_SPELLING,
    "sdxl": _UNET_SPELLING,
    "sdxl-refiner": _UNET_SPELLING,
    "qwen-image": SecondSpelling(("transformer.", "lycoris_", ""), _same),
    "z-image": _LUMINA_SPELLING,
    "lumina2": _LUMINA_SPELLING,
    "hunyuan-video": SecondSpelling(
        ("transformer.", "diffusion_model."),
        _hunyuan_video,
        not_own=re.compile(r"_mlp_fc[12]$|_mod_linear$|_modulation_linear$|transformer_blocks_|_attn_[qkv]$"),
        not_second=re.compile(r"_mlp_[02]$|_mod_lin$|_modulation_lin$|transformer_blocks_|_attn_[qkv]$"),
    ),
    "wan": SecondSpelling((), _same, not_own=re.compile(r"_attn[12]_|_ffn_net_")),
    "ltx-video": SecondSpelling(("",), _same),
    "ltx2": SecondSpelling(("",), _same),
    "hidream": SecondSpelling(("transformer.", "lycoris_"), _same),
}


def loads_by_name(key: LoraKey, architecture: str) -> bool:
    """Tell whether ComfyUI looks for a layer under this name; True where nothing is known of the architecture."""
    spelling = SECOND_SPELLINGS.get(architecture)
    if spelling is None or key.target != "model":
        return True
    plain = key.plain
    own = spelling.not_own is None or not spelling.not_own.search(plain)
    second = spelling.not_second is None or not spelling.not_second.search(plain)
    if spelling.refused and key.prefix in ("", "unet.") and spelling.refused.search(key.name):
        return False
    return (own and key.prefix in COMMON_PREFIXES) or (second and key.prefix in spelling.prefixes)


def own_names(layer: str) -> Iterator[str]:
    """Return the names under which a layer of any architecture is looked for."""
    yield f"diffusion_model.{layer}"
    underscored = layer.replace(".", "_")
    yield f"lora_unet_{underscored}"
    yield f"lora_unet__{underscored}"


def second_names(layer: str, prefixes: Sequence[str]) -> Iterator[str]:
    """Return a layer of the second spelling under each prefix."""
    for prefix in prefixes:
        if prefix.endswith("_"):
            yield prefix + layer.replace(".", "_")
        elif prefix in ("unet.", "") and layer.startswith(("down_", "up_", "mid_")):
            old = layer.replace(".to_", ".processor.to_")
            yield prefix + (old.removesuffix(".0") if old.endswith(".to_out.0") else old)
        else:
            yield prefix + layer
