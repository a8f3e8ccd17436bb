"""Names of LoRA tensors taken apart: which part of which layer, and in whose naming.

A key is `<prefix><layer><suffix>`, such as `lora_unet_` + `double_blocks_0_img_attn_qkv` + `.lora_down.weight`. Both
tables hold what the trainers write and what ComfyUI looks for (its comfy/lora.py and comfy/weight_adapter); a new
trainer is a new row.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Target = Literal["model", "text_encoder"]
KeyFormat = Literal["kohya", "diffusers", "peft", "comfyui", "onetrainer", "lycoris", "original", "unknown"]

ROLE_OF_SUFFIX: Mapping[str, str] = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_A": "down",
    ".lora_B": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    # The old spelling of diffusers, `<layer>_lora.down.weight`: the layer's name gives its `_lora` to the suffix.
    ".down.weight": "down",
    ".up.weight": "up",
    ".alpha": "alpha",
    ".dora_scale": "dora_scale",
    ".lora_magnitude_vector": "dora_scale",
    ".lora_magnitude_vector.weight": "dora_scale",
    ".lora_magnitude_vector.default.weight": "dora_scale",
    ".magnitude": "dora_scale",
    **{f".hada_{name}": f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f".lokr_{name}": f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t1", "t2")},
    **{f".{name}": f"oft_{name}" for name in ("oft_blocks", "oft_diag", "rescale")},
    **{f".{name}.weight": f"glora_{name}" for name in ("a1", "a2", "b1", "b2")},
    ".diff": "diff",
    ".diff_b": "diff_b",
    ".lora_B.bias": "diff_b",
    ".set_weight": "set_weight",
    ".scale": "set_weight",
    ".reshape_weight": "reshape_weight",
    ".w_norm": "w_norm",
    ".b_norm": "b_norm",
}
_NEED_LORA = (".down.weight", ".up.weight")
_MOST_DOTS = max(suffix.count(".") for suffix in ROLE_OF_SUFFIX)

_PREFIXES: tuple[tuple[str, KeyFormat, Target], ...] = (
    ("lora_unet__", "kohya", "model"),
    ("lora_unet_", "kohya", "model"),
    ("lora_prior_unet_", "kohya", "model"),
    ("lora_te1_", "kohya", "text_encoder"),
    ("lora_te2_", "kohya", "text_encoder"),
    ("lora_te3_", "kohya", "text_encoder"),
    ("lora_te_", "kohya", "text_encoder"),
    ("lora_prior_te_", "kohya", "text_encoder"),
    ("lora_transformer_", "onetrainer", "model"),
    ("lycoris_", "lycoris", "model"),
    ("text_encoders.", "comfyui", "text_encoder"),
    ("text_encoder_3.", "diffusers", "text_encoder"),
    ("text_encoder_2.", "diffusers", "text_encoder"),
    ("text_encoder.", "diffusers", "text_encoder"),
    ("base_model.model.", "peft", "model"),
    ("unet.base_model.model.", "peft", "model"),
    ("transformer.base_model.model.", "peft", "model"),
    ("model.diffusion_model.", "comfyui", "model"),
    ("diffusion_model.", "comfyui", "model"),
    ("transformer.", "diffusers", "model"),
    ("unet.", "diffusers", "model"),
)
_BY_PREFIX: Mapping[str, tuple[KeyFormat, Target]] = {
    prefix: (key_format, target) for prefix, key_format, target in _PREFIXES
}
# The longest prefix that fits is meant: `unet.base_model.model.`, not `unet.`.
_PREFIX = re.compile("|".join(re.escape(prefix) for prefix in sorted(_BY_PREFIX, key=len, reverse=True)))


class LoraKey(NamedTuple):
    """A tensor's name taken apart.

    `layer` is in the trainer's own spelling, without prefix; `role` is the tensor's part in it (`down`, `lokr_w1`, …),
    empty for a name of no known shape.
    """

    prefix: str
    layer: str
    role: str
    key_format: KeyFormat
    target: Target

    @property
    def name(self) -> str:
        """Return what the tensors of one layer share: prefix and layer."""
        return self.prefix + self.layer

    @property
    def plain(self) -> str:
        """Return the layer with `_` for `.`, the spelling that all namings share."""
        return self.layer.replace(".", "_")


def split_key(name: str) -> LoraKey:
    """Take a tensor's name apart."""
    return key_of(*split_suffix(name))


def key_of(stem: str, role: str) -> LoraKey:
    """Take a tensor's name apart that has lost its suffix already."""
    match = _PREFIX.match(stem)
    if match is None:
        return LoraKey("", stem, role, "original", "model")
    key_format, target = _BY_PREFIX[match.group()]
    return LoraKey(match.group(), stem[match.end() :], role, key_format, target)


def split_suffix(name: str) -> tuple[str, str]:
    """Return a tensor's name without its suffix, and its role; the whole name and no role where there is none."""
    cut = at = len(name)
    for _ in range(_MOST_DOTS):
        at = name.rfind(".", 0, at)
        if at < 0:
            break
        # Going on to the left finds the longest suffix: `.lora_A.default.weight`.
        if name[at:] in ROLE_OF_SUFFIX:
            cut = at
    stem, suffix = name[:cut], name[cut:]
    if suffix in _NEED_LORA:
        return (stem.removesuffix("_lora"), ROLE_OF_SUFFIX[suffix]) if stem.endswith("_lora") else (name, "")
    return stem, ROLE_OF_SUFFIX.get(suffix, "")


def key_format_of(keys: Iterable[LoraKey]) -> KeyFormat:
    """Return the naming of most layers, given a key of each; text encoders count only where there is nothing else."""
    every = list(keys)
    counts: Counter[KeyFormat] = Counter(key.key_format for key in every if key.target == "model")
    counts = counts or Counter(key.key_format for key in every)
    return counts.most_common(1)[0][0] if counts else "unknown"
