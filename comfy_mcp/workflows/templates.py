"""Graphs to start from: those that the builders draw, and files in `templates/`, whose parameters say what they set.

    {"title": …, "description": …, "family": "flux",
     "parameters": {"prompt": [["3", "text"]]},
     "graph": {…}}                            or "example": the name of a file in `examples/`

The graph runs as it stands, so that a parameter's default is the value that is there. What a parameter means is said
once for all templates, in `parameters.json`.
"""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from comfy_mcp.workflows.drawn_templates import drawn_templates
from comfy_mcp.workflows.graphs import Graph
from comfy_mcp.workflows.ranges import check_parameter
from mcp_toolserver.errors import InvalidArguments, NotFound, closest, shown

Value = str | int | float | bool
_WORDS: Mapping[type, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """Describe what can be set in a template; `sets` are the inputs, as (node id, input)."""

    name: str
    description: str
    default: Value
    sets: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Template:
    """Describe a graph to start from; `graph` is shared and must not be changed."""

    name: str
    title: str
    description: str
    family: str
    parameters: tuple[Parameter, ...]
    graph: Graph


@cache
def list_templates() -> tuple[Template, ...]:
    """Return all templates by name; reads their files at the first call."""
    folder = files("comfy_mcp.workflows")
    descriptions: Mapping[str, str] = _read(folder / "parameters.json")
    found = [
        _template(entry.name.removesuffix(".json"), _read(entry), folder / "examples", descriptions)
        for entry in (folder / "templates").iterdir()
        if entry.name.endswith(".json")
    ]
    drawn = [
        Template(
            name=template.name,
            title=template.title,
            description=template.description,
            family=template.family,
            parameters=tuple(
                _parameter(parameter, places, template.graph, descriptions)
                for parameter, places in template.parameters.items()
            ),
            graph=template.graph,
        )
        for template in drawn_templates()
    ]
    return tuple(sorted((*found, *drawn), key=lambda template: template.name))


def find_template(name: str) -> Template:
    """Return the template of this name (`_` counts as `-`); raises NotFound with the closest names."""
    by_name = {template.name: template for template in list_templates()}
    found = by_name.get(name.removesuffix(".json").replace("_", "-"))
    if found is not None:
        return found
    matches = closest(name, by_name)
    raise NotFound(
        f"There is no workflow `{name}`.",
        hint=f"{f'Did you mean `{matches[0]}`? ' if matches else ''}`list-workflows` names them all.",
        details={"name": name, "closest_matches": matches},
    )


def get_template(name: str, parameters: Mapping[str, Any] | None = None) -> Graph:
    """Return the graph of a template with the given parameters set.

    Raises NotFound for an unknown name, and InvalidArguments for an unknown parameter, a value of another type, or
    one out of its bounds.
    """
    template = find_template(name)
    known = {parameter.name: parameter for parameter in template.parameters}
    graph = copy.deepcopy(template.graph)
    for given, value in (parameters or {}).items():
        parameter = known.get(given)
        if parameter is None:
            raise _unknown_parameter(template, given, known)
        checked = _typed(parameter, value)
        if not isinstance(checked, str):
            check_parameter(given, checked)
        for node_id, field in parameter.sets:
            graph[node_id]["inputs"][field] = checked
    return graph


def _unknown_parameter(template: Template, given: str, known: Mapping[str, Parameter]) -> InvalidArguments:
    matches = closest(given, known)
    cure = f"Did you mean `{matches[0]}`? " if matches else ""
    return InvalidArguments(
        f"The workflow `{template.name}` has no parameter `{given}`.",
        hint=f"{cure}It has {', '.join(known)}.",
        details={"field": f"parameters.{given}", "closest_matches": matches, "parameters": list(known)},
    )


def _typed(parameter: Parameter, value: Any) -> Value:
    """Return the value as the type of its default, read as leniently as the arguments of tools are: "64" is 64."""
    kind = type(parameter.default)
    # `bool` is an `int` to Python, and never a number of steps to a caller.
    if isinstance(value, bool) is (kind is bool):
        try:
            return TypeAdapter(kind).validate_python(value)
        except ValidationError:
            pass
    raise InvalidArguments(
        f"Parameter `{parameter.name}` is {shown(value)}; it takes {_WORDS[kind]}.",
        hint=f"Its default is {parameter.default!r}.",
        details={"field": f"parameters.{parameter.name}", "default": parameter.default},
    )


def _template(
    name: str, document: Mapping[str, Any], examples: Traversable, descriptions: Mapping[str, str]
) -> Template:
    graph: Graph = _read(examples / document["example"]) if "example" in document else document["graph"]
    return Template(
        name=name,
        title=document["title"],
        description=document["description"],
        family=document["family"],
        parameters=tuple(
            _parameter(parameter, sets, graph, descriptions) for parameter, sets in document["parameters"].items()
        ),
        graph=graph,
    )


def _parameter(name: str, sets: Iterable[Sequence[str]], graph: Graph, descriptions: Mapping[str, str]) -> Parameter:
    places = tuple((node_id, field) for node_id, field in sets)
    node_id, field = places[0]
    return Parameter(name=name, description=descriptions[name], default=graph[node_id]["inputs"][field], sets=places)


def _read(entry: Traversable) -> Any:
    return json.loads(entry.read_text(encoding="utf-8"))
