"""The values that are written into a graph: numbers in their bounds, choices in their lists."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from comfy_mcp.workflows.graphs import is_list, is_object, wrapped_list
from comfy_mcp.workflows.problems import Problem, problem_at
from comfy_mcp.workflows.specs import COMBO, InputSpec
from mcp_toolserver.errors import closest, shown

_MATCHES = 3
_SHOWN_OPTIONS = 8


def value_problem(node_id: str, node: object, wanted: InputSpec, value: Any) -> Problem | None:
    """Return what is wrong with a plain value of an input, if anything; a list comes wrapped."""
    items = wrapped_list(value)
    if items is not None:
        value = items
    if wanted.type == COMBO:
        return _choice_problem(node_id, node, wanted, value)
    if wanted.type in {"INT", "FLOAT"}:
        return _number_problem(node_id, node, wanted, value)
    return _text_problem(node_id, node, wanted, value) if wanted.type == "STRING" else None


def _text_problem(node_id: str, node: object, wanted: InputSpec, value: Any) -> Problem | None:
    text = str(value)
    if wanted.name == "filename_prefix" and _escapes(text):
        return problem_at(
            node_id,
            node,
            "path_outside_folder",
            f"`{wanted.name}` is {shown(value)}; ComfyUI saves inside its output folder alone. "
            "Give a name, or folder/name.",
            field=wanted.name,
        )
    if not is_object(value) and not is_list(value):
        return None
    return problem_at(
        node_id,
        node,
        "text_as_other_type",
        f"`{wanted.name}` is {'a list' if is_list(value) else 'an object'}; ComfyUI reads it as the text "
        f"{shown(text)}. Write the text.",
        field=wanted.name,
        severity="warning",
    )


def _choice_problem(node_id: str, node: object, wanted: InputSpec, value: Any) -> Problem | None:
    if isinstance(value, str) and wanted.settings.get("image_upload"):
        if _escapes(value):
            return problem_at(
                node_id,
                node,
                "path_outside_folder",
                f"`{wanted.name}` is {shown(value)}; an image is read from ComfyUI's own folders alone.",
                field=wanted.name,
            )
        # The list names only what lies directly in the input folder; these two forms are read all the same.
        if "/" in value or re.search(r" \[(input|output|temp)\]$", value):
            return None
    if wanted.options is None or value in wanted.options:
        return None
    if is_list(value) and wanted.settings.get("multiselect"):
        value = next((item for item in value if item not in wanted.options), None)
        if value is None:
            return None
    options = [str(option) for option in wanted.options]
    reason, matches = likely(str(value), options)
    return problem_at(
        node_id,
        node,
        "value_not_in_list",
        f"`{wanted.name}` is {shown(value)}, which is not in the server's list. {_remedy(reason, matches, options)}",
        field=wanted.name,
        matches=matches,
    )


def likely(value: str, options: Iterable[str]) -> tuple[str, list[str]]:
    """Return why a value may have missed the list, in words, and the options that may be meant, best first."""
    known = list(options)
    slashes = value.replace("\\", "/").removeprefix("./")
    tests: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("It is there with other separators:", lambda option: option.replace("\\", "/") == slashes),
        ("It is there in other letter case:", lambda option: _plain(option) == _plain(slashes)),
        ("It is there in a folder:", lambda option: _plain(option).endswith("/" + _plain(slashes))),
        ("It is there in another folder:", lambda option: _file_name(option) == _file_name(slashes)),
        ("It is there with its ending:", lambda option: _stem(option) == _stem(slashes)),
    )
    if slashes:
        for reason, matches_option in tests:
            found = [option for option in known if matches_option(option)]
            if found:
                return reason, found[:_MATCHES]
    found = closest(value, known, limit=_MATCHES)
    return ("Did you mean" if found else ""), found


def _remedy(reason: str, matches: list[str], options: list[str]) -> str:
    if matches:
        named = ", ".join(f"`{match}`" for match in matches)
        return f"{reason} {named}?" if reason == "Did you mean" else f"{reason} {named}."
    if not options:
        return "The list is empty: the server has no such file."
    more = "" if len(options) <= _SHOWN_OPTIONS else f" and {len(options) - _SHOWN_OPTIONS} more"
    return f"It has {', '.join(f'`{option}`' for option in options[:_SHOWN_OPTIONS])}{more}."


def _number_problem(node_id: str, node: object, wanted: InputSpec, value: Any) -> Problem | None:
    is_text = isinstance(value, str)
    try:
        number = float(value) if wanted.type == "FLOAT" or not is_text else int(value)
        exact = int(value) if isinstance(value, int) else number
    except (TypeError, ValueError, OverflowError):
        return problem_at(
            node_id,
            node,
            "invalid_input_type",
            f"`{wanted.name}` is {shown(value)}; it takes {'a whole number' if wanted.type == 'INT' else 'a number'}.",
            field=wanted.name,
        )
    if not math.isfinite(exact):
        return problem_at(
            node_id,
            node,
            "not_a_number",
            f"`{wanted.name}` is {shown(value)}; ComfyUI lets that pass and the picture comes out empty.",
            field=wanted.name,
        )
    if wanted.type == "INT" and exact != int(exact):
        return problem_at(
            node_id,
            node,
            "not_an_integer",
            f"`{wanted.name}` is {shown(value)}; it takes a whole number, and ComfyUI would cut it to {int(exact)}.",
            field=wanted.name,
            matches=[str(round(exact))],
        )
    outside = _outside(node_id, node, wanted, exact)
    if outside is not None:
        return outside
    if is_text or isinstance(value, bool):
        return problem_at(
            node_id,
            node,
            "number_as_other_type",
            f"`{wanted.name}` is {shown(value)}; ComfyUI reads it as {exact}. Write the number.",
            field=wanted.name,
            severity="warning",
            matches=[str(exact)],
        )
    return _off_step(node_id, node, wanted, exact)


def _outside(node_id: str, node: object, wanted: InputSpec, number: float) -> Problem | None:
    low, high = wanted.bound("min"), wanted.bound("max")
    if low is not None and number < low:
        return problem_at(
            node_id,
            node,
            "value_smaller_than_min",
            f"`{wanted.name}` is {number}; the least is {low}.",
            field=wanted.name,
            matches=[str(low)],
        )
    if high is not None and number > high:
        return problem_at(
            node_id,
            node,
            "value_bigger_than_max",
            f"`{wanted.name}` is {number}; the most is {high}.",
            field=wanted.name,
            matches=[str(high)],
        )
    return None


def _off_step(node_id: str, node: object, wanted: InputSpec, number: float) -> Problem | None:
    step, low = wanted.bound("step"), wanted.bound("min") or 0
    if wanted.type != "INT" or step is None or step <= 1 or (number - low) % step == 0:
        return None
    nearest = int(low + round((number - low) / step) * step)
    return problem_at(
        node_id,
        node,
        "not_a_multiple",
        f"`{wanted.name}` is {number}; the server counts it in steps of {step}, and the result may be cut.",
        field=wanted.name,
        severity="warning",
        matches=[str(nearest)],
    )


def _escapes(path: str) -> bool:
    parts = path.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", path) is not None


def _plain(name: str) -> str:
    return name.replace("\\", "/").lower()


def _file_name(name: str) -> str:
    return _plain(name).rsplit("/", 1)[-1]


def _stem(name: str) -> str:
    return re.sub(r"\.(safetensors|sft|ckpt|pt|pth|bin|gguf)$", "", _file_name(name))
