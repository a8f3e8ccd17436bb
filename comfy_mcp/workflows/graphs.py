"""The parts of an API-format graph: nodes by id, each with a class and inputs that hold values or links."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

Graph = dict[str, dict[str, Any]]
_WRAPPER = "__value__"


class Link(NamedTuple):
    """Name an output of another node: its id, and the slot counted from 0."""

    node_id: str
    slot: int

    def as_input(self) -> list[Any]:
        """Return the two-item list that ComfyUI reads as a link."""
        return [self.node_id, self.slot]


def is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Tell whether a JSON value is an object."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Tell whether a JSON value is a list; as an input, ComfyUI takes every list for a link."""
    return isinstance(value, list)


def is_wrapped(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Tell whether a value stands inside `{"__value__": …}`, which keeps a list from being taken for a link."""
    return is_object(value) and _WRAPPER in value


def wrapped(value: list[Any]) -> dict[str, Any]:
    """Return a list as the value of an input."""
    return {_WRAPPER: value}


def wrapped_list(value: object) -> list[Any] | None:
    """Return the list that an input has for its value, or None where that is something else, such as a link."""
    inner = value[_WRAPPER] if is_wrapped(value) else None
    return inner if is_list(inner) else None


def link_of(value: object) -> Link | None:
    """Return the link that an input's value is, or None for plain values and malformed links."""
    if not is_list(value) or len(value) != 2:
        return None
    node_id, slot = value
    if not isinstance(node_id, str) or not isinstance(slot, int) or isinstance(slot, bool):
        return None
    return Link(node_id, slot)


def inputs_of(node: object) -> Mapping[str, Any]:
    """Return the inputs of a node, or nothing where it has none that can be read.

    Values come as ComfyUI reads them, without the object `{"__value__": …}` around them; only a list keeps it, since a
    bare one is a link.
    """
    inputs = node.get("inputs") if is_object(node) else None
    if not is_object(inputs):
        return {}
    if not any(is_wrapped(value) for value in inputs.values()):
        return inputs
    return {
        name: value[_WRAPPER] if is_wrapped(value) and not is_list(value[_WRAPPER]) else value
        for name, value in inputs.items()
    }


def class_of(node: object) -> str:
    """Return the class name of a node, or an empty string where it has none."""
    name = node.get("class_type") if is_object(node) else None
    return name if isinstance(name, str) else ""
