"""From what people call a model to the architecture and the `name_or_path` that AI Toolkit needs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from aitk_mcp.recipes.architectures import ARCHITECTURES, Architecture, read_table
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
class Ecosystem:
    """A family of models as sites name it: one architecture, or one for each variant that must then be named."""

    arch: str | None = None
    variants: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class ModelChoice:
    """The base model of a config, resolved, with what the caller should know about it."""

    architecture: Architecture
    name_or_path: str
    preset: Preset | None
    warnings: tuple[str, ...]

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
ECOSYSTEMS = TypeAdapter(dict[str, Ecosystem]).validate_python(_TABLE["ecosystems"])
OPTIMIZERS: tuple[str, ...] = tuple(_TABLE["optimizers"])
LR_SCHEDULERS: tuple[str, ...] = tuple(_TABLE["lr_schedulers"])
PRECISIONS: dict[str, str] = _TABLE["precisions"]
SECONDS_PER_STEP: dict[str, dict[str, Any]] = {row["arch"]: row for row in _TABLE["measured_seconds_per_step"]}
_AIR = re.compile(r"urn:air:(?P<ecosystem>[^:]+):(?P<rest>.+)")


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

    `ecosystem` is one of ECOSYSTEMS or an architecture id. Raises InvalidArguments when nothing tells the
    architecture, when ecosystem and model contradict each other, or when the variant is missing or not wanted.
    """
    if air := _AIR.fullmatch(model_name):
        raise InvalidArguments(
            f"`model_name` is the URN {model_name}: AI Toolkit loads a Hugging Face name or a local path.",
            hint=f"Download that model, then give its path with ecosystem `{air['ecosystem']}`.",
            details={"field": "model_name", "value": model_name},
        )
    preset = find_preset(model_name)
    warnings: list[str] = []
    if preset is not None and preset.moved_to:
        warnings.append(f"{preset.name} was removed by its owner; {preset.moved_to} is the same model.")
        preset = find_preset(preset.moved_to)
    wanted = _ecosystem_arch(ecosystem, variant) if ecosystem is not None or variant is not None else None
    if preset is not None:
        architecture = ARCHITECTURES[preset.arch]
        if wanted is not None and wanted.backend_arch != architecture.backend_arch:
            raise InvalidArguments(
                f"`{model_name}` is a {architecture.label} model, but `ecosystem` asks for {wanted.label}.",
                hint="Leave `ecosystem` out, or name a model of that ecosystem.",
                details={"field": "ecosystem", "value": ecosystem},
            )
        return ModelChoice(wanted or architecture, preset.name, preset, (*warnings, *_about(preset)))
    guessed = wanted or _guess(model_name)
    if guessed is None:
        matches = closest(model_name, [preset.name for preset in PRESETS])
        raise InvalidArguments(
            f"Nothing tells the architecture of `model_name` {model_name!r}, and AI Toolkit would take it for "
            "Stable Diffusion 1.5.",
            hint=(f"Did you mean `{matches[0]}`? " if matches else "")
            + "Otherwise say `ecosystem` (such as `flux1`, `sdxl`, `sd1` or an architecture of list-model-presets).",
            details={"field": "model_name", "value": model_name, "closest_matches": matches},
        )
    if wanted is None:
        warnings.append(f"{model_name} was taken for {guessed.label} by its name; say `ecosystem` if that is wrong.")
    return ModelChoice(guessed, model_name, None, tuple(warnings))


def _about(preset: Preset) -> list[str]:
    if not preset.gated:
        return []
    instead = f" {preset.public_alternative} needs neither." if preset.public_alternative else ""
    return [
        f"{preset.name} is gated: before the start, accept its licence on its Hugging Face page and give AI Toolkit "
        f"an HF_TOKEN of that account, or the training fails while it loads the model.{instead}"
    ]


def _ecosystem_arch(ecosystem: str | None, variant: str | None) -> Architecture:
    if ecosystem is None:
        raise InvalidArguments(
            "`model_variant` says nothing without `ecosystem`.",
            hint=f"Give `ecosystem` too: one of {', '.join(ECOSYSTEMS)}.",
            details={"field": "model_variant", "value": variant},
        )
    found = ECOSYSTEMS.get(ecosystem) or (Ecosystem(arch=ecosystem) if ecosystem in ARCHITECTURES else None)
    if found is None:
        matches = closest(ecosystem, [*ECOSYSTEMS, *ARCHITECTURES])
        raise InvalidArguments(
            f"`ecosystem` is {ecosystem!r}, which is none that AI Toolkit knows.",
            hint=(f"Did you mean `{matches[0]}`? " if matches else "")
            + f"Use {', '.join(ECOSYSTEMS)} or an architecture of list-model-presets.",
            details={"field": "ecosystem", "value": ecosystem, "closest_matches": matches},
        )
    if found.arch is not None:
        if variant is not None:
            raise InvalidArguments(
                f"`model_variant` is {variant!r}, but ecosystem `{ecosystem}` has no variants.",
                hint="Leave `model_variant` out.",
                details={"field": "model_variant", "value": variant},
            )
        return ARCHITECTURES[found.arch]
    if variant is None or variant not in found.variants:
        choices = " or ".join(f"`{name}`" for name in found.variants)
        raise InvalidArguments(
            f"`model_variant` is {variant!r}; ecosystem `{ecosystem}` needs {choices}.",
            details={"field": "model_variant", "value": variant, "closest_matches": list(found.variants)},
        )
    return ARCHITECTURES[found.variants[variant]]


def _guess(model_name: str) -> Architecture | None:
    name = model_name.lower()
    return next((ARCHITECTURES[arch] for marker, arch in _TABLE["markers"] if marker in name), None)
