"""From what people call a model to the architecture and the `name_or_path` that AI Toolkit needs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from aitk_mcp.recipes.architectures import ARCHITECTURES, Architecture, read_table
from aitk_mcp.recipes.ecosystems import (
    ECOSYSTEMS,
    Family,
    Plan,
    find_site_name,
    is_urn,
    resolve_family,
    resolve_site_name,
    variants_of,
)
from mcp_toolserver.errors import InvalidArguments, closest


@dataclass(frozen=True)
class Preset:
    """A base model by name: its architecture, what it sets beyond that, and whether its licence must be accepted."""

    name: str
    arch: str
    aliases: tuple[str, ...] = ()
    gated: bool = False
    public_alternative: str | None = None
    moved_to: str | None = None
    embedded_only: bool = False
    notes: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class ModelChoice:
    """The base model of a config, resolved, with what the caller should know about it.

    `settings` are those that the model needs beyond its architecture's; `plan` is that of the ecosystem, if one was
    asked for.
    """

    architecture: Architecture
    name_or_path: str
    preset: Preset | None
    warnings: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    plan: Plan | None = None

    @property
    def is_ddpm(self) -> bool:
        """Tell whether the model predicts noise (SD 1.5, SDXL) rather than a flow."""
        return self.architecture.set.get("train.noise_scheduler") == "ddpm"

    @property
    def gated(self) -> bool:
        """Say whether the model's licence must be accepted before it can be downloaded."""
        return self.preset.gated if self.preset else False


_TABLE = read_table("models.json")
_OWN = TypeAdapter(list[Preset]).validate_python(_TABLE["models"])
_NAMED = {preset.name for preset in _OWN}
PRESETS: tuple[Preset, ...] = (
    *_OWN,
    *(
        Preset(name=row.name_or_path, arch=row.id, gated=row.gated)
        for row in ARCHITECTURES.values()
        if row.name_or_path not in _NAMED
    ),
)
OPTIMIZERS: tuple[str, ...] = tuple(_TABLE["optimizers"])
LR_SCHEDULERS: tuple[str, ...] = tuple(_TABLE["lr_schedulers"])
PRECISIONS: dict[str, str] = _TABLE["precisions"]
SECONDS_PER_STEP: dict[str, dict[str, Any]] = {row["arch"]: row for row in _TABLE["measured_seconds_per_step"]}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _by_alias() -> dict[str, Preset]:
    found: dict[str, Preset] = {}
    for preset in PRESETS:
        for alias in (preset.name, preset.name.rsplit("/", 1)[-1], *preset.aliases):
            found.setdefault(_plain(alias), preset)
    for architecture in ARCHITECTURES.values():
        default = next(preset for preset in PRESETS if preset.name == architecture.name_or_path)
        # Two architectures may share a model (Krea 2 and its editing form): an alias must not choose the wrong one.
        if default.arch == architecture.id:
            for alias in (architecture.id, architecture.label):
                found.setdefault(_plain(alias), default)
    return found


_ALIASES = _by_alias()


def find_preset(model_name: str) -> Preset | None:
    """Return the preset that a name or one of its aliases stands for, without regard to case and separators."""
    return _ALIASES.get(_plain(model_name))


def resolve_model(model_name: str, ecosystem: str | None = None, variant: str | None = None) -> ModelChoice:
    """Choose architecture and `name_or_path`; an explicit ecosystem decides over a guess from the name.

    `ecosystem` is one of ECOSYSTEMS, a site's name for one, or an architecture id; `model_name` may be a site's name
    or an AIR URN too. Raises InvalidArguments when nothing tells the architecture, when ecosystem and model contradict
    each other, or when the variant is missing or not wanted.
    """
    preset = find_preset(model_name)
    if preset is None and (site := find_site_name(model_name)) is not None:
        said = f"the {site.ecosystem} model of {model_name}" if is_urn(model_name) else f"`{model_name}`"
        return _by_site(model_name, resolve_site_name(site, said, variant), ecosystem, variant)
    warnings: list[str] = []
    if preset is not None and preset.moved_to:
        warnings.append(f"{preset.name} was removed by its owner; {preset.moved_to} is the same model.")
        preset = find_preset(preset.moved_to)
    family = _family(ecosystem, variant)
    warnings += family.warnings if family else ()
    if preset is not None:
        _refuse_contradiction(model_name, preset, family)
        architecture = family.architecture if family else ARCHITECTURES[preset.arch]
        warnings += _about(preset)
        return ModelChoice(
            architecture, preset.name, preset, tuple(warnings), preset.set, family.plan if family else None
        )
    guessed = family.architecture if family else _guess(model_name)
    if guessed is None:
        matches = closest(model_name, [preset.name for preset in PRESETS])
        raise InvalidArguments(
            f"Nothing tells the architecture of `model_name` {model_name!r}, and AI Toolkit would take it for "
            "Stable Diffusion 1.5.",
            hint=(f"Did you mean `{matches[0]}`? Otherwise say" if matches else "Say")
            + " `ecosystem` (such as `flux1`, `sdxl`, `sd1` or an architecture of list-model-presets).",
            details={"field": "model_name", "value": model_name, "closest_matches": matches},
        )
    if family is None:
        warnings.append(f"{model_name} was taken for {guessed.label} by its name; say `ecosystem` if that is wrong.")
    # Other weights of FLUX.1-schnell are distilled too: they need its training adapter as the original does.
    kin = find_preset(family.base_model) if family else None
    return ModelChoice(guessed, model_name, None, tuple(warnings), _settings(kin), family.plan if family else None)


