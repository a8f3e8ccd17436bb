"""What a graph's models ask of it: the rules of FLUX, and LoRAs made for the checkpoint that they are put on."""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from comfy_mcp.workflows.families import FLUX, family_of, family_of_architecture, lora_fits, title_of
from comfy_mcp.workflows.graphs import class_of, inputs_of, link_of
from comfy_mcp.workflows.image_recipes import IMAGE_RECIPES
from comfy_mcp.workflows.problems import Problem, problem_at
from comfy_mcp.workflows.recipes import ImageRecipe
from comfy_mcp.workflows.variants import variant_of
from lora_files.fit import Fit
from mcp_toolserver.errors import closest

_MODEL_NAMES = ("ckpt_name", "unet_name")
# ComfyUI's own loaders: what a loader of others makes of a LoRA is not known.
_LORA_LOADERS = frozenset({"LoraLoader", "LoraLoaderModelOnly"})
# Nodes that put a guidance value into the conditioning themselves, or take it out on purpose.
_GUIDED = frozenset({"FluxGuidance", "CLIPTextEncodeFlux", "FluxDisableGuidance"})
_PROMPT_INPUTS = ("positive", "conditioning")


def family_problems(
    graph: Mapping[str, Any],
    lora_architectures: Mapping[str, str],
    checkpoint_families: Mapping[str, str],
    layer_fits: Mapping[tuple[str, str], Fit],
) -> list[Problem]:
    """Return what the models of a graph forbid; a model whose family is unknown forbids nothing.

    `layer_fits` has how LoRAs fit checkpoints, by both names, as far as both headers can be read: one whose layers are
    all found there is right, whatever its family is called.
    """
    problems: list[Problem] = []
    judged: set[str] = set()
    for node_id, chain, name in _uses(graph):
        family = _family(name, checkpoint_families)
        if family == FLUX:
            problems += _flux_problems(graph, node_id, graph[node_id], name)
        for lora_id in chain:
            lora_name = inputs_of(graph[lora_id]).get("lora_name")
            if lora_id in judged or not isinstance(lora_name, str):
                continue
            judged.add(lora_id)
            fit = layer_fits.get((lora_name, name))
            if fit is not None and fit.verdict == "fits":
                # A LoRA of few layers can look like one for another model.
                continue
            others = [] if family is None else list(_lora_problems(graph, lora_id, name, family, lora_architectures))
            problems += others or ([] if fit is None else _fit_problems(graph, lora_id, name, fit))
    return problems


