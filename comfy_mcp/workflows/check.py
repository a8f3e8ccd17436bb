"""Find what is wrong with a graph before it is submitted.

check ── form      not an object, saved for the page, no nodes
      ├─ nodes     no class, an unknown class
      ├─ inputs    missing, unknown, null, not in the list, out of range         check_inputs
      ├─ links     to nothing, to no such output, of another type, in a circle   check_links
      ├─ flow      no output, a LoRA that leads nowhere                          check_flow
      └─ families  the rules of FLUX, a LoRA for another family                  check_families
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from comfy_mcp.workflows.check_families import family_problems
from comfy_mcp.workflows.check_flow import flow_problems, weigh
from comfy_mcp.workflows.check_inputs import input_problems
from comfy_mcp.workflows.check_links import cycle_problems
from comfy_mcp.workflows.convert import is_ui_graph
from comfy_mcp.workflows.graphs import class_of, is_object
from comfy_mcp.workflows.named_models import NamedFile, unreadable_problems
from comfy_mcp.workflows.problems import Problem, problem_at
from comfy_mcp.workflows.specs import NodeSpec, ObjectInfo, spec_of
from lora_files.fit import Fit
from mcp_toolserver.errors import closest, shown


def check(
    graph: object,
    object_info: ObjectInfo,
    lora_architectures: Mapping[str, str] | None = None,
    checkpoint_families: Mapping[str, str] | None = None,
    *,
    lora_fits: Mapping[tuple[str, str], Fit] | None = None,
    unreadable: Mapping[NamedFile, str] | None = None,
) -> list[Problem]:
    """Return every problem of an API-format graph, errors first, each kind in the order of the nodes.

    `object_info` is what the server that will run the graph answers at /object_info. `lora_architectures` and
    `checkpoint_families` map file names, as the loaders' lists have them, to architectures; a checkpoint that is not
    among them is judged by its name, and a LoRA that is not, passes. `lora_fits` has how LoRAs fit checkpoints, by both
    names; `unreadable` says why no loader can read a file.
    """
    formless = _form_problems(graph)
    if formless or not is_object(graph):
        return formless
    problems: list[Problem] = []
    specs: dict[str, NodeSpec] = {}
    known = cache(partial(spec_of, object_info))
    for node_id, node in graph.items():
        spec, problem = _spec_of_node(node_id, node, object_info, known)
        if spec is not None:
            specs[node_id] = spec
        if problem is not None:
            problems.append(problem)
    problems += input_problems(graph, specs)
    problems += cycle_problems(graph)
    problems += flow_problems(graph, specs)
    problems += unreadable_problems(graph, object_info, unreadable or {})
    problems += family_problems(graph, lora_architectures or {}, checkpoint_families or {}, lora_fits or {})
    problems = weigh(problems, graph, specs)
    return sorted(problems, key=lambda problem: problem.severity != "error")


def _form_problems(graph: object) -> list[Problem]:
    if not is_object(graph):
        kind = "null" if graph is None else f"a {type(graph).__name__}"
        return [
            Problem(
                code="not_an_object",
                message=f"The workflow is {kind}; it must be an object of nodes by id, as `Export (API)` saves it.",
            )
        ]
    if is_ui_graph(graph):
        return [
            Problem(
                code="ui_format",
                message="This is a workflow as ComfyUI's page saves it (`nodes` and `links`), not the form that runs. "
                "Save it with `Workflow > Export (API)`.",
            )
        ]
    if not graph:
        return [Problem(code="no_nodes", message="The workflow has no nodes.")]
    if is_object(graph.get("prompt")) and not class_of(graph["prompt"]):
        return [
            Problem(
                code="wrapped_graph",
                message="The nodes are inside `prompt`, as /prompt takes them; give the object inside alone.",
            )
        ]
    return []


def _spec_of_node(
    node_id: str, node: Any, object_info: ObjectInfo, known: Callable[[str], NodeSpec | None]
) -> tuple[NodeSpec | None, Problem | None]:
    if not is_object(node):
        message = f"it is {shown(node)}; a node is an object with `class_type` and `inputs`."
        return None, problem_at(node_id, node, "node_not_an_object", message)
    class_type = class_of(node)
    if not class_type:
        message = "it has no `class_type`, so that nothing says what it is."
        return None, problem_at(node_id, node, "missing_class_type", message)
    spec = known(class_type)
    if spec is not None:
        return spec, None
    matches = closest(class_type, object_info)
    cure = f"Did you mean `{matches[0]}`?" if matches else "It may belong to a custom node that is not installed."
    message = f"this server has no node class `{class_type}`. {cure}"
    return None, problem_at(node_id, node, "missing_node_type", message, matches=matches)