def _by_site(model_name: str, family: Family, ecosystem: str | None, variant: str | None) -> ModelChoice:
    if ecosystem is not None:
        # A site's name for the ecosystem may tell more than that of the model, such as that it is a Wan for images.
        wanted = resolve_family(ecosystem, variant if variant is not None else family.variant)
        if wanted.ecosystem != family.ecosystem:
            raise InvalidArguments(
                f"`{model_name}` is a model of ecosystem `{family.ecosystem}`, but `ecosystem` is {ecosystem!r}.",
                hint=f"Give `{family.ecosystem}`, or leave `ecosystem` out.",
                details={"field": "ecosystem", "value": ecosystem, "closest_matches": [family.ecosystem]},
            )
    warnings = list(family.warnings)
    if is_urn(model_name):
        warnings.append(
            f"AI Toolkit cannot load the URN {model_name}: it trains on {family.base_model}. To train on the weights"
            f" behind the URN, download them and give their path as `model_name` with ecosystem `{family.ecosystem}`."
        )
    preset = find_preset(family.base_model)
    if preset is not None:
        warnings += _about(preset)
    return ModelChoice(family.architecture, family.base_model, preset, tuple(warnings), _settings(preset), family.plan)


def _family(ecosystem: str | None, variant: str | None) -> Family | None:
    if ecosystem is not None:
        return resolve_family(ecosystem, variant)
    if variant is not None:
        raise InvalidArguments(
            "`model_variant` says nothing without `ecosystem`.",
            hint=f"Give `ecosystem` too: one of {', '.join(ECOSYSTEMS)}.",
            details={"field": "model_variant", "value": variant},
        )
    return None


def _refuse_contradiction(model_name: str, preset: Preset, family: Family | None) -> None:
    if family is None:
        return
    architecture = ARCHITECTURES[preset.arch]
    if family.architecture.backend_arch != architecture.backend_arch:
        raise InvalidArguments(
            f"`{model_name}` is a {architecture.label} model, but `ecosystem` asks for {family.architecture.label}.",
            hint="Leave `ecosystem` out, or name a model of that ecosystem.",
            details={"field": "ecosystem", "value": family.ecosystem},
        )
    variants = variants_of(family.ecosystem)
    own = next((name for name, variant in variants.items() if variant.base_model == preset.name), family.variant)
    if own != family.variant:
        raise InvalidArguments(
            f"`{model_name}` is {family.ecosystem} {own}, but `model_variant` is {family.variant!r}.",
            hint=f"Give `{own}`.",
            details={"field": "model_variant", "value": family.variant, "closest_matches": [own]},
        )


def _about(preset: Preset) -> list[str]:
    if not preset.gated:
        return []
    instead = f" {preset.public_alternative} needs neither." if preset.public_alternative else ""
    return [
        f"{preset.name} is gated: before the start, accept its licence on its Hugging Face page and give AI Toolkit "
        f"an HF_TOKEN of that account, or the training fails while it loads the model.{instead}"
    ]


def _settings(preset: Preset | None) -> Mapping[str, Any]:
    return preset.set if preset is not None else dict[str, Any]()


def _guess(model_name: str) -> Architecture | None:
    name = model_name.lower()
    return next((ARCHITECTURES[arch] for marker, arch in _TABLE["markers"] if marker in name), None)
