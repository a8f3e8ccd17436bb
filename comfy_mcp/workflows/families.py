"""Which family a model file belongs to: by the layers in its header, else by rules of thumb over name and size.

A family's word is that of `lora_files` for the architecture, so that a LoRA and a checkpoint can be compared.
"""

import re
from dataclasses import dataclass
from typing import Literal

from lora_files.architectures import SIGNATURES, UNKNOWN, architecture_in_words
from lora_files.fit import targets_of
from lora_files.header import SafetensorsHeader

FLUX = "flux"
SDXL = "sdxl"
SD15 = "sd15"
SD3 = "sd3"

FoundBy = Literal["header", "name", "size", "nothing"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Name a family for people, and say how a file name gives it away (searched in the lower-case name)."""

    name: str
    title: str
    named: str


# In the order of the questions: `flux2` and `chroma` before `flux`, and the bare `xl` of SDXL last but one.
FAMILIES: tuple[Family, ...] = (
    Family(name="chroma", title="Chroma", named=r"chroma"),
    Family(name="flux2", title="FLUX.2", named=r"flux[-_. ]?2(?![0-9])"),
    Family(name="hunyuan-video", title="HunyuanVideo", named=r"hunyuan[-_ ]?video"),
    Family(name=FLUX, title="FLUX.1", named=r"flux|flex[-_. ]?[12]"),
    Family(name=SD3, title="Stable Diffusion 3", named=r"sd[-_ ]?3|stable[-_ ]?diffusion[-_ ]?3"),
    Family(name="qwen-image", title="Qwen-Image", named=r"qwen[-_ ]?image"),
    Family(name="z-image", title="Z-Image", named=r"z[-_ ]?image"),
    Family(name="wan", title="Wan", named=r"(?<![a-z])wan[-_ ]?2"),
    Family(name="ltx-video", title="LTX-Video", named=r"ltx"),
    Family(name=SDXL, title="Stable Diffusion XL", named=r"xl"),
    Family(name=SD15, title="Stable Diffusion 1.5", named=r"sd[-_ ]?v?1|v1-5"),
)

_TITLES = {family.name: family.title for family in FAMILIES}
_ARCHITECTURES = frozenset(signature.architecture for signature in SIGNATURES)
_SDXL_OVER_BYTES = 6_000_000_000
_SD15_UNDER_BYTES = 5_000_000_000

# LoRAs that are made for another family than the checkpoint's and still find most of their layers there.
_SHARED_LORAS: frozenset[tuple[str, str]] = frozenset({(FLUX, "chroma")})


@dataclass(frozen=True, kw_only=True)
class FamilyGuess:
    """Name the family, and what it was read from."""

    family: str
    found_by: FoundBy

    @property
    def certain(self) -> bool:
        """Tell whether the file itself, or its name, says so."""
        return self.found_by in {"header", "name"}


def family_of(
    checkpoint_name: str, size_bytes: int | None = None, header: SafetensorsHeader | None = None
) -> FamilyGuess:
    """Find the family of a checkpoint from the best evidence there is.

    Where nothing speaks, SDXL is taken: its graph is the one of SD 1.5, too.
    """
    if header is not None:
        architecture = targets_of(header).architecture
        if architecture != UNKNOWN:
            return FamilyGuess(family=architecture, found_by="header")
    file_name = re.split(r"[\\/]", checkpoint_name.lower())[-1]
    for family in FAMILIES:
        if re.search(family.named, file_name):
            return FamilyGuess(family=family.name, found_by="name")
    if size_bytes is not None and size_bytes > _SDXL_OVER_BYTES:
        return FamilyGuess(family=SDXL, found_by="size")
    if size_bytes is not None and size_bytes < _SD15_UNDER_BYTES:
        return FamilyGuess(family=SD15, found_by="size")
    return FamilyGuess(family=SDXL, found_by="nothing")


def family_of_architecture(words: str) -> str | None:
    """Return the family that an architecture's words mean (`flux-1-dev/lora`, `tinyflux-1`), or None."""
    found = architecture_in_words({"modelspec.architecture": words})
    return found if found in _ARCHITECTURES else None


def title_of(family: str) -> str:
    """Return a family's name as people write it."""
    return _TITLES.get(family, family)


def lora_fits(lora_family: str, checkpoint_family: str) -> bool:
    """Tell whether a LoRA made for one family can have its effect on a checkpoint of another."""
    return lora_family == checkpoint_family or (lora_family, checkpoint_family) in _SHARED_LORAS
