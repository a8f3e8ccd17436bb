"""Turn a prompt into conditioning without a vocabulary: every word is hashed, so any word has a vector."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

TEXT_TOKENS = 16
TEXT_WIDTH = 64

_TRIGRAM_SHARE = 0.6
_PREVIOUS_SHARE = 0.4
# Articles would take up tokens and blur the pooled vector without changing a picture.
_SILENT = frozenset({"a", "an", "the", "of"})
_BYTE_MEAN = 127.5
_BYTE_DEVIATION = 73.9


@dataclass(frozen=True)
class TextConditioning:
    """Hold what the model reads of one prompt: tokens (16, 64) and pooled (64,), both float32."""

    tokens: NDArray[np.float32]
    pooled: NDArray[np.float32]


def prompt_words(text: str) -> list[str]:
    """Return the words of a prompt that reach the model, lower-cased and in order, at most 16."""
    words = [word for word in re.findall(r"\w+", text.lower()) if word not in _SILENT]
    return words[:TEXT_TOKENS]


def encode_words(words: Sequence[str]) -> TextConditioning:
    """Encode words that are already split; more than 16 are cut."""
    tokens = np.zeros((TEXT_TOKENS, TEXT_WIDTH), dtype=np.float32)
    kept = words[:TEXT_TOKENS]
    for index, word in enumerate(kept):
        tokens[index] = _word_vector(word)
    pooled = tokens.sum(axis=0) / np.float32(max(1.0, float(len(kept))) ** 0.5)
    # The word before gives each token a little order, which a set of hashes has not: "red ball" is not "ball red".
    tokens[1 : len(kept)] += np.float32(_PREVIOUS_SHARE) * tokens[: max(0, len(kept) - 1)].copy()
    return TextConditioning(tokens=tokens, pooled=pooled.astype(np.float32))


def encode_prompt(text: str) -> TextConditioning:
    """Encode a prompt; the same text gives the same numbers on every machine."""
    return encode_words(prompt_words(text))


def null_prompt() -> TextConditioning:
    """Return the conditioning of no prompt at all, which is zeros."""
    return encode_words(())


@lru_cache(maxsize=65536)
def _hash_vector(piece: str) -> NDArray[np.float32]:
    digest = blake2b(piece.encode("utf-8"), digest_size=TEXT_WIDTH).digest()
    values = np.frombuffer(digest, dtype=np.uint8).astype(np.float32)
    return (values - np.float32(_BYTE_MEAN)) / np.float32(_BYTE_DEVIATION)


@lru_cache(maxsize=16384)
def _word_vector(word: str) -> NDArray[np.float32]:
    framed = f"<{word}>"
    trigrams = [framed[start : start + 3] for start in range(len(framed) - 2)]
    vector = _hash_vector(word).copy()
    share = np.float32(_TRIGRAM_SHARE / len(trigrams) ** 0.5)
    for trigram in trigrams:
        vector += share * _hash_vector(trigram)
    # Unit variance again, or long words would shout louder than short ones.
    return (vector / np.float32((1.0 + _TRIGRAM_SHARE**2) ** 0.5)).astype(np.float32)