def lora_uses(graph: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return which LoRAs are put on which checkpoints, by the names that stand in a graph."""
    return {
        (lora_name, name)
        for _, chain, name in _uses(graph)
        for lora_id in chain
        if isinstance(lora_name := inputs_of(graph[lora_id]).get("lora_name"), str)
    }


def _uses(graph: Mapping[str, Any]) -> Iterator[tuple[str, list[str], str]]:
    """Yield each node that uses a model up (a sampler, or the guider of the separate sampling nodes), the nodes that
    the model comes through, and its name.
    """
    for node_id, node in graph.items():
        if link_of(inputs_of(node).get("model")) is None or not any(name in inputs_of(node) for name in _PROMPT_INPUTS):
            continue
        chain = _chain(graph, node_id, "model")
        name = _model_name(graph, chain)
        if name is not None:
            yield node_id, chain, name


def _family(name: str, checkpoint_families: Mapping[str, str]) -> str | None:
    told = _look_up(checkpoint_families, name)
    if told is not None:
        return family_of_architecture(told)
    guess = family_of(name)
    return guess.family if guess.certain else None


def _flux_problems(graph: Mapping[str, Any], node_id: str, node: object, model_name: str) -> Iterator[Problem]:
    recipe, inputs = _flux_recipe(model_name), inputs_of(node)
    low, high = recipe.guidance_range
    prompt = next(name for name in _PROMPT_INPUTS if name in inputs)
    guides = [found for found in _chain(graph, node_id, prompt) if class_of(graph[found]) in _GUIDED]
    if not guides and recipe.guidance is not None:
        yield problem_at(
            node_id,
            node,
            "flux_guidance_missing",
            f"`{prompt}` comes without FluxGuidance: FLUX takes its guidance through that node. Put a FluxGuidance "
            f"({recipe.guidance}; {low} to {high}) between the prompt's CLIPTextEncode and `{prompt}`.",
            field=prompt,
            severity="warning",
        )
    for guide in guides:
        value = inputs_of(graph[guide]).get("guidance")
        if isinstance(value, int | float) and not low <= value <= high:
            yield problem_at(
                guide,
                graph[guide],
                "flux_guidance_range",
                f"`guidance` is {value}; {title_of(recipe.name)} works from {low} to {high}.",
                field="guidance",
                severity="warning",
                matches=[str(min(max(value, low), high))],
            )
    cfg = inputs.get("cfg")
    if isinstance(cfg, int | float) and cfg != recipe.cfg:
        yield problem_at(
            node_id,
            node,
            "flux_cfg",
            f"`cfg` is {cfg}, as for Stable Diffusion; FLUX has its guidance trained in and takes {recipe.cfg} here. "
            "FluxGuidance sets how closely the prompt is followed.",
            field="cfg",
            severity="warning",
            matches=[str(recipe.cfg)],
        )
    yield from _flux_sampling(node_id, node, recipe)
    if cfg == recipe.cfg:
        yield from _unread_negative(graph, node_id, node)


def _flux_recipe(model_name: str) -> ImageRecipe:
    # A variant that only the header tells is taken for plain FLUX: its rules are the strictest.
    return IMAGE_RECIPES[variant_of(FLUX, re.split(r"[\\/]", model_name.lower())[-1])]


def _flux_sampling(node_id: str, node: object, recipe: ImageRecipe) -> Iterator[Problem]:
    inputs = inputs_of(node)
    sampler, scheduler = inputs.get("sampler_name"), inputs.get("scheduler")
    if not isinstance(scheduler, str) or scheduler not in recipe.unfit_schedulers:
        return
    yield problem_at(
        node_id,
        node,
        "flux_scheduler",
        f"`scheduler` is {scheduler}, which spaces the noise for Stable Diffusion; FLUX takes "
        f"{', '.join(recipe.schedulers)}.",
        field="scheduler",
        severity="warning",
        matches=recipe.schedulers,
    )
    if sampler == "euler":
        yield problem_at(
            node_id,
            node,
            "flux_sampler",
            f"`sampler_name` is {sampler}, the habit from Stable Diffusion; {', '.join(recipe.samplers)} suit FLUX.",
            field="sampler_name",
            severity="warning",
            matches=recipe.samplers,
        )


def _unread_negative(graph: Mapping[str, Any], node_id: str, node: object) -> Iterator[Problem]:
    for found in _chain(graph, node_id, "negative"):
        text = inputs_of(graph[found]).get("text")
        if isinstance(text, str) and text.strip():
            yield problem_at(
                node_id,
                node,
                "flux_negative_unread",
                f"the negative prompt of node {found} is never read at cfg 1.0; leave it empty.",
                field="negative",
                severity="warning",
            )


def _lora_problems(
    graph: Mapping[str, Any], node_id: str, model_name: str, family: str, lora_architectures: Mapping[str, str]
) -> Iterator[Problem]:
    name = inputs_of(graph[node_id]).get("lora_name")
    architecture = _look_up(lora_architectures, name) if isinstance(name, str) else None
    lora_family = family_of_architecture(architecture or "")
    if lora_family is None or lora_fits(lora_family, family):
        return
    fitting = [
        other
        for other, other_architecture in lora_architectures.items()
        if lora_fits(family_of_architecture(other_architecture) or "", family)
    ]
    yield problem_at(
        node_id,
        graph[node_id],
        "lora_architecture",
        f"the LoRA {name!r} is made for {title_of(lora_family)}, and {model_name!r} is {title_of(family)}: ComfyUI "
        "would run it without an effect. Use a LoRA of that family, or the checkpoint that it is made for.",
        field="lora_name",
        matches=closest(str(name), fitting) or fitting[:3],
    )


def _fit_problems(graph: Mapping[str, Any], node_id: str, model_name: str, fit: Fit) -> Iterator[Problem]:
    node = graph[node_id]
    name = inputs_of(node)["lora_name"]
    lost = fit.layers - fit.matched
    if fit.verdict not in {"partly", "does_not_fit"}:
        return
    code = "lora_partly_unused"
    if not fit.is_lora:
        code, fault = "lora_no_effect", f"{name!r} holds no layer of a LoRA: loading it as one has no effect."
    elif fit.has_no_effect:
        code = "lora_no_effect"
        fault = (
            f"the LoRA {name!r} has no effect on {model_name!r}: none of its {fit.layers} layers is found there in its "
            f"shape ({_first_lost(fit)}). ComfyUI would run without it, and say so in its log alone. Use a LoRA for "
            "this checkpoint, or the checkpoint that it is made for."
        )
    else:
        rest = "its text encoder layers alone remain" if not fit.matched else "the others work"
        fault = (
            f"of the LoRA {name!r}, {lost} of {fit.layers} layers are left out on {model_name!r} "
            f"({_first_lost(fit)}); {rest}."
        )
    is_certain = code == "lora_no_effect" and class_of(node) in _LORA_LOADERS
    yield problem_at(node_id, node, code, fault, field="lora_name", severity="error" if is_certain else "warning")


def _first_lost(fit: Fit) -> str:
    if fit.mismatched:
        first = fit.mismatched[0]
        (rows, columns), (own_rows, own_columns) = first.lora, first.checkpoint
        return f"{first.layer[:120]} is {rows} x {columns}, and {own_rows} x {own_columns} in the checkpoint"
    return f"the checkpoint has no {fit.not_found[0][:120]}"


def _chain(graph: Mapping[str, Any], node_id: str, entry: str) -> list[str]:
    """Return the nodes from an input upwards, nearest first, through inputs of the same kind."""
    follow = ("model",) if entry == "model" else ("conditioning", "conditioning_1", "conditioning_to", entry)
    found: dict[str, None] = {}
    waiting = deque([link_of(inputs_of(graph[node_id]).get(entry))])
    while waiting:
        link = waiting.popleft()
        if link is None or link.node_id in found or link.node_id not in graph:
            continue
        found[link.node_id] = None
        inputs = inputs_of(graph[link.node_id])
        waiting.extend(link_of(inputs.get(name)) for name in follow)
    return list(found)


def _model_name(graph: Mapping[str, Any], chain: list[str]) -> str | None:
    for node_id in chain:
        for field in _MODEL_NAMES:
            name = inputs_of(graph[node_id]).get(field)
            if isinstance(name, str):
                return name
    return None


def _look_up(known: Mapping[str, str], name: str) -> str | None:
    if name in known:
        return known[name]
    plain = name.replace("\\", "/")
    return next((value for key, value in known.items() if key.replace("\\", "/") == plain), None)
