"""Pack pictures into latents and back: an orthonormal change of basis that stands where a VAE would be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IMAGE_SIZE = 32
PATCH_SIZE = 4
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
LATENT_WIDTH = PATCH_SIZE * PATCH_SIZE * 3


def _basis() -> NDArray[np.float32]:
    index = np.arange(PATCH_SIZE)
    cosine = np.cos(np.pi * (2 * index[None, :] + 1) * index[:, None] / (2 * PATCH_SIZE)) * np.sqrt(2 / PATCH_SIZE)
    cosine[0] /= np.sqrt(2)
    colour = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    colour /= np.linalg.norm(colour, axis=1, keepdims=True)
    patch = np.einsum("ai,bj,ck->abcijk", cosine, cosine, colour)
    return patch.reshape(LATENT_WIDTH, LATENT_WIDTH).astype(np.float32)


# (48, 48): a DCT over the 4 x 4 patch times brightness and two colour differences.
_BASIS = _basis()


def pack(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pack pixels (B, 32, 32, 3) in [-1, 1] into latents (B, 64, 48); lengths and distances are kept."""
    if pixels.ndim != 4 or pixels.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3):
        raise ValueError(f"pixels must have the shape (batch, {IMAGE_SIZE}, {IMAGE_SIZE}, 3), not {pixels.shape}")
    side = IMAGE_SIZE // PATCH_SIZE
    patches = pixels.reshape(-1, side, PATCH_SIZE, side, PATCH_SIZE, 3).transpose(0, 1, 3, 2, 4, 5)
    flat = np.ascontiguousarray(patches, dtype=np.float32).reshape(-1, IMAGE_TOKENS, LATENT_WIDTH)
    return flat @ _BASIS.T


def unpack(latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unpack latents (B, 64, 48) into pixels (B, 32, 32, 3), not clipped to [-1, 1]."""
    if latents.ndim != 3 or latents.shape[1:] != (IMAGE_TOKENS, LATENT_WIDTH):
        raise ValueError(f"latents must have the shape (batch, {IMAGE_TOKENS}, {LATENT_WIDTH}), not {latents.shape}")
    side = IMAGE_SIZE // PATCH_SIZE
    patches = (latents.astype(np.float32) @ _BASIS).reshape(-1, side, side, PATCH_SIZE, PATCH_SIZE, 3)
    return np.ascontiguousarray(patches.transpose(0, 1, 3, 2, 4, 5)).reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3)


def to_bytes(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn pixels in [-1, 1] into bytes, clipping what lies outside."""
    return np.clip(np.rint((pixels + 1.0) * 127.5), 0, 255).astype(np.uint8)


def from_bytes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn bytes into pixels in [-1, 1]."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1.0)
