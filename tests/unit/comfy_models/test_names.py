"""The name that a caller means, and the closest ones where there is none."""

import pytest

from comfy_mcp.models.models import find_name
from mcp_toolserver.errors import InvalidArguments, NotFound

NAMES = ("people/Tok_Lora.safetensors", "pixel.safetensors", "other.ckpt")


@pytest.mark.parametrize("wanted", ["people/Tok_Lora.safetensors", "PEOPLE\\tok_lora.safetensors", "tok_lora"])
def test_a_name_is_found_but_for_case_separators_folder_and_extension(wanted: str) -> None:
    assert find_name(wanted, NAMES, field="loras.0.name", what="LoRA") == NAMES[0]


@pytest.mark.parametrize(("wanted", "closest"), [("tok_loar", NAMES[0]), ("pixl", NAMES[1]), ("othr.ckpt", NAMES[2])])
def test_a_mistyped_name_is_answered_with_the_closest_with_or_without_extension(wanted: str, closest: str) -> None:
    with pytest.raises(NotFound) as refused:
        find_name(wanted, NAMES, field="loras.0.name", what="LoRA")
    assert refused.value.details == {"field": "loras.0.name", "value": wanted, "closest_matches": [closest]}
    assert closest in (refused.value.hint or "")


def test_a_name_that_several_files_have_is_answered_with_all_of_them() -> None:
    both = ["x/same.safetensors", "y/same.safetensors"]
    with pytest.raises(InvalidArguments, match="2 LoRAs are called that") as refused:
        find_name("same", (*both, *NAMES), field="loras.0.name", what="LoRA")
    assert refused.value.details["closest_matches"] == both
    with pytest.raises(NotFound) as mistyped:
        find_name("saem", (*both, *NAMES), field="loras.0.name", what="LoRA")
    assert set(mistyped.value.details["closest_matches"]) == set(both)
