"""The model files that a graph names: which there are, and those that no loader can read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from comfy_mcp.workflows.check_families import lora_uses
from comfy_mcp.workflows.graphs import class_of, inputs_of, is_object
from comfy_mcp.workflows.problems import Problem, problem_at
from comfy_mcp.workflows.specs import ObjectInfo, spec_of

_CHECKPOINTS = frozenset({"checkpoints", "diffusion_models"})
_LORAS = "loras"
# The inputs under which loaders take files, and the kinds of files that they take.
_KINDS: Mapping[str, str] = {
    "lora_name": _LORAS,
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "vae_name": "vae",
    "clip_name": "text_encoders",
    **{f"clip_name{number}": "text_encoders" for number in range(1, 5)},
    "control_net_name": "controlnet",
    "model_name": "upscale_models",
}


class NamedFile(NamedTuple):
    """Name a file of one kind, as its loader's list has it."""

    kind: str
    name: str


@dataclass(frozen=True, kw_only=True)
class NamedModels:
    """Name the model files that a graph loads, as far as the server has them; `uses` pairs LoRAs with checkpoints."""

    files: frozenset[NamedFile]
    uses: frozenset[tuple[str, str]]

    @property
    def loras(self) -> frozenset[str]:
        """Return the names of the LoRAs."""
        return frozenset(file.name for file in self.files if file.kind == _LORAS)

    @property
    def checkpoints(self) -> frozenset[str]:
        """Return the names of the checkpoints and diffusion models."""
        return frozenset(file.name for file in self.files if file.kind in _CHECKPOINTS)


def named_models(graph: object, object_info: ObjectInfo) -> NamedModels:
    """Return the files that a graph names and that the loaders' lists have, for their headers to be looked up."""
    if not is_object(graph):
        return NamedModels(files=frozenset(), uses=frozenset())
    files = frozenset(file for node in graph.values() for _, file in _files(node, object_info))
    names = {file.name for file in files}
    uses = frozenset(use for use in lora_uses(graph) if names.issuperset(use))
    return NamedModels(files=files, uses=uses)


def unreadable_problems(
    graph: Mapping[str, Any], object_info: ObjectInfo, unreadable: Mapping[NamedFile, str]
) -> Iterator[Problem]:
    """Yield the files that a graph loads and that no loader can read; `unreadable` says why."""
    for node_id, node in graph.items() if unreadable else ():
        for field, file in _files(node, object_info):
            if file in unreadable:
                fault = f"`{field}` is {file.name!r}, which cannot be loaded. {unreadable[file]}"
                yield problem_at(node_id, node, "model_unreadable", fault, field=field)


def _files(node: object, object_info: ObjectInfo) -> Iterator[tuple[str, NamedFile]]:
    named = {field: value for field, value in inputs_of(node).items() if field in _KINDS and isinstance(value, str)}
    spec = spec_of(object_info, class_of(node)) if named else None
    for field, name in named.items() if spec else ():
        listed = spec.takes(field) if spec else None
        if listed is not None and name in (listed.options or ()):
            yield field, NamedFile(_KINDS[field], name)
