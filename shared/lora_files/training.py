"""What the trainer wrote into a file: software, steps, base model, tags and trigger words.

Sources: AI Toolkit's `training_info`, `software` and `ss_*`; sd-scripts' `ss_*`; the `modelspec.*` standard;
OneTrainer's `ot_*`. Everything is text that somebody typed: what cannot be read is left out, never guessed.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard, cast

from pydantic import BaseModel, ConfigDict, Field

_MOST_TAGS = 30
_MOST_TRIGGERS = 3
_LONGEST_TAG_WORDS = 5
# Beyond this, neither a float nor another program's JSON holds a whole number exactly.
_MOST = 2**53
_REPEATS = re.compile(r"^\d+_")


class Training(BaseModel):
    """How the LoRA was trained, as far as its file tells."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    software: str | None = Field(default=None, description="Trainer and its version.")
    steps: int | None = Field(default=None, description="Steps done when this file was saved.")
    epoch: int | None = Field(default=None, description="Epochs done when this file was saved.")
    images: int | None = Field(default=None, description="Pictures in the dataset.")
    resolution: str | None = Field(default=None, description="Training resolution, as the trainer wrote it.")
    learning_rate: float | None = Field(default=None, description="Learning rate at the start.")
    optimizer: str | None = Field(default=None, description="Optimizer, as the trainer wrote it.")
    base_model_name: str | None = Field(default=None, description="File or name of the model that was trained on.")
    output_name: str | None = Field(default=None, description="Name of the training job or output.")
    date: str | None = Field(default=None, description="When it was made, as the file tells.")


def training_of(metadata: Mapping[str, str]) -> Training:
    """Collect what the metadata says of the training."""
    info = as_object(metadata.get("training_info"))
    return Training(
        software=_software(metadata),
        steps=_whole(_first(info.get("step"), metadata.get("ss_steps"), metadata.get("ss_max_train_steps"))),
        epoch=_whole(_first(info.get("epoch"), metadata.get("ss_epoch"), metadata.get("ss_num_epochs"))),
        images=_whole(metadata.get("ss_num_train_images")),
        resolution=_said(metadata, "ss_resolution", "modelspec.resolution"),
        learning_rate=_number(_first(metadata.get("ss_learning_rate"), metadata.get("ss_unet_lr"))),
        optimizer=_said(metadata, "ss_optimizer"),
        base_model_name=_said(metadata, "ss_sd_model_name", "ss_base_model"),
        output_name=_said(metadata, "ss_output_name", "modelspec.title", "name"),
        date=_said(metadata, "modelspec.date", "ss_training_started_at"),
    )


def trigger_words_of(metadata: Mapping[str, str]) -> list[str]:
    """Return the words that call the LoRA's subject: those said outright, else tags that stand at every picture."""
    said = _said(metadata, "modelspec.trigger_phrase", "trigger_phrase", "trigger_words", "trigger_word")
    if said:
        return unique(split_words(said))
    triggers: list[str] = []
    sizes = _images_by_folder(metadata)
    for folder, tags in tags_by_folder(metadata).items():
        if not tags:
            continue
        everywhere = max(sizes.get(folder, 0), *tags.values())
        # Trainers keep the order of the captions, and a trigger word comes first there.
        triggers += [tag for tag, count in tags.items() if count >= everywhere and _is_tag(tag)][:_MOST_TRIGGERS]
    return unique(triggers)[:_MOST_TRIGGERS]


def tags_of(metadata: Mapping[str, str]) -> dict[str, int]:
    """Return the most frequent caption tags with their counts, at most 30."""
    counts: Counter[str] = Counter()
    for tags in tags_by_folder(metadata).values():
        counts.update({tag: count for tag, count in tags.items() if _is_tag(tag)})
    return dict(counts.most_common(_MOST_TAGS))


def tags_by_folder(metadata: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return `ss_tag_frequency` as {dataset folder: {tag: pictures}}; entries of another form are left out."""
    folders: dict[str, dict[str, int]] = {}
    for folder, tags in as_object(metadata.get("ss_tag_frequency")).items():
        if isinstance(tags, dict):
            counts = cast(dict[str, Any], tags)
            folders[folder] = {tag.strip(): n for tag, n in counts.items() if _is_count(n) and tag.strip()}
    return folders


def as_object(text: str | None) -> dict[str, Any]:
    """Return the JSON object in a metadata value; an empty one where it holds none."""
    try:
        value: Any = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def split_words(text: str) -> list[str]:
    """Split a list of words as people write it: by comma, semicolon or line, or as JSON."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list):
        return [word.strip() for word in cast(list[Any], value) if isinstance(word, str) and word.strip()]
    return [word.strip() for word in re.split(r"[,;\n]", text) if word.strip()]


def unique(words: Iterable[str]) -> list[str]:
    """Return the words in their order, each once."""
    return list(dict.fromkeys(words))


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 < value < _MOST


def _is_tag(tag: str) -> bool:
    return len(tag.split()) <= _LONGEST_TAG_WORDS


def _images_by_folder(metadata: Mapping[str, str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for folder, entry in as_object(metadata.get("ss_dataset_dirs")).items():
        count = cast(dict[str, Any], entry).get("img_count") if isinstance(entry, dict) else None
        if _is_count(count):
            sizes[folder] = count
    return sizes


def _software(metadata: Mapping[str, str]) -> str | None:
    said = metadata.get("software")
    if said:
        parts = as_object(said)
        named = " ".join(str(parts[name]) for name in ("name", "version") if parts.get(name))
        return named or said
    if metadata.get("modelspec.implementation"):
        return metadata["modelspec.implementation"]
    if any(name.startswith("ot_") for name in metadata):
        return "OneTrainer"
    commit = metadata.get("ss_sd_scripts_commit_hash", "")
    if commit or "ss_network_module" in metadata:
        return f"sd-scripts {commit[:7]}".strip()
    return None


def _said(metadata: Mapping[str, str], *names: str) -> str | None:
    # sd-scripts writes the word None for what was not set.
    return next((metadata[name].strip() for name in names if metadata.get(name, "").strip() not in ("", "None")), None)


def _first(*values: Any) -> Any:
    return next((value for value in values if value not in (None, "", "None")), None)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < _MOST else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None
