"""What a caller is told of a number that is out of its bounds."""

import pytest
from pydantic import Field

from mcp_toolserver.errors import InvalidArguments
from mcp_toolserver.tools import Arguments, parse_arguments


class Wave(Arguments):
    """Make a wave."""

    strength: float = Field(1.0, ge=0.5, le=2.0, description="how strong")


@pytest.mark.parametrize(("value", "sentence", "closest"), [(3, "the most is 2.0", 2.0), (0, "the least is 0.5", 0.5)])
def test_a_number_out_of_bounds_is_told_with_the_closest_that_is_not(value: int, sentence: str, closest: float) -> None:
    with pytest.raises(InvalidArguments) as refused:
        parse_arguments(Wave, {"strength": value})
    assert refused.value.message == f"Argument `strength` is {value}; {sentence}."
    assert refused.value.details["problems"][0]["closest"] == closest
