"""LoRAs that are connected and fit, and the rules of FLUX."""

import json
from pathlib import Path
from typing import Any

import pytest

import comfy_mcp.workflows
from comfy_mcp.workflows import GenerationRequest, Graph, LoraUse, build, has_errors
from comfy_mcp.workflows.named_models import named_models

from .server import FLUX, LORA, SERVER, flux_graph, found, only

EXAMPLES = Path(comfy_mcp.workflows.__file__).parent / "examples"
SDXL = "sd_xl_base_1.0.safetensors"
SDXL_LORA = "sdxl_film.safetensors"


def example(name: str, **names: str) -> Graph:
    graph: Graph = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    graph["1"]["inputs"]["ckpt_name"] = names.get("checkpoint", FLUX)
    graph["2"]["inputs"]["lora_name"] = names.get("lora", LORA)
    return graph


def test_the_fixed_example_is_right() -> None:
    assert found(example("pixel_birthday_flux_workflow_fixed"), {LORA: "flux"}, {FLUX: "flux"}) == []


def test_the_mistaken_example_has_every_fault_named() -> None:
    problems = found(example("pixel_birthday_workflow"))
    assert {problem.code: problem.input for problem in problems} == {
        "flux_guidance_missing": "positive",
        "flux_cfg": "cfg",
        "flux_sampler": "sampler_name",
        "flux_scheduler": "scheduler",
    }
    assert not has_errors(problems)
    by_code = {problem.code: problem for problem in problems}
    assert by_code["flux_cfg"].closest_matches == ("1.0",)
    assert by_code["flux_sampler"].closest_matches == ("heunpp2", "dpmpp_2m", "euler_ancestral")
    assert by_code["flux_scheduler"].closest_matches == ("simple", "beta", "sgm_uniform")


def test_the_same_graph_is_right_for_stable_diffusion() -> None:
    assert found(example("pixel_birthday_workflow", checkpoint=SDXL)) == []
    assert found(example("pixel_birthday_workflow"), None, {FLUX: "sdxl"}) == []


def test_a_checkpoint_of_unknown_name_is_judged_by_its_header_alone() -> None:
    graph = example("pixel_birthday_workflow", checkpoint="photo.safetensors")
    assert found(graph) == []
    assert len(found(graph, None, {"photo.safetensors": "flux"})) == 4


def changed(node_id: str, **inputs: Any) -> Graph:
    graph = flux_graph()
    graph[node_id]["inputs"].update(inputs)
    return graph


@pytest.mark.parametrize(
    ("graph", "code", "field"),
    [
        (changed("7", cfg=3.5), "flux_cfg", "cfg"),
        (changed("7", scheduler="karras"), "flux_scheduler", "scheduler"),
        (changed("5", guidance=35.0), "flux_guidance_range", "guidance"),
        (changed("7", positive=["3", 0]), "flux_guidance_missing", "positive"),
        (changed("4", text="blurry"), "flux_negative_unread", "negative"),
    ],
)
def test_each_rule_of_flux_is_a_warning_of_its_own(graph: Graph, code: str, field: str) -> None:
    problem = only(graph)
    assert (problem.code, problem.input, problem.severity) == (code, field, "warning")


def test_what_flux_does_bear_passes() -> None:
    assert found(changed("7", sampler_name="euler", scheduler="simple")) == []
    graph = changed("7", negative=["20", 0])
    graph["20"] = {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["4", 0]}}
    assert found(graph) == []


def test_guidance_is_found_behind_other_conditioning() -> None:
    graph = changed("7", positive=["20", 0])
    graph["20"] = {
        "class_type": "ConditioningCombine",
        "inputs": {"conditioning_1": ["5", 0], "conditioning_2": ["3", 0]},
    }
    assert found(graph) == []


def test_the_separate_sampling_nodes_are_judged_too() -> None:
    graph = flux_graph()
    graph["7"] = {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {
            "noise": ["20", 0],
            "guider": ["21", 0],
            "sampler": ["22", 0],
            "sigmas": ["23", 0],
            "latent_image": ["6", 0],
        },
    }
    graph["20"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": 1}}
    graph["21"] = {"class_type": "BasicGuider", "inputs": {"model": ["2", 0], "conditioning": ["5", 0]}}
    graph["22"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}}
    graph["23"] = {
        "class_type": "BasicScheduler",
        "inputs": {"model": ["2", 0], "scheduler": "simple", "steps": 20, "denoise": 1.0},
    }
    assert found(graph) == []
    graph["21"]["inputs"]["conditioning"] = ["3", 0]
    assert only(graph).code == "flux_guidance_missing"
    graph["21"]["inputs"].update({"conditioning": ["5", 0], "model": ["1", 0]})
    # A scheduler reads the model's settings and renders nothing with it.
    assert only(graph).code == "lora_not_connected"


