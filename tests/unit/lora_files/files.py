"""LoRA files as trainers write them: real key names and widths, few layers, tiny ranks."""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

Tensors = dict[str, NDArray[np.float16] | NDArray[np.float32]]
Layers = Mapping[str, tuple[int, int]]

KOHYA = (".lora_down.weight", ".lora_up.weight")
PEFT = (".lora_A.weight", ".lora_B.weight")


def zeros(*shape: int) -> NDArray[np.float16]:
    """Return a tensor whose values do not matter."""
    return np.zeros(shape, np.float16)


def pairs(layers: Layers, rank: int = 4, suffixes: tuple[str, str] = PEFT, alpha: float | None = None) -> Tensors:
    """Return the low-rank pair of every layer, given as {name: (outputs, inputs)}, with alphas where one is given."""
    tensors: Tensors = {}
    for name, (outputs, inputs) in layers.items():
        tensors[name + suffixes[0]] = zeros(rank, inputs)
        tensors[name + suffixes[1]] = zeros(outputs, rank)
        if alpha is not None:
            tensors[f"{name}.alpha"] = np.array(alpha, np.float16)
    return tensors


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file with the reference library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(dict(tensors), dict(metadata) if metadata else None))
    return path


def write_raw(path: Path, header: bytes, data: bytes = b"") -> Path:
    """Write a header as it stands, right or wrong, and what follows it."""
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def entry(shape: Iterable[int], start: int, end: int, dtype: str = "F16") -> dict[str, object]:
    """Return one tensor's entry in a header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


FLUX_AI_TOOLKIT: Layers = {
    "transformer.transformer_blocks.0.attn.to_q": (3072, 3072),
    "transformer.transformer_blocks.0.attn.add_k_proj": (3072, 3072),
    "transformer.transformer_blocks.18.ff.net.0.proj": (12288, 3072),
    "transformer.single_transformer_blocks.0.attn.to_q": (3072, 3072),
    "transformer.single_transformer_blocks.37.proj_mlp": (12288, 3072),
    "transformer.single_transformer_blocks.37.proj_out": (3072, 15360),
}

AI_TOOLKIT_METADATA: Mapping[str, str] = {
    "name": "p1xcat_lora",
    "version": "1.0",
    "format": "pt",
    "training_info": json.dumps({"step": 1500, "epoch": 62}),
    "software": json.dumps(
        {"name": "ai-toolkit", "repo": "https://github.com/ostris/ai-toolkit", "version": "0.12.26"}
    ),
    "ss_base_model_version": "flux.1",
    "ss_output_name": "p1xcat_lora",
    "ss_tag_frequency": json.dumps({"1_p1xcat": {"p1xcat": 1}}),
    "sshs_model_hash": "ab" * 32,
    "sshs_legacy_hash": "e3b0c442",
}
