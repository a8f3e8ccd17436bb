"""Which of many known names are offered for one that is not known."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_toolserver.errors import closest, did_you_mean

STYLES = ("anna_style", "pixel_cat", "film_noir", "night_city", "water_colour")
MANY = [f"people/{style}_{number:04}.safetensors" for number in range(2000) for style in STYLES]


@pytest.mark.parametrize(
    ("value", "best"),
    [
        ("people/anna_styl_0123.safetensors", "people/anna_style_0123.safetensors"),
        ("PEOPLE\\Night-City_1999.safetensors", "people/night_city_1999.safetensors"),
        ("watercolour_0007.safetensors", "people/water_colour_0007.safetensors"),
        ("film_noir_0042", "people/film_noir_0042.safetensors"),
    ],
)
def test_the_closest_of_ten_thousand_names_is_found(value: str, best: str) -> None:
    found = closest(value, MANY)
    assert found[0] == best
    assert len(found) == 3


@pytest.mark.parametrize("value", ["", "zz", "qqqqqqqqqqqqqqqqqqqq", "new\nline"])
def test_nothing_is_offered_where_nothing_is_like_it(value: str) -> None:
    assert closest(value, MANY) == []
    assert did_you_mean(value, MANY) == ""


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MANY), st.integers(7, 15), st.sampled_from(string.ascii_lowercase))
def test_one_wrong_letter_does_not_hide_a_name_among_many(name: str, place: int, letter: str) -> None:
    mistaken = name[:place] + letter + name[place + 1 :]
    assert name in closest(mistaken, MANY)


@settings(deadline=None)
@given(st.text(max_size=30), st.lists(st.text(max_size=30), max_size=300))
def test_only_known_names_are_offered(value: str, known: list[str]) -> None:
    found = closest(value, known)
    assert set(found) <= set(known)
    assert len(found) == len(set(found)) <= 3
