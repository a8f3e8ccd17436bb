"""State the tinyflux model in torch, for training its base weights only; the product runs it in numpy."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, HEAD_WIDTH = 96, 4, 24
TIME_WIDTH = 64


def timestep_embedding(value: Tensor) -> Tensor:
    """Embed numbers (B,) in 0..1000 as cosines and sines (B, 64)."""
    half = TIME_WIDTH // 2
    rates = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32) / half)
    angles = value[:, None] * rates[None, :]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


def _norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, (WIDTH,), eps=1e-6)


class RMSNorm(nn.Module):
    """Normalise the last axis and scale it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return x over its root mean square."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Projection(nn.Module):
    """Stand where diffusers has its activation module, so that the names agree."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Return the squared positive part of the projection."""
        return functional.relu(self.proj(x)).square()


class FeedForward(nn.Module):
    """Apply the two-layer network of a double block."""

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.net = nn.Sequential(Projection(WIDTH, WIDTH * ratio), nn.Identity(), nn.Linear(WIDTH * ratio, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output."""
        return self.net(x)


class Modulation(nn.Module):
    """Hold the linear layer that turns the conditioning into shifts, scales and gates."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(WIDTH, WIDTH * parts)

    def forward(self, conditioning: Tensor) -> tuple[Tensor, ...]:
        """Return one (B, 1, width) tensor a part."""
        return self.linear(conditioning)[:, None].chunk(self.parts, dim=-1)


def _split(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, HEAD_WIDTH)).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Attend over one stream, or over text and image together."""

    def __init__(self, joint: bool) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm_q, self.norm_k = RMSNorm(HEAD_WIDTH), RMSNorm(HEAD_WIDTH)
        if joint:
            self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
            self.norm_added_q, self.norm_added_k = RMSNorm(HEAD_WIDTH), RMSNorm(HEAD_WIDTH)
            self.to_out = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])
            self.to_add_out = nn.Linear(WIDTH, WIDTH)

    def own(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value of the first stream."""
        return self.norm_q(_split(self.to_q(x))), self.norm_k(_split(self.to_k(x))), _split(self.to_v(x))

    def added(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value of the text stream."""
        query, key = self.norm_added_q(_split(self.add_q_proj(x))), self.norm_added_k(_split(self.add_k_proj(x)))
        return query, key, _split(self.add_v_proj(x))


class DoubleBlock(nn.Module):
    """Let image and text look at each other, each with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm1_context = Modulation(6), Modulation(6)
        self.attn = Attention(joint=True)
        self.ff, self.ff_context = FeedForward(3), FeedForward(2)

    def forward(self, image: Tensor, text: Tensor, conditioning: Tensor) -> tuple[Tensor, Tensor]:
        """Return both streams."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.norm1(conditioning)
        t_shift, t_scale, t_gate, t_shift_mlp, t_scale_mlp, t_gate_mlp = self.norm1_context(conditioning)
        own = self.attn.own(_norm(image) * (1 + scale) + shift)
        added = self.attn.added(_norm(text) * (1 + t_scale) + t_shift)
        mixed = _attend(*(torch.cat([a, b], dim=2) for a, b in zip(added, own, strict=True)))
        text_part, image_part = mixed.split([text.shape[1], image.shape[1]], dim=1)
        image = image + gate * self.attn.to_out[0](image_part)
        image = image + gate_mlp * self.ff(_norm(image) * (1 + scale_mlp) + shift_mlp)
        text = text + t_gate * self.attn.to_add_out(text_part)
        text = text + t_gate_mlp * self.ff_context(_norm(text) * (1 + t_scale_mlp) + t_shift_mlp)
        return image, text


class SingleBlock(nn.Module):
    """Run attention and the feed-forward side by side over both streams joined."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = Modulation(3)
        self.attn = Attention(joint=False)
        self.proj_mlp = nn.Linear(WIDTH, WIDTH * 3)
        self.proj_out = nn.Linear(WIDTH * 4, WIDTH)

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """Return the joined stream."""
        shift, scale, gate = self.norm(conditioning)
        inner = _norm(x) * (1 + scale) + shift
        hidden = functional.relu(self.proj_mlp(inner)).square()
        return x + gate * self.proj_out(torch.cat([_attend(*self.attn.own(inner)), hidden], dim=-1))


class Embedder(nn.Module):
    """Apply two linear layers with a SiLU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width)."""
        return self.linear_2(functional.silu(self.linear_1(x)))


class Conditioner(nn.Module):
    """Join time, guidance and the pooled text."""

    def __init__(self) -> None:
        super().__init__()
        self.timestep_embedder, self.guidance_embedder, self.text_embedder = (Embedder(64) for _ in range(3))

    def forward(self, sigma: Tensor, guidance: Tensor, pooled: Tensor) -> Tensor:
        """Return what every modulation reads, (B, width)."""
        joined = self.timestep_embedder(timestep_embedding(sigma * 1000.0)) + self.text_embedder(pooled)
        return functional.silu(joined + self.guidance_embedder(timestep_embedding(guidance * 100.0)))


class TinyFluxTorch(nn.Module):
    """Predict the velocity from noisy latents, text, sigma and guidance."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(64, WIDTH) * 0.1)
        self.x_embedder = nn.Linear(48, WIDTH)
        self.context_embedder = nn.Linear(64, WIDTH)
        self.time_text_embed = Conditioner()
        self.transformer_blocks = nn.ModuleList(DoubleBlock() for _ in range(2))
        self.single_transformer_blocks = nn.ModuleList(SingleBlock() for _ in range(3))
        self.norm_out = Modulation(2)
        self.proj_out = nn.Linear(WIDTH, 48)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias") or ("norm" in name and "linear.weight" in name) or name.startswith("proj_out"):
                nn.init.zeros_(parameter)

    def forward(self, latents: Tensor, sigma: Tensor, tokens: Tensor, pooled: Tensor, guidance: Tensor) -> Tensor:
        """Return the velocity (B, 64, 48) for latents (B, 64, 48), sigma (B,), tokens (B, 16, 64), pooled (B, 64)."""
        conditioning = self.time_text_embed(sigma, guidance, pooled)
        image, text = self.x_embedder(latents) + self.pos_embed, self.context_embedder(tokens)
        for block in self.transformer_blocks:
            image, text = block(image, text, conditioning)
        joined = torch.cat([text, image], dim=1)
        for block in self.single_transformer_blocks:
            joined = block(joined, conditioning)
        scale, shift = self.norm_out(conditioning)
        return self.proj_out(_norm(joined[:, text.shape[1] :]) * (1 + scale) + shift)


class Muon(torch.optim.Optimizer):
    """Step along the orthogonalised momentum of matrices (Jordan et al., 2024)."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix; those of one shape are orthogonalised together."""
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                shapes.setdefault(tuple(parameter.shape), []).append(parameter)
            for parameters in shapes.values():
                updates: list[Tensor] = []
                for parameter in parameters:
                    if parameter.grad is None:
                        raise RuntimeError("a block matrix has no gradient")
                    state = self.state[parameter]
                    buffer = state.setdefault("momentum", torch.zeros_like(parameter))
                    buffer.lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(parameter.grad.lerp(buffer, group["momentum"]))
                steps = _orthogonal(torch.stack(updates))
                rows, columns = parameters[0].shape
                size = group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(parameters, steps, strict=True):
                    parameter.add_(update, alpha=-size)


def _orthogonal(matrices: Tensor) -> Tensor:
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x
