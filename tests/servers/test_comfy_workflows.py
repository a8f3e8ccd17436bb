"""The workflow tools in front of an engine: what is listed runs, and what is wrong is said before it is queued."""

import base64
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from safetensors.numpy import save

from mcp_toolserver.errors import BackendUnavailable, InvalidArguments
from tests.conftest import server_process
from tests.contract.comfyui.conftest import strong_lora
from tests.servers.comfy_tools import EngineUnderTest, Tools, comfy_tools, engine_process, png

CHECKPOINT = "tinyflux-base.safetensors"
LORA = "people/Ada.safetensors"
SMALL = {"checkpoint": CHECKPOINT, "width": 64, "height": 64, "steps": 2}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineUnderTest]:
    with engine_process(tmp_path_factory.mktemp("comfyui")) as running:
        lora = running.folder / "models" / "loras" / LORA
        lora.parent.mkdir(parents=True, exist_ok=True)
        lora.write_bytes(strong_lora(1))
        yield running


async def filled(tools: Tools, name: str, **parameters: Any) -> dict[str, Any]:
    return (await tools("get-workflow", name=name, parameters=parameters))["workflow"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("pixel_birthday_flux_workflow_fixed", {"lora": LORA}),
        ("flux-lora-txt2img", {"lora": LORA, "lora_strength": 0.5}),
        ("flux-txt2img", {}),
    ],
)
async def test_a_listed_workflow_runs_once_its_files_are_named(
    engine: EngineUnderTest, tmp_path: Path, name: str, parameters: dict[str, Any]
) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        workflow = await filled(tools, name, **SMALL, **parameters)
        checked = await tools("validate-workflow", workflow=workflow)
        done = await tools("execute-workflow", workflow=workflow)
    assert (checked["valid"], checked["problems"]) == (True, [])
    assert (done["status"], len(done["images"])) == ("completed", 1)


async def test_a_workflow_that_was_checked_without_comfyui_is_said_to_be(tmp_path: Path) -> None:
    with server_process("comfy_mcp.embedded", "--data-dir", str(tmp_path / "comfyui")) as (process, url):
        settings = EngineUnderTest(url, tmp_path / "comfyui").settings(tmp_path / "data")
        async with comfy_tools(settings) as tools:
            workflow = await filled(tools, "flux-txt2img", **SMALL)
            assert (await tools("validate-workflow", workflow=workflow))["problems"] == []
            process.kill()
            await anyio.to_thread.run_sync(process.wait)
            # Its socket is found broken by then; a job would be told so at once.
            with pytest.raises(BackendUnavailable):
                await tools("execute-workflow", workflow=workflow)
            checked = await tools("validate-workflow", workflow=workflow)
    assert checked["valid"]
    [problem] = checked["problems"]
    assert (problem["code"], problem["severity"]) == ("engine_does_not_answer", "warning")
    assert "Nothing is wrong" not in checked["message"]


