"""Run and fine-tune a miniature FLUX in numpy: text to 32 x 32 pixel art, with LoRA.

One thread does the mathematics: on matrices this small a second one costs more than it gives, and on a busy machine
sixty times as much. OpenBLAS reads its setting when numpy is first imported, so that a process which imports numpy
earlier has to set OPENBLAS_NUM_THREADS=1 itself, at its entry point.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tinyflux.adapters import TARGET_SHAPES, Lora
from tinyflux.latents import IMAGE_SIZE, IMAGE_TOKENS, LATENT_WIDTH, from_bytes, pack, to_bytes, unpack
from tinyflux.model import ARCHITECTURE, TinyFlux, sample_dataset_path, weights_path
from tinyflux.pictures import palette_distance, seeded_noise, seeded_random, text_to_pixels
from tinyflux.samplers import SAMPLERS, add_noise, sample
from tinyflux.schedules import SCHEDULERS, sigmas
from tinyflux.text import TextConditioning, encode_prompt, null_prompt, prompt_words
from tinyflux.training import LoraTrainer, TrainerState

__all__ = [
    "ARCHITECTURE",
    "IMAGE_SIZE",
    "IMAGE_TOKENS",
    "LATENT_WIDTH",
    "SAMPLERS",
    "SCHEDULERS",
    "TARGET_SHAPES",
    "Lora",
    "LoraTrainer",
    "TextConditioning",
    "TinyFlux",
    "TrainerState",
    "add_noise",
    "encode_prompt",
    "from_bytes",
    "null_prompt",
    "pack",
    "palette_distance",
    "prompt_words",
    "sample",
    "sample_dataset_path",
    "seeded_noise",
    "seeded_random",
    "sigmas",
    "text_to_pixels",
    "to_bytes",
    "unpack",
    "weights_path",
]
