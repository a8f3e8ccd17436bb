"""The inputs of a graph's nodes: each that is required, no strange ones, and links or values where they belong."""

from collections.abc import Iterator, Mapping
from typing import Any

from comfy_mcp.workflows.check_links import gives, link_problem
from comfy_mcp.workflows.check_values import value_problem
from comfy_mcp.workflows.graphs import inputs_of, is_list, is_object, link_of, wrapped_list
from comfy_mcp.workflows.problems import Problem, problem_at
from comfy_mcp.workflows.specs import ANY, InputSpec, NodeSpec
from mcp_toolserver.errors import closest, shown


def input_problems(graph: Mapping[str, Any], specs: Mapping[str, NodeSpec]) -> list[Problem]:
    """Return what is wrong with the inputs of every node whose class is known."""
    return [problem for node_id, spec in specs.items() for problem in _of_node(graph, node_id, spec, specs)]


def _of_node(
    graph: Mapping[str, Any], node_id: str, spec: NodeSpec, specs: Mapping[str, NodeSpec]
) -> Iterator[Problem]:
    node = graph[node_id]
    if not is_object(node.get("inputs")):
        yield problem_at(node_id, node, "missing_inputs", "`inputs` is missing; it must be an object, if an empty one.")
        return
    inputs = inputs_of(node)
    unknown = [name for name in inputs if spec.takes(name) is None and not spec.grows_to(name)]
    for wanted in spec.inputs.values():
        if wanted.required and wanted.name not in inputs:
            yield _missing(graph, node_id, wanted, specs, unknown)
    for name in unknown:
        unused = [other for other in spec.inputs if other not in inputs]
        matches = closest(name, unused)
        cure = f" Did you mean `{matches[0]}`?" if matches else ""
        yield problem_at(
            node_id,
            node,
            "unknown_input",
            f"there is no input `{name}`; ComfyUI ignores it.{cure}",
            field=name,
            severity="warning",
            matches=matches,
        )
    for name, value in inputs.items():
        wanted = spec.takes(name)
        if wanted is None:
            continue
        problem = _of_value(graph, node_id, wanted, value, specs)
        if problem is not None:
            yield problem


def _of_value(
    graph: Mapping[str, Any], node_id: str, wanted: InputSpec, value: Any, specs: Mapping[str, NodeSpec]
) -> Problem | None:
    node = graph[node_id]
    if value is None:
        return problem_at(
            node_id,
            node,
            "null_input",
            f"`{wanted.name}` is null. {_cure(node_id, wanted, specs)}",
            field=wanted.name,
            matches=gives(specs, wanted.type, to=node_id),
        )
    if is_list(value):
        return link_problem(graph, node_id, wanted, value, specs)
    if wanted.is_value:
        return value_problem(node_id, node, wanted, value)
    items = wrapped_list(value)
    if items is not None and link_of(items) is not None:
        # Where an input takes no value of its own, ComfyUI unwraps the list and then follows it as a link.
        return link_problem(graph, node_id, wanted, items, specs)
    if wanted.type == ANY or wanted.grows or items is not None:
        return None
    return problem_at(
        node_id,
        node,
        "not_a_link",
        f"`{wanted.name}` is {shown(value)}; it takes a link to a {wanted.type}, as [node id, output slot]. "
        f"{_cure(node_id, wanted, specs)}",
        field=wanted.name,
        matches=gives(specs, wanted.type, to=node_id),
    )


def _missing(
    graph: Mapping[str, Any], node_id: str, wanted: InputSpec, specs: Mapping[str, NodeSpec], unknown: list[str]
) -> Problem:
    misspelt = closest(wanted.name, unknown, limit=1)
    cure = f"`{misspelt[0]}` is there instead: rename it." if misspelt else _cure(node_id, wanted, specs)
    return problem_at(
        node_id,
        graph[node_id],
        "required_input_missing",
        f"required input `{wanted.name}` ({wanted.type}) is missing. {cure}",
        field=wanted.name,
        matches=[] if wanted.is_value else gives(specs, wanted.type, to=node_id),
    )


def _cure(node_id: str, wanted: InputSpec, specs: Mapping[str, NodeSpec]) -> str:
    """Say what belongs there: a value, or a link to a node that is there already."""
    if wanted.is_value:
        default = wanted.settings.get("default")
        return "Give it a value." if default is None else f"Its default is {default!r}."
    if wanted.type == "CONDITIONING" and wanted.name == "negative":
        return "Link it to a CLIPTextEncode with an empty text: where nothing is unwanted, ComfyUI still needs a node."
    sources = gives(specs, wanted.type, to=node_id)
    if not sources:
        return f"No node of this graph gives a {wanted.type}; add one that does."
    return f"A {wanted.type} comes from {', '.join(sources)}."
