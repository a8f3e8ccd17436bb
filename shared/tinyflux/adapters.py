"""Read, write and judge LoRA files for tinyflux, with the key names that AI Toolkit gives FLUX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tinyflux.network import DOUBLE_BLOCKS, SINGLE_BLOCKS, WIDTH
from tinyflux.operations import F32
from tinyflux.tensor_files import read_tensors, write_tensors

PREFIX = "transformer."
_KEY = re.compile(r"^transformer\.(?P<module>.+?)\.(?:lora_(?P<half>[AB])\.weight|(?P<alpha>alpha))$")


def _target_shapes() -> dict[str, tuple[int, int]]:
    shapes: dict[str, tuple[int, int]] = {}
    for index in range(DOUBLE_BLOCKS):
        block = f"transformer_blocks.{index}"
        for part in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            shapes[f"{block}.attn.{part}"] = (WIDTH, WIDTH)
        for part, ratio in (("ff", 3), ("ff_context", 2)):
            shapes[f"{block}.{part}.net.0.proj"] = (WIDTH * ratio, WIDTH)
            shapes[f"{block}.{part}.net.2"] = (WIDTH, WIDTH * ratio)
        for part in ("norm1", "norm1_context"):
            shapes[f"{block}.{part}.linear"] = (WIDTH * 6, WIDTH)
    for index in range(SINGLE_BLOCKS):
        block = f"single_transformer_blocks.{index}"
        for part in ("to_q", "to_k", "to_v"):
            shapes[f"{block}.attn.{part}"] = (WIDTH, WIDTH)
        shapes[f"{block}.norm.linear"] = (WIDTH * 3, WIDTH)
        shapes[f"{block}.proj_mlp"] = (WIDTH * 3, WIDTH)
        shapes[f"{block}.proj_out"] = (WIDTH, WIDTH * 4)
    return shapes


# Every linear layer of the blocks, as (out, in); these are what AI Toolkit adapts in FLUX.
TARGET_SHAPES: Mapping[str, tuple[int, int]] = _target_shapes()


class Lora:
    """Hold the low-rank pairs of a LoRA file by their keys in the file."""

    def __init__(self, tensors: Mapping[str, F32], metadata: Mapping[str, str] | None = None) -> None:
        """Take tensors by key; raise ValueError where a key or a shape does not fit tinyflux."""
        self.tensors: Mapping[str, F32] = {key: tensors[key] for key in sorted(tensors)}
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self._check()

    @classmethod
    def load(cls, path: Path) -> Lora:
        """Read a LoRA file; raise ValueError where it is no safetensors file or does not fit tinyflux."""
        tensors, metadata = read_tensors(path)
        return cls(tensors, metadata)

    @property
    def modules(self) -> tuple[str, ...]:
        """Return the names of the layers that it changes."""
        return tuple(key[len(PREFIX) : -len(".lora_A.weight")] for key in self.tensors if key.endswith("lora_A.weight"))

    @property
    def rank(self) -> int:
        """Return the rank, the largest one where layers differ."""
        return max(int(self.tensors[f"{PREFIX}{module}.lora_A.weight"].shape[0]) for module in self.modules)

    @property
    def alpha(self) -> float:
        """Return alpha; AI Toolkit writes none for FLUX, which means that it is the rank."""
        values = [float(tensor.reshape(-1)[0]) for key, tensor in self.tensors.items() if key.endswith(".alpha")]
        return max(values) if values else float(self.rank)

    def pair(self, module: str) -> tuple[F32, F32, float]:
        """Return down (R, in), up (out, R) and the scale alpha / rank of one layer."""
        down = self.tensors[f"{PREFIX}{module}.lora_A.weight"]
        alpha = self.tensors.get(f"{PREFIX}{module}.alpha")
        scale = 1.0 if alpha is None else float(alpha.reshape(-1)[0]) / down.shape[0]
        return down, self.tensors[f"{PREFIX}{module}.lora_B.weight"], scale

    def save(self, path: Path, metadata: Mapping[str, str], dtype: type[np.floating] = np.float16) -> None:
        """Write the file by rename, after it is safely on the disk."""
        write_tensors(path, {key: tensor.astype(dtype) for key, tensor in self.tensors.items()}, metadata)

    def _check(self) -> None:
        halves: dict[str, set[str]] = {}
        for key, tensor in self.tensors.items():
            match = _KEY.match(key)
            module = match["module"] if match else ""
            if match is None or module not in TARGET_SHAPES:
                raise ValueError(
                    f"the LoRA does not fit tinyflux: it has no layer for the key {key!r}; "
                    "keys look like transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"
                )
            if match["alpha"]:
                continue
            half = str(match["half"])
            halves.setdefault(module, set()).add(half)
            out_width, in_width = TARGET_SHAPES[module]
            axis, width = (1, in_width) if half == "A" else (0, out_width)
            if tensor.ndim != 2 or tensor.shape[axis] != width:
                wanted = f"(rank, {in_width})" if half == "A" else f"({out_width}, rank)"
                raise ValueError(f"the LoRA does not fit tinyflux: {key!r} is {tensor.shape}, it must be {wanted}")
        if not halves:
            raise ValueError("the file holds no LoRA: no key ends with .lora_A.weight")
        for module, present in halves.items():
            if len(present) != 2:
                missing = "lora_B" if "A" in present else "lora_A"
                raise ValueError(f"the LoRA is incomplete: {PREFIX}{module}.{missing}.weight is missing")
            down, up, _ = self.pair(module)
            if down.shape[0] != up.shape[1]:
                raise ValueError(f"the ranks of {module} disagree: {down.shape[0]} in lora_A, {up.shape[1]} in lora_B")
