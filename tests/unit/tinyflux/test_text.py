"""The text encoder needs no vocabulary and never changes its mind."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinyflux import encode_prompt, null_prompt, prompt_words


@given(st.text(max_size=80))
def test_any_text_has_finite_conditioning_of_fixed_shape(text: str) -> None:
    first, second = encode_prompt(text), encode_prompt(text)
    assert first.tokens.shape == (16, 64)
    assert first.pooled.shape == (64,)
    assert first.tokens.dtype == first.pooled.dtype == np.float32
    assert np.isfinite(first.tokens).all()
    np.testing.assert_array_equal(first.tokens, second.tokens)
    np.testing.assert_array_equal(first.pooled, second.pooled)


def test_the_numbers_are_those_the_weights_were_trained_with() -> None:
    conditioning = encode_prompt("pixel_cat, a cat")
    expected = [-2.673429, 0.582492, 0.858653, -3.642845, 1.60972, -0.913209]
    np.testing.assert_allclose(conditioning.tokens[:2, :3].ravel(), expected, atol=1e-5)


def test_no_prompt_is_zeros() -> None:
    assert not null_prompt().tokens.any()
    assert not null_prompt().pooled.any()
    np.testing.assert_array_equal(encode_prompt("a the").tokens, null_prompt().tokens)


def test_articles_capitals_and_punctuation_do_not_matter() -> None:
    np.testing.assert_array_equal(encode_prompt("A RED ball!").tokens, encode_prompt("red, the ball").tokens)


def test_a_trigger_word_is_one_word() -> None:
    assert prompt_words("pixel_cat, a cat in the snow") == ["pixel_cat", "cat", "in", "snow"]


def test_order_matters_and_like_words_are_near() -> None:
    forwards, backwards = encode_prompt("red ball"), encode_prompt("ball red")
    assert not np.allclose(forwards.tokens[0], backwards.tokens[1])
    cat, cats, rocket = (encode_prompt(word).tokens[0] for word in ("cat", "cats", "rocket"))
    assert float(cat @ cats) > float(cat @ rocket)


def test_more_than_sixteen_words_are_cut() -> None:
    words = [f"w{index}" for index in range(20)]
    assert prompt_words(" ".join(words)) == words[:16]
