"""The shape of one row in the table of node classes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from comfy_mcp.embedded.folders import Folders
from comfy_mcp.embedded.nodes.models import LoadedModels

Choices = Callable[[Folders], list[str]]


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a node class.

    `type` is the wire's word (`INT`, `MODEL`, ...); `choices` makes it a COMBO, listed anew at every question;
    `check` replaces the COMBO's own check and returns what is wrong with a value, or None.
    """

    name: str
    type: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    choices: Choices | None = None
    required: bool = True
    check: Callable[[Folders, Any], str | None] | None = None

    @property
    def is_value(self) -> bool:
        """Whether the graph holds the value itself; what nodes make for each other arrives by a link."""
        return self.type in {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}

    def config(self, folders: Folders) -> list[Any]:
        """Return the pair by which the protocol describes an input: its type or its options, and its settings."""
        kind = self.type if self.choices is None else self.choices(folders)
        return [kind, dict(self.options)]


@dataclass(frozen=True, slots=True)
class Output:
    """One output slot of a node class."""

    type: str
    name: str
    tooltip: str = ""


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What a node made: a value per output slot, and what an output node shows (`ui`)."""

    values: tuple[Any, ...] = ()
    ui: Mapping[str, list[Any]] | None = None


class Interrupted(Exception):
    """Stop a run because somebody asked for it."""


class Run(Protocol):
    """What a node may use while it works."""

    @property
    def folders(self) -> Folders:
        """Where files are read and written."""
        ...

    @property
    def models(self) -> LoadedModels:
        """The model files that are in memory."""
        ...

    @property
    def png_texts(self) -> Mapping[str, Any]:
        """What saved pictures carry: the graph as `prompt`, and the client's own entries such as `workflow`."""
        ...

    def step(self, done: int, total: int, preview: Callable[[], bytes]) -> None:
        """Report progress and, where previews are wanted, a JPEG; raises Interrupted when the run shall end."""
        ...


@dataclass(frozen=True, slots=True)
class NodeDefinition:
    """One node class: what it takes and gives, and the function that does it.

    `run(run, **inputs) -> NodeResult` is called with the inputs that the graph gives, and no others.
    `fingerprint(folders, inputs)` names the state of the files that the node reads: a changed file is read anew.
    """

    class_type: str
    display_name: str
    category: str
    description: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    run: Callable[..., NodeResult]
    output_node: bool = False
    fingerprint: Callable[[Folders, Mapping[str, Any]], str] | None = None
    hidden: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def output_types(self) -> list[str]:
        """The type of each output slot."""
        return [output.type for output in self.outputs]

    def describe(self, folders: Folders) -> dict[str, Any]:
        """Return this class as /object_info answers it."""
        groups: dict[str, dict[str, Any]] = {"required": {}}
        for item in self.inputs:
            config = item.config(folders)
            groups.setdefault("required" if item.required else "optional", {})[item.name] = (
                config if config[1] else config[:1]
            )
        if self.hidden:
            groups["hidden"] = dict(self.hidden)
        return {
            "input": groups,
            "input_order": {group: list(names) for group, names in groups.items()},
            "is_input_list": False,
            "output": self.output_types,
            "output_is_list": [False for _ in self.outputs],
            "output_name": [output.name for output in self.outputs],
            "name": self.class_type,
            "display_name": self.display_name,
            "description": self.description,
            "python_module": "comfy_mcp.embedded.nodes",
            "category": self.category,
            "output_node": self.output_node,
            "has_intermediate_output": False,
            "output_tooltips": [output.tooltip for output in self.outputs],
        }
