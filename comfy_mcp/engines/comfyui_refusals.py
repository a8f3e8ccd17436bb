"""Turn what ComfyUI's validation says about a graph into errors and warnings that name the node, input and cure."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from comfy_mcp.workflows.check_values import likely
from comfy_mcp.workflows.graphs import Graph, class_of, inputs_of, is_list, is_object
from comfy_mcp.workflows.specs import NodeSpec, spec_of
from mcp_toolserver.errors import BackendRejected, InvalidArguments, ToolError, closest, shown

# The rest of ComfyUI's refusals blame the request that this package built, not the caller's graph.
_CALLERS_FAULT = frozenset({"prompt_outputs_failed_validation", "prompt_no_outputs", "missing_node_type"})


@dataclass(frozen=True, slots=True)
class NodeRefusal:
    """Name what validation has against one input of one node; `code` is ComfyUI's own word."""

    node_id: str
    class_type: str
    input: str | None
    code: str
    message: str
    closest_matches: tuple[str, ...]
    dropped_outputs: tuple[str, ...]


def read_node_errors(
    node_errors: object, object_info: Mapping[str, Any] | None = None, graph: Graph | None = None
) -> tuple[NodeRefusal, ...]:
    """Read `node_errors`; `object_info` supplies the lists that ComfyUI leaves out when they are long.

    `graph` is what was refused, for values that ComfyUI leaves out too.
    """
    found: list[NodeRefusal] = []
    for node_id, report in node_errors.items() if is_object(node_errors) else ():
        if not is_object(report):
            continue
        class_type = class_of(report)
        inputs = inputs_of((graph or {}).get(str(node_id)))
        errors = report.get("errors")
        outputs = report.get("dependent_outputs")
        dropped = tuple(str(output) for output in outputs) if is_list(outputs) else ()
        found.extend(
            _refusal(str(node_id), class_type, error, dropped, object_info or {}, inputs)
            for error in (errors if is_list(errors) else [])
            if is_object(error)
        )
    return tuple(found)


def _refusal(
    node_id: str,
    class_type: str,
    error: Mapping[str, Any],
    dropped: tuple[str, ...],
    object_info: Mapping[str, Any],
    inputs: Mapping[str, Any],
) -> NodeRefusal:
    extra = error.get("extra_info")
    facts: Mapping[str, Any] = extra if is_object(extra) else {}
    named = facts.get("input_name")
    name = named if isinstance(named, str) else None
    code = str(error.get("type", "unknown"))
    matches: tuple[str, ...] = ()
    if code == "value_not_in_list" and name is not None:
        value = facts.get("received_value")
        options = _options(name, facts.get("input_config")) or _listed(object_info, class_type, name)
        matches = tuple(closest(str(value), options))
        cure = f"did you mean {_quoted(matches)}?" if matches else _offer(options)
        # ComfyUI's own details list the whole folder: dozens of names that help nobody.
        words = f"`{name}` is {value!r}, which is not in the list; {cure}"
    elif code == "custom_validation_failed" and name is not None and name in inputs:
        # What a node checks itself, such as a picture in a sub-folder, is mostly in its list under another name.
        reason, found = likely(str(inputs[name]), _listed(object_info, class_type, name))
        matches = tuple(found)
        cure = f" {reason} {_quoted(matches)}." if matches else ""
        words = f"`{name}` is {shown(inputs[name])}: {error.get('details')}.{cure}"
    else:
        words = ": ".join(str(part) for part in (error.get("message") or code, error.get("details")) if part)
    message = f"{class_type or 'Node'} ({node_id}): {words}"
    return NodeRefusal(node_id, class_type, name, code, message, matches, dropped)


def refusal(body: object, graph: Graph, object_info: Mapping[str, Any] | None = None) -> ToolError:
    """Translate the body of a 400 from POST /prompt.

    The caller's graph is at fault: InvalidArguments with `details.problems`. Anything else: BackendRejected.
    """
    fields: Mapping[str, Any] = body if is_object(body) else {}
    reason = fields.get("error")
    error: Mapping[str, Any] = reason if is_object(reason) else {}
    code = str(error.get("type", "unknown"))
    problems = read_node_errors(fields.get("node_errors"), object_info, graph)
    words = " ".join(str(error.get(key) or "") for key in ("message", "details")).strip() or "no reason was given"
    if code not in _CALLERS_FAULT and not problems:
        # 0.3.64 has no code of its own for a node that is not installed.
        unknown = _unknown_classes(graph, object_info)
        if not unknown:
            return BackendRejected(f"ComfyUI refused the graph: {words}.", details={"backend_error": dict(error)})
        problems, code = unknown, "missing_node_type"
    elif code == "missing_node_type":
        problems = _unknown_classes(graph, object_info) or problems
    message = " ".join(f"{problem.message.rstrip('.')}." for problem in problems) or f"{words}."
    return InvalidArguments(
        f"ComfyUI refused the graph: {message}",
        hint=_cure(code),
        details={"problems": [_as_problem(problem) for problem in problems], "backend_error": code},
    )


def warnings_of(problems: Iterable[NodeRefusal]) -> tuple[str, ...]:
    """Say in words which outputs ComfyUI dropped, while it runs the others."""
    return tuple(
        f"ComfyUI dropped output node {', '.join(problem.dropped_outputs) or '(unnamed)'} and runs the others: "
        f"{problem.message}"
        for problem in problems
    )


def _options(name: str, input_config: object) -> tuple[str, ...]:
    spec = spec_of({"": {"input": {"required": {name: input_config}}}}, "")
    return _texts(spec, name)


def _listed(object_info: Mapping[str, Any], class_type: str, name: str) -> tuple[str, ...]:
    return _texts(spec_of(object_info, class_type), name)


def _texts(spec: NodeSpec | None, name: str) -> tuple[str, ...]:
    described = spec.takes(name) if spec else None
    return tuple(str(option) for option in (described.options if described else None) or ())


def _unknown_classes(graph: Graph, object_info: Mapping[str, Any] | None) -> tuple[NodeRefusal, ...]:
    if not object_info:
        return ()
    found: list[NodeRefusal] = []
    for node_id, node in graph.items():
        name = class_of(node)
        if name in object_info:
            continue
        matches = tuple(closest(name, object_info)) if name else ()
        what = f"this ComfyUI has no node `{name}`" if name else "the node has no class_type"
        cure = f"; did you mean {_quoted(matches)}?" if matches else ""
        found.append(
            NodeRefusal(node_id, name, None, "missing_node_type", f"Node {node_id}: {what}{cure}", matches, ())
        )
    return tuple(found)


def _as_problem(problem: NodeRefusal) -> dict[str, Any]:
    fields = asdict(problem)
    del fields["dropped_outputs"]
    return fields


def _cure(code: str) -> str:
    if code == "missing_node_type":
        return "Use a node that `get-object-info` lists, or install the node pack on the ComfyUI machine."
    if code == "prompt_no_outputs":
        return "Add an output node, such as SaveImage, and link it to the picture."
    return "Correct the named inputs and call again; `validate-workflow` checks a graph without queueing it."


def _offer(options: tuple[str, ...]) -> str:
    if not options:
        return "there is nothing to choose from."
    return f"it takes {_quoted(options[:10])}{' and more' if len(options) > 10 else ''}."


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
