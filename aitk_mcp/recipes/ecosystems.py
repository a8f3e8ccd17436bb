"""Families of models as sites name them, the variants that some need, and the plan that each is trained by.

An ecosystem is one architecture, or one base model for each variant that must then be named. Sites know many more
names (of base models, and within AIR URNs); each leads to one of these.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from aitk_mcp.recipes.architectures import ARCHITECTURES, Architecture, read_table
from mcp_toolserver.errors import InvalidArguments, closest

_AIR = re.compile(r"urn:air:(?P<ecosystem>[^:]+):(?P<kind>[^:]+):(?P<source>[^:]+):(?P<id>.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Bounds:
    """What the plan allows for a number, and what it takes where nothing is said."""

    min: int
    max: int
    default: int


@dataclass(frozen=True)
class Plan:
    """The settings that a training of an ecosystem begins with; `text_encoder_lr` is None where it is not trained."""

    resolution: int
    learning_rate: float
    train_text_encoder: bool
    text_encoder_lr: float | None
    epochs: Bounds
    rank: Bounds
    alpha: Bounds


@dataclass(frozen=True)
class Variant:
    """One of the models of an ecosystem that has several."""

    arch: str
    base_model: str


@dataclass(frozen=True)
class Ecosystem:
    """A family of models: `arch` where it is one model, else a model for each variant."""

    plan: Plan
    arch: str | None = None
    variants: Mapping[str, Variant] = field(default_factory=dict[str, Variant])


@dataclass(frozen=True)
class SiteName:
    """What a site's name stands for: `tuned` for another model's weights, `missing` for one that cannot be trained."""

    ecosystem: str
    variant: str | None = None
    arch: str | None = None
    tuned: bool = False
    missing: str | None = None


@dataclass(frozen=True)
class Family:
    """What a caller's ecosystem and variant come to; `plan` is None for an architecture that no plan was made for."""

    ecosystem: str
    variant: str | None
    architecture: Architecture
    base_model: str
    plan: Plan | None
    warnings: tuple[str, ...] = ()


_TABLE = read_table("ecosystems.json")
ECOSYSTEMS = TypeAdapter(dict[str, Ecosystem]).validate_python(_TABLE["ecosystems"])
SITE_NAMES = TypeAdapter(dict[str, SiteName]).validate_python(_TABLE["site_names"])
_BY_BASE_MODEL = {
    variant.base_model: (name, key) for name, each in ECOSYSTEMS.items() for key, variant in each.variants.items()
}


def is_urn(model_name: str) -> bool:
    """Tell whether a model is named by an AIR URN, such as `urn:air:sdxl:checkpoint:civitai:1@2`."""
    return model_name.lower().startswith("urn:air:")


def variants_of(ecosystem: str) -> Mapping[str, Variant]:
    """Return the variants of an ecosystem; none where it is one model."""
    found = ECOSYSTEMS.get(ecosystem)
    return found.variants if found is not None else dict[str, Variant]()


def find_site_name(name: str) -> SiteName | None:
    """Return what a site's name or URN stands for, without regard to case; raises InvalidArguments for a broken URN."""
    if not is_urn(name):
        return SITE_NAMES.get(name.strip().lower())
    found = _AIR.fullmatch(name.strip())
    known = SITE_NAMES.get(found["ecosystem"].lower()) if found and found["kind"].lower() == "checkpoint" else None
    if known is not None:
        return known
    names = [each for each in SITE_NAMES if "_" not in each or each.startswith(("wanvideo", "sd3"))]
    matches = closest(found["ecosystem"], names) if found else []
    raise InvalidArguments(
        f"`model_name` is the URN {name!r}, which names no checkpoint of an ecosystem that can be trained.",
        hint="It has the form `urn:air:<ecosystem>:checkpoint:<source>:<id>`, with an ecosystem of "
        f"{', '.join(names)}." + (f" Did you mean `{matches[0]}`?" if matches else ""),
        details={"field": "model_name", "value": name, "closest_matches": matches},
    )


