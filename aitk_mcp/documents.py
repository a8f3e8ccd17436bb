"""Read AI Toolkit's config document: its placeholders, and the facts that running and following a job needs."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import yaml

_VARIABLE = re.compile(r"\$\{([^}]+)\}")
# YAML 1.1 reads 1e-4 as text, because it has no point; AI Toolkit reads it as a number.
_BARE_EXPONENT = re.compile(r"^[-+]?\d+[eE][-+]?\d+$")


class BadDocument(ValueError):
    """Say why a text is no config document that AI Toolkit would run."""


class _Loader(yaml.SafeLoader):
    """Read YAML as AI Toolkit does."""


# PyYAML's stubs leave this method untyped.
cast(Any, _Loader).add_implicit_resolver("tag:yaml.org,2002:float", _BARE_EXPONENT, list("-+0123456789"))


@dataclass(frozen=True)
class TrainingDocument:
    """A config document with its placeholders filled in."""

    name: str
    process: Mapping[str, Any]
    meta: Mapping[str, Any]
    raw: Mapping[str, Any]

    def block(self, name: str) -> Mapping[str, Any]:
        """Return a block of the process (`train`, `model`, ...), empty where there is none."""
        return mapping_of(self.process.get(name))

    @property
    def training_folder(self) -> str:
        """Return the folder that the job's own folder lies in, absolute or relative to the trainer's working folder."""
        return str(self.process.get("training_folder") or "output")

    @property
    def steps(self) -> int:
        """Return the number of steps; 1000 is AI Toolkit's default."""
        return int(self.block("train").get("steps", 1000))

    @property
    def architecture(self) -> str:
        """Return `model.arch` without its tag; empty where the document has none."""
        return str(self.block("model").get("arch") or "").split(":", 1)[0]

    @property
    def trigger_word(self) -> str | None:
        """Return the trigger word, or None."""
        return str(self.process["trigger_word"]) if self.process.get("trigger_word") else None

    @property
    def datasets(self) -> tuple[Mapping[str, Any], ...]:
        """Return the blocks of the datasets."""
        return tuple(mapping_of(entry) for entry in list_of(self.process.get("datasets")))

    @property
    def dataset_paths(self) -> tuple[str, ...]:
        """Return where the images of each dataset are."""
        return tuple(dataset_path(dataset) for dataset in self.datasets)

    @property
    def prompts(self) -> tuple[str, ...]:
        """Return the prompts that are drawn, in either form that AI Toolkit takes, with the trigger word filled in."""
        if self.block("train").get("disable_sampling"):
            return ()
        sample = self.block("sample")
        entries = sample.get("samples")
        if entries is None:
            entries = [{"prompt": prompt} for prompt in list_of(sample.get("prompts"))]
        prompts = (mapping_of(entry).get("prompt") for entry in list_of(entries))
        return tuple(str(prompt).replace("[trigger]", self.trigger_word or "") for prompt in prompts if prompt)


def dataset_path(dataset: Mapping[str, Any]) -> str:
    """Return where a dataset's images (a folder) or captions (a JSON file) are."""
    return str(dataset.get("dataset_path") or dataset.get("folder_path") or "")


def read_text(text: str, *, is_json: bool, environment: Mapping[str, str], name: str | None = None) -> TrainingDocument:
    """Read a document from its text; raises BadDocument for what AI Toolkit would refuse."""
    filled = _VARIABLE.sub(lambda match: _variable(match[1], environment), text)
    try:
        # _Loader is a SafeLoader.
        loaded = json.loads(filled) if is_json else yaml.load(filled, Loader=_Loader)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise BadDocument(f"the config file is not valid {'JSON' if is_json else 'YAML'}: {error}") from error
    return read_document(loaded, name=name)


def read_document(document: object, *, name: str | None = None) -> TrainingDocument:
    """Read a loaded document; `name` is what `[name]` stands for where the document names no job itself."""
    raw = mapping_of(document)
    for key, form in (("job", "key"), ("config", "section")):
        if key not in raw:
            raise BadDocument(f"config file must have a {key} {form}")
    tag = name or mapping_of(raw["config"]).get("name")
    if not tag:
        raise BadDocument("config file must have a config.name key")
    filled = mapping_of(_fill(raw, str(tag)))
    config = mapping_of(filled["config"])
    processes = list_of(config.get("process"))
    if not processes or not mapping_of(processes[0]):
        raise BadDocument("config file must have a config.process list with one process")
    return TrainingDocument(
        name=str(config.get("name") or tag),
        process=mapping_of(processes[0]),
        meta=mapping_of(filled.get("meta")),
        raw=filled,
    )


def mapping_of(value: object) -> Mapping[str, Any]:
    """Return a value as a mapping, empty where it is none."""
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}


def list_of(value: object) -> Sequence[Any]:
    """Return a value as a list, empty where it is none."""
    return cast(Sequence[Any], value) if isinstance(value, list | tuple) else []


def _fill(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value.replace("[name]", name)
    if isinstance(value, Mapping):
        return {key: _fill(entry, name) for key, entry in cast(Mapping[str, Any], value).items()}
    if isinstance(value, list):
        return [_fill(entry, name) for entry in cast(list[Any], value)]
    return value


def _variable(name: str, environment: Mapping[str, str]) -> str:
    if name not in environment:
        raise BadDocument(f"Environment variable {name} not set. Set it where the trainer runs.")
    return environment[name]
