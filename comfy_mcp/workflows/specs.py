"""What a node class takes and gives, read from ComfyUI's /object_info."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfy_mcp.workflows.graphs import is_list, is_object

ObjectInfo = Mapping[str, Any]

ANY = "*"
COMBO = "COMBO"
# An input of its own value, and further ones (`name.other`) that depend on it.
_DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
_MATCH = "COMFY_MATCHTYPE_V3"
_DYNAMIC = "COMFY_"
# The types whose value is written into the graph; every other type arrives by a link.
VALUE_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", COMBO})


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Describe one input: its type, whether it must be there, and the bounds of its value.

    `options` is None for an input that is no list, and for a list that the server fills elsewhere. `grows` says that
    the server also takes inputs called `name.other`.
    """

    name: str
    type: str
    required: bool
    grows: bool
    options: tuple[Any, ...] | None
    settings: Mapping[str, Any]

    @property
    def is_value(self) -> bool:
        """Tell whether the input's value is written into the graph, and not linked."""
        return self.type in VALUE_TYPES and not self.settings.get("forceInput")

    @property
    def grows_values(self) -> bool:
        """Tell whether the server takes any number of `name.other` that are values, and not links."""
        template = self.settings.get("template")
        grown = template.get("input") if self.grows and is_object(template) else None
        return any(spec.is_value for spec in _inputs({"input": grown}))

    def brought_by(self, value: object) -> list["InputSpec"]:
        """Return the inputs, as `name.other`, that a choice of a list with inputs of its own brings."""
        listed = self.settings.get("options") if self.grows else None
        options = [option for option in _items(listed) if is_object(option) and option.get("key") == value]
        return [
            replace(spec, name=f"{self.name}.{spec.name}") for option in options for spec in _inputs(option, "inputs")
        ]

    def bound(self, which: str) -> int | float | None:
        """Return `min`, `max` or `step` where the server names one."""
        value = self.settings.get(which)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """Describe one node class: inputs by name in the server's order, output types, and whether it ends a graph."""

    class_type: str
    inputs: Mapping[str, InputSpec]
    outputs: tuple[str, ...]
    is_output: bool

    def takes(self, name: str) -> InputSpec | None:
        """Return the input of this name, if the class has one."""
        return self.inputs.get(name)

    def grows_to(self, name: str) -> bool:
        """Tell whether `name` is one of those (`owner.other`) that only the server can enumerate."""
        owner = self.inputs.get(name.split(".", maxsplit=1)[0])
        return "." in name and owner is not None and owner.grows


def spec_of(object_info: ObjectInfo, class_type: str) -> NodeSpec | None:
    """Return what the server says of a node class, or None where it has no such class."""
    entry = object_info.get(class_type)
    if not is_object(entry):
        return None
    return NodeSpec(
        class_type=class_type,
        inputs={spec.name: spec for spec in _inputs(entry)},
        outputs=tuple(_type_name(output) for output in _items(entry.get("output"))),
        is_output=entry.get("output_node") is True,
    )


def fits(given: str, wanted: str) -> bool:
    """Tell whether an output of one type may be linked to an input of another (`A,B` takes either)."""
    if ANY in {given, wanted}:
        return True
    return bool({part.strip() for part in given.split(",")} & {part.strip() for part in wanted.split(",")})


def _inputs(entry: Mapping[str, Any], under: str = "input") -> Iterator[InputSpec]:
    sections = entry.get(under)
    if not is_object(sections):
        return
    for section in ("required", "optional"):
        described = sections.get(section)
        if is_object(described):
            for name, description in described.items():
                yield _input(name, description, required=section == "required")


def _input(name: str, description: object, *, required: bool) -> InputSpec:
    """Read both forms of a list: `[[…], {}]`, and `["COMBO", {"options": […]}]`."""
    parts = _items(description)
    kind = parts[0] if parts else ANY
    settings: Mapping[str, Any] = parts[1] if len(parts) > 1 and is_object(parts[1]) else {}
    grows = isinstance(kind, str) and kind.startswith(_DYNAMIC) and kind != _MATCH
    return InputSpec(
        name=name,
        type=_type_name(kind),
        # An input that only grows others (`images` to `images.image0`) has no value under its own name.
        required=required and (not grows or kind == _DYNAMIC_COMBO),
        grows=grows,
        options=_options(kind, settings),
        settings=settings,
    )


def _options(kind: object, settings: Mapping[str, Any]) -> tuple[Any, ...] | None:
    if "remote" in settings:
        return None
    if is_list(kind):
        return tuple(kind)
    listed = settings.get("options")
    if not is_list(listed):
        return None
    if kind == _DYNAMIC_COMBO:
        return tuple(option["key"] for option in listed if is_object(option) and "key" in option)
    return tuple(listed) if kind == COMBO else None


def _type_name(kind: object) -> str:
    if is_list(kind) or kind == _DYNAMIC_COMBO:
        return COMBO
    return ANY if not isinstance(kind, str) or kind.startswith(_DYNAMIC) else kind


def _items(value: object) -> list[Any]:
    return value if is_list(value) else []
