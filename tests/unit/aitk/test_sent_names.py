"""Names that are sent to AI Toolkit: none is lost, none is another's, and each leads back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitk_mcp.datasets.sent_names import UnsendableName, sent_name, shown_name

STEMS = st.text(
    st.characters(exclude_categories=("Cc", "Cf", "Cs", "Co"), exclude_characters="/\\."), min_size=1, max_size=20
)


@given(STEMS, st.sampled_from([".png", ".JPG", ".webp"]))
def test_every_name_leads_back_to_itself(stem: str, suffix: str) -> None:
    sent = sent_name(stem + suffix)
    # AI Toolkit leaves it as it is.
    assert re.sub(r"[^a-zA-Z0-9.-]", "_", sent) == sent
    assert shown_name(sent) == stem + suffix


@given(st.lists(STEMS, unique_by=str.casefold, max_size=8))
def test_different_names_stay_different_where_case_does_not_count(stems: list[str]) -> None:
    assert len({sent_name(f"{stem}.png").lower() for stem in stems}) == len(stems)


@pytest.mark.parametrize(
    "sent", ["xn--.png", "xn--a_b!.png", "xn--\u732b.png", "xn--99999999999.png", "xn--a.png", "a.png"]
)
def test_names_of_others_are_shown_as_they_are(sent: str) -> None:
    assert shown_name(sent) == sent


def test_folders_before_a_name_stay() -> None:
    assert shown_name(f"sub/{sent_name('猫.png')}") == "sub/猫.png"


@pytest.mark.parametrize("name", ["\uf041.png", "".join(map(chr, range(0x4E00, 0x9E00, 131))) + ".png"])
def test_a_name_that_would_not_lead_back_is_refused(name: str) -> None:
    with pytest.raises(UnsendableName, match="its name"):
        sent_name(name)
