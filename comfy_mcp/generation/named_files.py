"""The files that a request names beside the model: found in the server's lists, under the names that people write."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from comfy_mcp.generation.requests import ControlNetChoice, LoraChoice
from comfy_mcp.models.models import LORAS, Models, find_name
from comfy_mcp.workflows import ControlNetUse, LoraUse
from mcp_toolserver.errors import NotFound

UPSCALE_MODELS = "upscale_models"
CONTROLNETS = "controlnet"
MODEL_PATCHES = "model_patches"


@dataclass(frozen=True, kw_only=True)
class LoraFacts:
    """What the file of a LoRA tells that matters here; `text_encoder` is whether it changes one."""

    trigger_words: tuple[str, ...]
    text_encoder: bool


DescribeLora = Callable[[str], Awaitable[LoraFacts | None]]
"""Return what is known of a LoRA, by the name that its loader takes, or None where its file is out of reach."""


class NamedFiles:
    """Find the files that a request names; what was guessed or is missing is said in warnings."""

    def __init__(self, models: Models, describe_lora: DescribeLora) -> None:
        self._models = models
        self._describe_lora = describe_lora

    async def loras(self, choices: tuple[LoraChoice, ...], prompt: str) -> tuple[tuple[LoraUse, ...], list[str]]:
        """Return the LoRAs under their loader's names; raises NotFound with the closest ones."""
        names = await self._models.names(LORAS) if choices else ()
        uses: list[LoraUse] = []
        warnings: list[str] = []
        for index, choice in enumerate(choices):
            name = find_name(choice.name, names, field=f"loras.{index}.name", what="LoRA")
            if name != choice.name:
                warnings.append(f"LoRA {choice.name} was taken for `{name}`.")
            facts = await self._describe_lora(name)
            if facts is not None:
                warnings += _missing_trigger(name, facts, prompt)
            uses.append(
                LoraUse(
                    name=name,
                    strength=choice.strength,
                    strength_clip=choice.strength_clip,
                    model_only=facts is not None and not facts.text_encoder,
                )
            )
        return tuple(uses), warnings

    async def upscale_model(self, wanted: str | None) -> tuple[str | None, list[str]]:
        """Return an upscale model under its loader's name; raises NotFound with the closest ones."""
        if wanted is None:
            return None, []
        return await self._one(wanted, UPSCALE_MODELS, "upscale_model", "upscale model")

    async def controlnet(
        self, choice: ControlNetChoice | None, *, patches_model: bool
    ) -> tuple[ControlNetUse | None, list[str]]:
        """Return a ControlNet under its loader's name; raises NotFound with the closest ones."""
        if choice is None:
            return None, []
        kind = MODEL_PATCHES if patches_model else CONTROLNETS
        name, warnings = await self._one(choice.name, kind, "controlnet.name", "ControlNet")
        return ControlNetUse(
            name=name, image=choice.image, strength=choice.strength, start=choice.start, end=choice.end
        ), warnings

    async def _one(self, wanted: str, kind: str, field: str, what: str) -> tuple[str, list[str]]:
        names = await self._models.names(kind)
        if not names:
            raise NotFound(
                f"Argument `{field}` is `{wanted}`: ComfyUI has no {what} at all.",
                hint=f"Put it into ComfyUI's models/{kind} folder; `list-models` shows what it finds there.",
                details={"field": field, "value": wanted, "type": kind, "closest_matches": []},
            )
        name = find_name(wanted, names, field=field, what=what)
        return name, [f"`{field}` {wanted} was taken for `{name}`."] if name != wanted else []


def _missing_trigger(name: str, facts: LoraFacts, prompt: str) -> list[str]:
    words = [word for word in facts.trigger_words if word.strip()]
    if not words or any(word.lower() in prompt.lower() for word in words):
        return []
    return [f"The prompt lacks the trigger word of `{name}`: without `{words[0]}` it may show little effect."]