@pytest.mark.parametrize("told", ["sdxl", "stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0"])
def test_a_lora_of_another_architecture_is_an_error(told: str) -> None:
    graph = changed("2", lora_name=SDXL_LORA)
    [problem] = found(graph, {SDXL_LORA: told, LORA: "flux"})
    assert (problem.code, problem.node_id, problem.severity) == ("lora_architecture", "2", "error")
    assert "Stable Diffusion XL" in problem.message
    assert "FLUX.1" in problem.message
    assert problem.closest_matches == (LORA,)


@pytest.mark.parametrize("told", ["flux", "tinyflux-1", "flux-1-dev/lora", "unknown", "", "something-new"])
def test_a_lora_that_fits_or_is_unknown_passes(told: str) -> None:
    assert found(flux_graph(), {LORA: told}) == []


def test_a_flux_lora_may_go_on_chroma() -> None:
    assert found(flux_graph(), {LORA: "flux"}, {FLUX: "chroma"}) == []
    assert [problem.code for problem in found(flux_graph(), {LORA: "flux"}, {FLUX: "wan"})] == ["lora_architecture"]


def test_each_lora_of_a_chain_is_judged_once() -> None:
    loras = (LoraUse(name=LORA), LoraUse(name=SDXL_LORA), LoraUse(name="characters/Ada.safetensors"))
    graph = build(GenerationRequest(prompt="x", checkpoint=FLUX, seed=1, loras=loras), "flux").graph
    problems = found(graph, {LORA: "flux", SDXL_LORA: "sdxl", "characters\\Ada.safetensors": "sd15"})
    assert [(problem.node_id, problem.code) for problem in problems] == [
        ("4", "lora_architecture"),
        ("3", "lora_architecture"),
    ]


def test_a_lora_that_the_sampler_goes_past_is_named_with_the_link_to_make() -> None:
    graph = changed("7", model=["1", 0])
    problem = only(graph)
    assert (problem.code, problem.node_id, problem.severity) == ("lora_not_connected", "2", "warning")
    assert 'Node 7 (KSampler) takes the model from node 1: link its `model` to ["2", 0].' in problem.message


def test_a_lora_whose_text_encoder_is_not_used_is_named() -> None:
    graph = flux_graph()
    for text in ("3", "4"):
        graph[text]["inputs"]["clip"] = ["1", 1]
    assert only(graph).code == "lora_clip_not_connected"
    graph["2"]["inputs"]["strength_clip"] = 0.0
    assert found(graph) == []


def test_a_lora_behind_a_node_that_is_not_known_is_not_called_unconnected() -> None:
    graph = flux_graph()
    graph["20"] = {"class_type": "ModelTweak", "inputs": {"model": ["2", 0]}}
    graph["7"]["inputs"]["model"] = ["20", 0]
    assert "lora_not_connected" not in {problem.code for problem in found(graph)}


def test_a_lora_that_is_left_over_is_named() -> None:
    graph = flux_graph()
    graph["20"] = {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"lora_name": LORA, "strength_model": 1.0, "model": ["2", 0]},
    }
    problem = only(graph)
    assert (problem.code, problem.node_id) == ("lora_not_connected", "20")


def test_the_files_of_a_graph_are_named_as_far_as_the_server_has_them() -> None:
    graph = example("pixel_birthday_flux_workflow_fixed")
    named = named_models(graph, SERVER)
    assert (named.loras, named.checkpoints) == ({LORA}, {FLUX})
    graph["2"]["inputs"]["lora_name"] = "../../etc/passwd"
    graph["1"]["inputs"]["ckpt_name"] = ["4", 0]
    named = named_models(graph, SERVER)
    assert (named.loras, named.checkpoints) == (frozenset(), frozenset())
    assert named_models([], SERVER) == named
