"""PURE: which scheduler of diffusers does what a sampler and a scheduler of ComfyUI do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_mcp.workflows.families import FLUX
from mcp_toolserver.errors import closest

_CLASSES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm_2": ("KDPM2DiscreteScheduler", {}),
    "dpm_2_ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "uni_pc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
_SPACINGS: Mapping[str, Mapping[str, Any]] = {
    "normal": {"timestep_spacing": "linspace"},
    "simple": {"timestep_spacing": "trailing"},
    "sgm_uniform": {"timestep_spacing": "trailing"},
    "ddim_uniform": {"timestep_spacing": "leading"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
}
_OWN_SIGMAS = frozenset(
    {
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
    }
)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Name a scheduler class of diffusers and its settings; `class_name` None leaves that of the model.

    `sampler` and `scheduler` are what it does in ComfyUI's words.
    """

    sampler: str
    scheduler: str
    class_name: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


def sampling_of(family: str, sampler: str | None, scheduler: str | None) -> tuple[Sampling, list[str]]:
    """Return what samples for a sampler and a scheduler (None: the usual ones), and a warning for what has no equal."""
    warnings: list[str] = []
    if family == FLUX:
        # Its pipeline takes flow matching alone.
        for name, asked, only in (("sampler", sampler, "euler"), ("scheduler", scheduler, "simple")):
            if asked not in (None, only):
                warnings.append(f"`{name}` {asked} was set to {only}: the engine diffusers has no other for FLUX.")
        return Sampling("euler", "simple"), warnings
    used = sampler or "dpmpp_2m"
    if used not in _CLASSES:
        nearest = (closest(used, _CLASSES, limit=1) or ["dpmpp_2m"])[0]
        warnings.append(f"`sampler` {used} was set to {nearest}: the engine diffusers has no equal of it.")
        used = nearest
    class_name, settings = _CLASSES[used]
    spacing = scheduler or ("karras" if class_name in _OWN_SIGMAS else "normal")
    if spacing not in _SPACINGS or (spacing in ("karras", "exponential", "beta") and class_name not in _OWN_SIGMAS):
        warnings.append(f"`scheduler` {spacing} was set to normal: the engine diffusers has no equal of it for {used}.")
        spacing = "normal"
    return Sampling(used, spacing, class_name, {**settings, **_SPACINGS[spacing]}), warnings