async def test_an_uploaded_image_is_drawn_anew(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        stored = await tools("upload-image", filename="room.png", content=_base64(png(96, 64)))
        workflow = await filled(
            tools, "flux-lora-img2img", checkpoint=CHECKPOINT, lora=LORA, input_image=stored["name"], steps=2
        )
        done = await tools("execute-workflow", workflow=workflow)
    [image] = done["images"]
    assert (image["width"], image["height"]) == (96, 64)


async def test_one_image_starts_several(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        stored = await tools("upload-image", filename="room.png", content=_base64(png(96, 64)))
        done = await tools("generate-image", prompt="a cat", input_image=stored["name"], steps=20, batch_size=3)
    assert [(image["width"], image["height"]) for image in done["images"]] == [(96, 64)] * 3


async def test_the_mistaken_example_runs_with_every_fault_named(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        workflow = await filled(tools, "pixel_birthday_workflow", lora=LORA, **SMALL)
        checked = await tools("validate-workflow", workflow=workflow)
        done = await tools("execute-workflow", workflow=workflow)
    assert checked["valid"]
    assert {problem["code"] for problem in checked["problems"]} == {
        "flux_guidance_missing",
        "flux_cfg",
        "flux_sampler",
        "flux_scheduler",
    }
    assert done["status"] == "completed"
    assert {problem["message"] for problem in checked["problems"]} <= set(done["warnings"])


async def test_a_family_that_has_no_workflow_is_refused_with_the_closest_one(
    engine: EngineUnderTest, tmp_path: Path
) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        flux = await tools("list-workflows", family="flux")
        with pytest.raises(InvalidArguments, match="'fluxx'") as refused:
            await tools("list-workflows", family="fluxx")
    assert flux["total"] > 1
    assert {workflow["family"] for workflow in flux["workflows"]} == {"flux"}
    assert refused.value.details["closest_matches"] == ["flux"]


async def test_the_defaults_name_files_that_this_engine_lacks(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        workflow = await filled(tools, "pixel_birthday_flux_workflow_fixed", lora="ada")
        checked = await tools("validate-workflow", workflow=workflow)
        with pytest.raises(InvalidArguments, match="ckpt_name") as refused:
            await tools("execute-workflow", workflow=workflow)
    faults = {problem["input"]: problem["closest_matches"] for problem in checked["problems"]}
    assert faults["lora_name"] == [LORA]
    assert faults["ckpt_name"][:1] in ([], [CHECKPOINT])
    assert len(refused.value.details["problems"]) == 2


async def test_a_lora_for_another_model_is_refused_by_its_header(engine: EngineUnderTest, tmp_path: Path) -> None:
    name = "film.safetensors"
    layer = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k"
    tensors = {f"{layer}.lora_down.weight": np.ones((4, 2048), np.float16)}
    tensors[f"{layer}.lora_up.weight"] = np.ones((640, 4), np.float16)
    (engine.folder / "models" / "loras" / name).write_bytes(save(tensors))
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        workflow = await filled(tools, "flux-lora-txt2img", lora=name, **SMALL)
        checked = await tools("validate-workflow", workflow=workflow)
        with pytest.raises(InvalidArguments, match="Stable Diffusion XL"):
            await tools("generate-image", prompt="x", loras=[{"name": name}])
    [problem] = checked["problems"]
    assert (problem["code"], problem["closest_matches"]) == ("lora_architecture", [])


async def test_a_lora_whose_layers_are_all_found_runs_whatever_it_looks_like(
    engine: EngineUnderTest, tmp_path: Path
) -> None:
    """Its few layers are named as those of FLUX, and those of other models that diffusers names the same way."""
    checkpoints = engine.folder / "models" / "checkpoints"
    models = {
        "three.safetensors": {
            "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": np.ones((192, 64), np.float16),
            "model.diffusion_model.joint_blocks.0.x_block.attn.proj.weight": np.ones((64, 64), np.float16),
            "text_encoders.clip_l.x.weight": np.ones((1, 1), np.float16),
            "first_stage_model.x.weight": np.ones((1, 1), np.float16),
        }
    }
    for name, tensors in models.items():
        (checkpoints / name).write_bytes(save(tensors))

    def lora(block: int) -> bytes:
        layer = f"transformer.transformer_blocks.{block}.attn.to_out.0"
        halves = {"lora_A": (4, 64), "lora_B": (64, 4)}
        return save({f"{layer}.{half}.weight": np.ones(shape, np.float16) for half, shape in halves.items()})

    for name, block in (("first_block.safetensors", 0), ("no_such_block.safetensors", 7)):
        (engine.folder / "models" / "loras" / name).write_bytes(lora(block))
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        told: dict[str, list[str]] = {}
        for name in ("first_block.safetensors", "no_such_block.safetensors"):
            assert (await tools("get-lora-info", lora_name=name))["architecture"] == "flux"
            workflow = await filled(tools, "sd3-lora-txt2img", checkpoint="three.safetensors", lora=name)
            checked = await tools("validate-workflow", workflow=workflow)
            told[name] = [problem["code"] for problem in checked["problems"] if "lora" in problem["code"]]
    assert told == {"first_block.safetensors": [], "no_such_block.safetensors": ["lora_architecture"]}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
