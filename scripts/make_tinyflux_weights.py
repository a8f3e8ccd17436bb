"""Train the base weights of tinyflux from scenes that are drawn here, then distil guidance into them.

Development only: it needs torch, which the product does not.

    python scripts/make_tinyflux_weights.py base --minutes 60 --work-dir /tmp/tinyflux
    python scripts/make_tinyflux_weights.py guidance --minutes 8 --work-dir /tmp/tinyflux
    python scripts/make_tinyflux_weights.py export --work-dir /tmp/tinyflux
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "shared"))

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from tinyflux.latents import from_bytes, pack
from tinyflux.text import encode_prompt
from tinyflux_scenes import Scene, caption, draw_scenes
from tinyflux_torch import Muon, TinyFluxTorch

BATCH = 48
SCENES = 120_000
MUON_RATE, ADAM_RATE, GUIDANCE_RATE = 0.01, 2e-3, 1e-3
WEIGHTS = Path(__file__).resolve().parent.parent / "shared" / "tinyflux" / "weights" / "tinyflux-base.safetensors"
METADATA = {
    "format": "pt",
    "modelspec.sai_model_spec": "1.0.0",
    "modelspec.architecture": "tinyflux-1",
    "modelspec.title": "tinyflux base",
    "modelspec.author": "LoRA Loop",
    "modelspec.license": "Apache-2.0",
    "modelspec.description": "A miniature FLUX over 32 x 32 pixel art, trained on scenes drawn by a script.",
    "modelspec.resolution": "32x32",
    "modelspec.prediction_type": "v",
}


class Batches:
    """Deal out training batches from drawn scenes."""

    def __init__(self, count: int, seed: int) -> None:
        started = time.monotonic()
        self.pixels, self.scenes = draw_scenes(count, seed)
        self.rng = np.random.RandomState(seed + 1)
        print(f"drew {count} scenes in {time.monotonic() - started:.0f} s", flush=True)

    def next(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return latents, sigmas, tokens and pooled text of one batch."""
        chosen = self.rng.randint(len(self.scenes), size=BATCH)
        pixels = self.pixels[chosen]
        tokens, pooled = encode_captions([self.scenes[index] for index in chosen], self.rng)
        normal = self.rng.randn(BATCH)
        sigma = 1.0 / (1.0 + np.exp(-(1.1 * normal + 0.4)))
        sigma = np.where(self.rng.rand(BATCH) < 0.1, self.rng.rand(BATCH), sigma)
        arrays = (pack(from_bytes(pixels)), sigma.astype(np.float32), tokens, pooled)
        latents, sigmas, token_rows, pooled_rows = (torch.from_numpy(array) for array in arrays)
        return latents, sigmas, token_rows, pooled_rows


def encode_captions(scenes: list[Scene], rng: np.random.RandomState) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Caption and encode scenes: tokens (B, 16, 64) and pooled (B, 64)."""
    encoded = [encode_prompt(caption(scene, rng)) for scene in scenes]
    return np.stack([one.tokens for one in encoded]), np.stack([one.pooled for one in encoded])


def block_matrices(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the parameters into the matrices of the blocks and the rest."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "transformer_blocks" in name else rest).append(parameter)
    return matrices, rest


def rate_share(progress: float, steps_done: int) -> float:
    """Return the share of the full rate: a short warm-up, a plateau, then down to zero in a line."""
    warm = min(1.0, (steps_done + 1) / 100)
    return warm * min(1.0, max(0.0, (1.0 - progress) / 0.85))


def average(shadow: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the trained ones."""
    with torch.no_grad():
        for kept, current in zip(shadow.parameters(), model.parameters(), strict=True):
            kept.lerp_(current, 1.0 - decay)


