"""What is wrong with a graph, in the words of ComfyUI 0.30.

The order of the checks matters as much as their words: callers see one error per input, none for nodes that only
stand downstream of a broken one, and a bad output beside a good one is dropped without failing the request.
"""

import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from comfy_mcp.embedded.folders import Folders
from comfy_mcp.embedded.nodes.definitions import Input, NodeDefinition

Graph = dict[str, dict[str, Any]]
Catalogue = Mapping[str, NodeDefinition]

# Longer lists of options are named by their length alone, and `input_config` is null then.
LISTED_OPTIONS = 20

# What stands around the value of an input that is a list, since a bare list is a link.
_WRAPPER = "__value__"
_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may run of a graph (`outputs`), and what may not; `error` is set when nothing may."""

    outputs: list[str]
    error: dict[str, Any] | None = None
    node_errors: dict[str, Any] = field(default_factory=dict[str, Any])


def problem(error_type: str, message: str, details: str = "", extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Build an error object of the protocol."""
    return {"type": error_type, "message": message, "details": details, "extra_info": dict(extra or {})}


def as_link(value: Any) -> list[Any] | None:
    """Return the value of an input if it is a link to another node's output: every list is taken for one."""
    return cast("list[Any]", value) if isinstance(value, list) else None


def validate(graph: Graph, catalogue: Catalogue, folders: Folders, targets: Collection[str] | None = None) -> Verdict:
    """Judge a graph, and turn its numbers and texts into the types that its nodes take (in place, as ComfyUI does).

    `targets` limits the run to these output nodes. Never raises for what a graph says.
    """
    missing = _missing_class(graph, catalogue)
    if missing is not None:
        return Verdict([], missing)
    outputs = [
        node_id
        for node_id, node in graph.items()
        if catalogue[node["class_type"]].output_node and (targets is None or node_id in targets)
    ]
    if not outputs:
        return Verdict([], problem("prompt_no_outputs", "Prompt has no outputs"))
    check = _Check(graph, catalogue, folders)
    good = [output for output in outputs if check.output(output)]
    error = None
    if not good:
        words = [f"{e['message']}: {e['details']}" for output in outputs for e in check.errors.get(output, [])]
        error = problem("prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(words))
    return Verdict(good, error, check.node_errors)


def _missing_class(graph: Graph, catalogue: Catalogue) -> dict[str, Any] | None:
    for node_id, node in graph.items():
        class_type = node.get("class_type")
        if class_type in catalogue:
            continue
        title = node.get("_meta", {}).get("title", class_type)
        if "class_type" in node:
            message = f"Node '{title}' not found. The custom node may not be installed."
        else:
            name = title or f"ID #{node_id}"
            message = f"Node '{name}' has no class_type. The workflow may be corrupted or a custom node is missing."
        extra = {"node_id": node_id, "class_type": class_type, "node_title": title}
        return problem("missing_node_type", message, f"Node ID '#{node_id}'", extra)
    return None


class _Check:
    """One walk over a graph, from its outputs to its sources; a node is judged once."""

    def __init__(self, graph: Graph, catalogue: Catalogue, folders: Folders) -> None:
        self.graph = graph
        self.catalogue = catalogue
        self.folders = folders
        self.errors: dict[str, list[dict[str, Any]]] = {}
        self.node_errors: dict[str, dict[str, Any]] = {}
        self._valid: dict[str, bool] = {}
        self._path: list[str] = []

    def output(self, node_id: str) -> bool:
        """Judge an output node and all that it needs; note which nodes stop it."""
        try:
            valid = self._node(node_id)
        except Exception as error:
            valid = False
            extra = {"exception_type": type(error).__name__, "traceback": traceback.format_tb(error.__traceback__)}
            found = problem("exception_during_validation", "Exception when validating node", str(error), extra)
            self.errors[node_id] = [found]
            self._path.clear()
        if not valid:
            for culprit, errors in self.errors.items():
                entry = self.node_errors.setdefault(
                    culprit,
                    {"errors": errors, "dependent_outputs": [], "class_type": self.graph[culprit]["class_type"]},
                )
                entry["dependent_outputs"].append(node_id)
        return valid

    def _node(self, node_id: str) -> bool:
        if node_id in self._path:
            self._report_cycle(node_id)
            return False
        if node_id in self._valid:
            return self._valid[node_id]
        self._path.append(node_id)
        # A node without `inputs`, like a link to a node that is not there, is reported as the KeyError that it is.
        inputs = self.graph[node_id]["inputs"]
        definition = self.catalogue[self.graph[node_id]["class_type"]]
        linked = {name for name, value in inputs.items() if as_link(value) is not None}
        valid = True
        for item in definition.inputs:
            if item.name in inputs:
                valid = self._input(node_id, item, inputs) and valid
            elif item.required:
                extra = {"input_name": item.name}
                self._add(node_id, problem("required_input_missing", "Required input is missing", item.name, extra))
        for item in definition.inputs:
            if item.name in inputs and item.name not in linked:
                self._custom_check(node_id, item, inputs[item.name])
        self._path.pop()
        self._valid[node_id] = valid and node_id not in self.errors
        return self._valid[node_id]

    def _input(self, node_id: str, item: Input, inputs: dict[str, Any]) -> bool:
        value = inputs[item.name]
        link = as_link(value)
        if link is None and isinstance(value, dict) and _WRAPPER in value:
            inputs[item.name] = cast("dict[str, Any]", value)[_WRAPPER]
            # A node that takes no such value would get what the list links to.
            link = None if item.is_value else as_link(inputs[item.name])
        if link is not None:
            return self._link(node_id, item, link)
        found = self._convert(item, inputs) or self._range(item, inputs[item.name])
        if found is not None:
            self._add(node_id, found)
        return found is None

    def _link(self, node_id: str, item: Input, link: list[Any]) -> bool:
        extra: dict[str, Any] = {"input_name": item.name, "input_config": item.config(self.folders)}
        if len(link) != 2:
            words = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            self._add(node_id, problem("bad_linked_input", words, item.name, {**extra, "received_value": link}))
            return False
        # The graph may say anything here; what is no node and no slot shows as the exception that it raises.
        source: str = link[0]
        slot: int = link[1]
        received = self.catalogue[self.graph[source]["class_type"]].output_types[slot]
        if received != item.type:
            details = f"{item.name}, received_type({received}) mismatch input_type({item.type})"
            words = "Return type mismatch between linked nodes"
            extra |= {"received_type": received, "linked_node": link}
            self._add(node_id, problem("return_type_mismatch", words, details, extra))
            return False
        depth = len(self._path)
        try:
            return self._node(source)
        except Exception as error:
            del self._path[depth:]
            extra |= {
                "exception_message": str(error),
                "exception_type": type(error).__name__,
                "traceback": traceback.format_tb(error.__traceback__),
                "linked_node": link,
            }
            words = "Exception when validating inner node"
            self.errors[source] = [problem("exception_during_inner_validation", words, str(error), extra)]
            self._valid[source] = False
            return False

    def _convert(self, item: Input, inputs: dict[str, Any]) -> dict[str, Any] | None:
        convert = _CONVERSIONS.get(item.type)
        if convert is None:
            return None
        value = inputs[item.name]
        try:
            inputs[item.name] = convert(value)
        except (TypeError, ValueError, OverflowError) as error:
            extra = {
                "input_name": item.name,
                "input_config": item.config(self.folders),
                "received_value": value,
                "exception_message": str(error),
            }
            words = f"Failed to convert an input value to a {item.type} value"
            return problem("invalid_input_type", words, f"{item.name}, {value}, {error}", extra)
        return None

    def _range(self, item: Input, value: Any) -> dict[str, Any] | None:
        extra = {"input_name": item.name, "input_config": item.config(self.folders), "received_value": value}
        least, most = item.options.get("min"), item.options.get("max")
        if least is not None and value < least:
            return problem("value_smaller_than_min", f"Value {value} smaller than min of {least}", item.name, extra)
        if most is not None and value > most:
            return problem("value_bigger_than_max", f"Value {value} bigger than max of {most}", item.name, extra)
        if item.choices is None or item.check is not None:
            return None
        options = item.choices(self.folders)
        if value in options:
            return None
        listed = str(options)
        if len(options) > LISTED_OPTIONS:
            listed = f"(list of length {len(options)})"
            extra["input_config"] = None
        return problem("value_not_in_list", "Value not in list", f"{item.name}: {value!r} not in {listed}", extra)

    def _custom_check(self, node_id: str, item: Input, value: Any) -> None:
        wrong = None if item.check is None else item.check(self.folders, value)
        if wrong is not None:
            words = "Custom validation failed for node"
            details = f"{item.name} - {wrong}"
            self._add(node_id, problem("custom_validation_failed", words, details, {"input_name": item.name}))

    def _report_cycle(self, node_id: str) -> None:
        cycle = self._path[self._path.index(node_id) :]
        names = [f"{member} ({self.graph[member]['class_type']})" for member in [*cycle, node_id]]
        for member in cycle:
            known = self.errors.get(member, [])
            if all(error["type"] != "dependency_cycle" for error in known):
                extra = {"node_id": member, "cycle_nodes": cycle}
                found = problem("dependency_cycle", "Dependency cycle detected", " -> ".join(names), extra)
                self._add(member, found)

    def _add(self, node_id: str, error: dict[str, Any]) -> None:
        self.errors.setdefault(node_id, []).append(error)
