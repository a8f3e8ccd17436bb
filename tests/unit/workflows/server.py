"""A server's node classes, as ComfyUI answers /object_info (0.30, and 0.12 where that is the same), with a few files
in their lists; and graphs."""

import copy
import json
from pathlib import Path
from typing import Any

from comfy_mcp.workflows import GenerationRequest, Graph, LoraUse, Problem, build, check
from comfy_mcp.workflows.specs import spec_of

LORA = "pixel_cat.safetensors"
FLUX = "flux1-dev.safetensors"


SERVER: dict[str, Any] = json.loads(Path(__file__).with_name("object_info.json").read_text(encoding="utf-8"))


def object_info() -> dict[str, Any]:
    """Return a copy of the server's node classes for a test to change."""
    return copy.deepcopy(SERVER)


def listed(class_type: str, field: str) -> list[str]:
    """Return what the server offers for an input."""
    options = spec_of(SERVER, class_type)
    assert options is not None
    return list(options.inputs[field].options or ())


def flux_graph() -> Graph:
    """Return the nine nodes: 1 checkpoint, 2 LoRA, 3 and 4 texts, 5 guidance, 6 latent, 7 sampler, 8 decode, 9 save."""
    request = GenerationRequest(prompt="a pixel_cat", checkpoint=FLUX, seed=1, loras=(LoraUse(name=LORA),))
    return build(request, "flux").graph


def found(
    graph: object, lora_architectures: dict[str, str] | None = None, families: dict[str, str] | None = None
) -> list[Problem]:
    """Return the problems of a graph on this server."""
    return check(graph, SERVER, lora_architectures, families)


def only(graph: object) -> Problem:
    """Return the one problem that a graph has."""
    problems = found(graph)
    assert len(problems) == 1, problems
    return problems[0]


def errors(graph: object) -> list[Problem]:
    """Return the problems that keep a graph from running."""
    return [problem for problem in found(graph) if problem.severity == "error"]