def save(path: Path, model: nn.Module) -> None:
    """Write a checkpoint by rename."""
    torch.save(model.state_dict(), path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def train_base(work: Path, minutes: float, start: Path | None) -> None:
    """Train for so many minutes, from nothing or from a checkpoint; base.pt holds the averaged weights."""
    torch.manual_seed(7)
    batches = Batches(SCENES, seed=1)
    model = TinyFluxTorch()
    if start is not None:
        model.load_state_dict(torch.load(start))
    shadow = copy.deepcopy(model)
    matrices, rest = block_matrices(model)
    muon = Muon(matrices, lr=MUON_RATE)
    adam = torch.optim.Adam(rest, lr=ADAM_RATE, betas=(0.9, 0.98))
    guidance = torch.ones(BATCH)
    started = time.monotonic()
    saved_at, step, losses = started, 0, 0.0
    while (progress := (time.monotonic() - started) / (minutes * 60)) < 1.0:
        share = rate_share(progress, step)
        for optimizer, rate in ((muon, MUON_RATE), (adam, ADAM_RATE)):
            optimizer.param_groups[0]["lr"] = rate * share
        latents, sigma, tokens, pooled = batches.next()
        noise = torch.randn_like(latents)
        noisy = torch.lerp(latents, noise, sigma[:, None, None])
        loss = (model(noisy, sigma, tokens, pooled, guidance) - (noise - latents)).square().mean()
        model.zero_grad()
        loss.backward()
        muon.step()
        adam.step()
        step += 1
        average(shadow, model, min(0.999, step / (step + 10)))
        losses += loss.item()
        if step % 200 == 0:
            print(f"step {step} progress {progress:.3f} loss {losses / 200:.4f}", flush=True)
            losses = 0.0
        if time.monotonic() - saved_at > 90:
            save(work / "base.pt", shadow)
            saved_at = time.monotonic()
    save(work / "base.pt", shadow)
    print(f"base done after {step} steps", flush=True)


def distil_guidance(work: Path, minutes: float) -> None:
    """Teach one pass what two passes with classifier-free guidance from 1 to 5 give; guided.pt holds the result."""
    torch.manual_seed(11)
    batches = Batches(SCENES // 4, seed=2)
    teacher = TinyFluxTorch()
    teacher.load_state_dict(torch.load(work / "base.pt"))
    teacher.requires_grad_(False)
    student, shadow = copy.deepcopy(teacher).requires_grad_(True), copy.deepcopy(teacher)
    adam = torch.optim.Adam(student.parameters(), lr=GUIDANCE_RATE, betas=(0.9, 0.98))
    half = BATCH // 2
    started = time.monotonic()
    step, losses = 0, 0.0
    while (progress := (time.monotonic() - started) / (minutes * 60)) < 1.0:
        adam.param_groups[0]["lr"] = GUIDANCE_RATE * rate_share(progress, step)
        latents, sigma, tokens, pooled = (part[:half] for part in batches.next())
        guidance = 1.0 + 4.0 * torch.rand(half)
        guidance[: half // 6] = 1.0
        noisy = torch.lerp(latents, torch.randn_like(latents), sigma[:, None, None])
        with torch.no_grad():
            both = teacher(
                torch.cat([noisy, noisy]),
                torch.cat([sigma, sigma]),
                torch.cat([tokens, torch.zeros_like(tokens)]),
                torch.cat([pooled, torch.zeros_like(pooled)]),
                torch.ones(2 * half),
            )
            plain, free = both[:half], both[half:]
            target = free + guidance[:, None, None] * (plain - free)
        loss = (student(noisy, sigma, tokens, pooled, guidance) - target).square().mean()
        student.zero_grad()
        loss.backward()
        adam.step()
        step += 1
        average(shadow, student, min(0.995, step / (step + 10)))
        losses += loss.item()
        if step % 200 == 0:
            print(f"step {step} progress {progress:.3f} loss {losses / 200:.4f}", flush=True)
            losses = 0.0
    save(work / "guided.pt", shadow)
    print(f"guidance done after {step} steps", flush=True)


def export(work: Path, out: Path) -> None:
    """Write the newest weights as float16 safetensors."""
    source = work / "guided.pt" if (work / "guided.pt").exists() else work / "base.pt"
    tensors = {name: tensor.numpy().astype(np.float16) for name, tensor in torch.load(source).items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    save_file(tensors, part, metadata=METADATA)
    part.replace(out)
    print(f"{out}: {out.stat().st_size} bytes, {len(tensors)} tensors, from {source.name}")


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("stage", choices=("base", "guidance", "export"))
    parser.add_argument("--minutes", type=float, default=60.0, help="time budget; the rate reaches zero at its end")
    parser.add_argument("--start", type=Path, help="checkpoint that base goes on from")
    parser.add_argument("--work-dir", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="weights file that export writes")
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    # One thread: a second one only fights with whatever else runs on a small machine.
    torch.set_num_threads(1)
    if options.stage == "base":
        train_base(options.work_dir, options.minutes, options.start)
    elif options.stage == "guidance":
        distil_guidance(options.work_dir, options.minutes)
    else:
        export(options.work_dir, options.out)


if __name__ == "__main__":
    main()
