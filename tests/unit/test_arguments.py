"""What a caller is told of a number that is out of its bounds."""

from typing import Any

import pytest
from pydantic import AliasChoices, Field

from mcp_toolserver.arguments import Arguments, parse_arguments
from mcp_toolserver.errors import InvalidArguments


class Wave(Arguments):
    """Make a wave."""

    strength: float = Field(1.0, ge=0.5, le=2.0, description="how strong")


@pytest.mark.parametrize(("value", "sentence", "closest"), [(3, "the most is 2.0", 2.0), (0, "the least is 0.5", 0.5)])
def test_a_number_out_of_bounds_is_told_with_the_closest_that_is_not(value: int, sentence: str, closest: float) -> None:
    with pytest.raises(InvalidArguments) as refused:
        parse_arguments(Wave, {"strength": value})
    assert refused.value.message == f"Argument `strength` is {value}; {sentence}."
    assert refused.value.details["problems"][0]["closest"] == closest


class Crest(Arguments):
    """The top of a wave."""

    height: float = Field(1.0, description="how high")


class Sea(Arguments):
    """Make a sea."""

    name: str = Field(description="what it is called")
    waves: int = Field(3, ge=1, le=2**64 - 1, description="how many")
    winds: tuple[str, ...] = Field((), validation_alias=AliasChoices("winds", "wind"), description="from where")
    crest: Crest = Field(Crest.model_validate({}), description="the top of each")
    depth: int | None = Field(9, description="how deep; null is bottomless")
    salt: dict[str, Any] = Field(default_factory=dict[str, Any], description="what is dissolved")


def test_null_for_what_may_be_left_out_is_left_out() -> None:
    sent = {"name": "Baltic", "waves": None, "wind": None, "crest": {"height": None}, "salt": None}
    sea = parse_arguments(Sea, sent)
    assert sea == parse_arguments(Sea, {"name": "Baltic"})
    assert sea.model_fields_set == {"name", "crest"}


def test_null_keeps_a_meaning_of_its_own() -> None:
    sea = parse_arguments(Sea, {"name": "Baltic", "depth": None, "salt": {"NaCl": None}})
    assert (sea.depth, sea.salt) == (None, {"NaCl": None})


def test_null_for_what_is_required_is_told() -> None:
    with pytest.raises(InvalidArguments, match="Argument `name` is null: Input should be a valid string"):
        parse_arguments(Sea, {"name": None})


def test_an_object_or_list_may_come_as_its_text() -> None:
    sea = parse_arguments(Sea, {"name": "[x]", "winds": '["north"]', "crest": '{"height": 2}'})
    assert (sea.name, sea.winds, sea.crest.height) == ("[x]", ("north",), 2.0)


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("salt", '{"NaCl": 1', "`salt` is '{\"NaCl\": 1': it is text, and no JSON"),
        ("crest", '{"hight": 1}', "Unknown argument `crest.hight`; did you mean `height`?"),
        ("waves", True, "`waves` is true: a number is wanted"),
        ("waves", 1.8446744073709552e19, "`waves` is 18446744073709551616; the most is 18446744073709551615"),
        ("waves", -1e300, "the least is 1"),
        ("waves", 1.5, "`waves` is 1.5: Input should be a valid integer"),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_cure(argument: str, value: object, words: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        parse_arguments(Sea, {"name": "Baltic", argument: value})
    assert words in refused.value.message
