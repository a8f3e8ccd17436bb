"""Which family a model file belongs to: by the layers in its header, else by rules of thumb over name and size.

A family's word is that of `lora_files` for the architecture, so that a LoRA and a checkpoint can be compared. Within a
family, a variant is what is rendered otherwise: an editing model, a distilled one, another size. See `variants`.
"""

import re
from dataclasses import dataclass
from typing import Literal

from comfy_mcp.workflows.variants import VARIANTS, variant_of
from lora_files.architectures import SIGNATURES, UNKNOWN, architecture_in_words
from lora_files.fit import targets_of
from lora_files.header import SafetensorsHeader

FLUX = "flux"
SDXL = "sdxl"
SD15 = "sd15"
SD3 = "sd3"
CHROMA = "chroma"
QWEN_IMAGE = "qwen-image"
Z_IMAGE = "z-image"
LTX_VIDEO = "ltx-video"
WAN = "wan"
HUNYUAN_VIDEO = "hunyuan-video"

FoundBy = Literal["header", "name", "size", "nothing"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Name a family for people, and say how a file name gives it away (searched in the lower-case name)."""

    name: str
    title: str
    named: str


# In the order of the questions: `flux2` and `chroma` before `flux`, and the bare `xl` of SDXL last but one.
FAMILIES: tuple[Family, ...] = (
    Family(name=CHROMA, title="Chroma", named=r"chroma"),
    Family(name="flux2", title="FLUX.2", named=r"flux[-_. ]?2(?![0-9])"),
    Family(name=HUNYUAN_VIDEO, title="HunyuanVideo", named=r"hunyuan[-_ ]?video"),
    Family(name=FLUX, title="FLUX.1", named=r"flux|flex[-_. ]?[12]"),
    Family(name=SD3, title="Stable Diffusion 3", named=r"sd[-_ ]?3|stable[-_ ]?diffusion[-_ ]?3"),
    Family(name=QWEN_IMAGE, title="Qwen-Image", named=r"qwen[-_ ]?image"),
    Family(name=Z_IMAGE, title="Z-Image", named=r"z[-_ ]?image"),
    Family(name=WAN, title="Wan", named=r"(?<![a-z])wan[-_ ]?2|ti2v"),
    Family(name="ltx2", title="LTX-2", named=r"ltx[-_ ]?2(?!b)"),
    Family(name=LTX_VIDEO, title="LTX-Video", named=r"ltx"),
    Family(name=SDXL, title="Stable Diffusion XL", named=r"xl"),
    Family(name=SD15, title="Stable Diffusion 1.5", named=r"sd[-_ ]?v?1|v1-5"),
)

_TITLES = {named.name: named.title for named in (*FAMILIES, *VARIANTS)}
_ARCHITECTURES = frozenset(signature.architecture for signature in SIGNATURES)
_SDXL_OVER_BYTES = 6_000_000_000
_SD15_UNDER_BYTES = 5_000_000_000

# LoRAs that are made for another family than the checkpoint's and still find most of their layers there.
_SHARED_LORAS: frozenset[tuple[str, str]] = frozenset({(FLUX, "chroma")})


@dataclass(frozen=True, kw_only=True)
class FamilyGuess:
    """Name the family, what it was read from, and the variant within it (the family's own name where it is plain)."""

    family: str
    found_by: FoundBy
    variant: str

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
    file_name = re.split(r"[\\/]", checkpoint_name.lower())[-1]
    family, found_by = _family_of(file_name, size_bytes, header)
    return FamilyGuess(family=family, found_by=found_by, variant=variant_of(family, file_name, header))


def _family_of(file_name: str, size_bytes: int | None, header: SafetensorsHeader | None) -> tuple[str, FoundBy]:
    if header is not None:
        architecture = targets_of(header).architecture
        if architecture != UNKNOWN:
            return architecture, "header"
    for family in FAMILIES:
        if re.search(family.named, file_name):
            return family.name, "name"
    if size_bytes is not None and size_bytes > _SDXL_OVER_BYTES:
        return SDXL, "size"
    if size_bytes is not None and size_bytes < _SD15_UNDER_BYTES:
        return SD15, "size"
    return SDXL, "nothing"


def family_of_architecture(words: str) -> str | None:
    """Return the family that an architecture's words mean (`flux-1-dev/lora`, `tinyflux-1`), or None."""
    found = architecture_in_words({"modelspec.architecture": words})
    return found if found in _ARCHITECTURES else None


def title_of(family: str) -> str:
    """Return the name of a family, or of a variant, as people write it."""
    return _TITLES.get(family, family)


def lora_fits(lora_family: str, checkpoint_family: str) -> bool:
    """Tell whether a LoRA made for one family can have its effect on a checkpoint of another."""
    return lora_family == checkpoint_family or (lora_family, checkpoint_family) in _SHARED_LORAS