def resolve_family(ecosystem: str, variant: str | None) -> Family:
    """Return what an ecosystem (one of ours, a site's name, or an architecture id) and a variant come to.

    Raises InvalidArguments when the ecosystem is unknown, and when the variant is missing, unknown or not wanted.
    """
    if ecosystem in ECOSYSTEMS or ecosystem in ARCHITECTURES:
        return _family(SiteName(ecosystem), variant)
    named = SITE_NAMES.get(ecosystem.lower())
    if named is None:
        matches = closest(ecosystem, [*ECOSYSTEMS, *SITE_NAMES, *ARCHITECTURES])
        raise InvalidArguments(
            f"`ecosystem` is {ecosystem!r}, which is none that AI Toolkit knows.",
            hint=(f"Did you mean `{matches[0]}`? " if matches else "")
            + f"Use {', '.join(ECOSYSTEMS)} or an architecture of list-model-presets.",
            details={"field": "ecosystem", "value": ecosystem, "closest_matches": matches},
        )
    return resolve_site_name(named, f"`{ecosystem}`", variant)


def resolve_site_name(site: SiteName, said: str, variant: str | None) -> Family:
    """Return what a site's name comes to; raises InvalidArguments where it contradicts the variant that was given."""
    if site.variant is not None and variant is not None and variant != site.variant:
        raise InvalidArguments(
            f"`model_variant` is {variant!r}, but {said} is {site.ecosystem} {site.variant}.",
            hint=f"Give `{site.variant}`, or leave `model_variant` out.",
            details={"field": "model_variant", "value": variant, "closest_matches": [site.variant]},
        )
    return _family(site, variant if variant is not None else site.variant, said)


def family_of(architecture: Architecture, base_model: str) -> tuple[str, str | None]:
    """Return the ecosystem and variant of a model as a plan names them; the architecture's id where it has none."""
    if base_model in _BY_BASE_MODEL:
        return _BY_BASE_MODEL[base_model]
    for name, ecosystem in ECOSYSTEMS.items():
        if ecosystem.arch == architecture.id:
            return name, None
    backend = architecture.backend_arch
    if backend in ("flux", "sd3") and architecture.id == backend:
        ecosystem = "flux1" if backend == "flux" else "sd3"
        variants = ECOSYSTEMS[ecosystem].variants
        return ecosystem, next((variant for variant in variants if variant in base_model.lower()), next(iter(variants)))
    if backend.startswith("wan2"):
        return "wan", "2.1" if backend.startswith("wan21") else "2.2"
    return architecture.id, None


def _family(site: SiteName, variant: str | None, said: str | None = None) -> Family:
    name = site.ecosystem
    ecosystem, variants = ECOSYSTEMS.get(name), variants_of(name)
    if not variants and variant is not None:
        raise InvalidArguments(
            f"`model_variant` is {variant!r}, but ecosystem `{name}` has no variants.",
            hint="Leave `model_variant` out.",
            details={"field": "model_variant", "value": variant},
        )
    if variants and (variant is None or variant not in variants):
        choices = " or ".join(f"`{each}`" for each in variants)
        given = "missing" if variant is None else repr(variant)
        raise InvalidArguments(
            f"`model_variant` is {given}; ecosystem `{name}` needs {choices}.",
            hint=f"Give `model_variant` as one of {', '.join(variants)}.",
            details={"field": "model_variant", "value": variant, "closest_matches": list(variants)},
        )
    warnings: list[str] = []
    if site.missing:
        warnings.append(f"AI Toolkit has no {site.missing}: {said} is trained as {name} {variant}.")
    if site.tuned:
        warnings.append(
            f"{said} is trained on the plain {name} model. To train on its own weights, download them and give"
            f" their path as `model_name` with ecosystem `{name}`."
        )
    chosen = variants[variant] if variant is not None else None
    architecture = ARCHITECTURES[site.arch or (chosen and chosen.arch) or (ecosystem and ecosystem.arch) or name]
    base_model = chosen.base_model if chosen and site.arch is None else architecture.name_or_path
    return Family(name, variant, architecture, base_model, ecosystem.plan if ecosystem else None, tuple(warnings))
