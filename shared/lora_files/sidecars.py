"""What other tools wrote beside a LoRA file: trigger words, a strength, the base model.

`<stem>.civitai.info` is that of Civitai Helper, `<stem>.metadata.json` that of LoRA Manager, `<stem>.json` that of
Stable Diffusion WebUI.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from lora_files.training import split_words, unique

SIDECAR_SUFFIXES = (".civitai.info", ".metadata.json", ".json")
_WORDS = ("trigger_words", "trigger_word", "trigger_phrase", "trainedWords", "activation text")
_STRENGTHS = ("preferred weight", "suggested_strength", "strength")
_BASE_MODELS = ("baseModel", "base_model", "sd version")


@dataclass(frozen=True, slots=True)
class Said:
    """What a side-car says of a LoRA; empty where it says nothing."""

    trigger_words: tuple[str, ...] = ()
    strength: float | None = None
    base_model: str | None = None


def said_in(value: Mapping[str, Any]) -> Said:
    """Collect what a side-car's object says; LoRA Manager keeps the site's own object inside it, under `civitai`."""
    inner = value.get("civitai")
    places = [value, cast(Mapping[str, Any], inner)] if isinstance(inner, Mapping) else [value]
    return Said(
        trigger_words=next((words for place in places for name in _WORDS if (words := _words(place.get(name)))), ()),
        strength=next((n for place in places for name in _STRENGTHS if (n := _strength(place.get(name)))), None),
        base_model=next((text for place in places for name in _BASE_MODELS if (text := _text(place.get(name)))), None),
    )


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(unique(split_words(value)))
    if isinstance(value, list):
        texts = [each for each in cast(list[Any], value) if isinstance(each, str)]
        return tuple(unique(word for text in texts for word in split_words(text)))
    return ()


def _strength(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # Zero is how the WebUI writes that nothing was chosen.
    return float(value) if 0 < value <= 2 else None


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None
