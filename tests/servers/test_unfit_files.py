"""Files that cannot work: known from their headers, and said before anything is queued."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from mcp_toolserver.errors import InvalidArguments, ToolError
from tests.contract.comfyui.conftest import strong_lora
from tests.servers.comfy_tools import EngineUnderTest, Tools, comfy_tools, engine_process, graph

CHECKPOINT = "tinyflux-base.safetensors"
PAGE = b"<html>gated</html>"


def wide_layers(blocks: range, width: int) -> dict[str, Any]:
    return {
        f"transformer.transformer_blocks.{block}.attn.to_q.lora_{half}.weight": np.zeros(shape, np.float16)
        for block in blocks
        for half, shape in (("A", (4, width)), ("B", (width, 4)))
    }


LORAS = {
    "realflux": save(wide_layers(range(19), 3072)),
    "partly": save(wide_layers(range(1), 96) | wide_layers(range(1, 4), 3072)),
    "nolora": save({"foo.bar": np.zeros((4, 4), np.float16)}),
    "page": PAGE,
    "good": strong_lora(1),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineUnderTest]:
    with engine_process(tmp_path_factory.mktemp("comfyui")) as running:
        models = running.folder / "models"
        for name, content in LORAS.items():
            (models / "loras" / f"{name}.safetensors").write_bytes(content)
        # In the order of names it comes first, and by its name it is the better model.
        (models / "checkpoints" / "flux1-dev.safetensors").write_bytes(PAGE)
        (models / "vae" / "ae.safetensors").write_bytes(PAGE)
        yield running


def with_lora(name: str, loader: str = "LoraLoaderModelOnly") -> dict[str, Any]:
    nodes = graph()
    nodes["9"] = {
        "class_type": loader,
        "inputs": {"model": ["1", 0], "lora_name": f"{name}.safetensors", "strength_model": 1.0},
    }
    nodes["6"]["inputs"]["model"] = ["9", 0]
    return nodes


async def jobs(tools: Tools) -> int:
    return len((await tools("list-jobs"))["jobs"])


@pytest.mark.parametrize(
    ("lora", "code", "said"),
    [
        ("realflux", "lora_no_effect", "none of its 19 layers"),
        ("nolora", "lora_no_effect", "no layer of a LoRA"),
        ("page", "model_unreadable", "web page"),
    ],
)
async def test_a_lora_that_cannot_work_is_refused_by_every_way_in(
    engine: EngineUnderTest, tmp_path: Path, lora: str, code: str, said: str
) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        checked = await tools("validate-workflow", workflow=with_lora(lora))
        with pytest.raises(InvalidArguments, match=said) as generated:
            await tools("generate-image", prompt="cat", checkpoint=CHECKPOINT, loras=[{"name": lora}])
        with pytest.raises(InvalidArguments, match=said):
            await tools("execute-workflow", workflow=with_lora(lora))
        assert await jobs(tools) == 0
    assert not checked["valid"]
    [problem] = checked["problems"]
    assert (problem["code"], problem["input"], problem["node_id"]) == (code, "lora_name", "9")
    assert generated.value.details["field"] == "loras.0.name"
    assert generated.value.details["value"] == f"{lora}.safetensors"


async def test_a_lora_that_works_in_part_is_warned_of_with_numbers(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        checked = await tools("validate-workflow", workflow=with_lora("partly"))
        done = await tools("generate-image", prompt="cat", checkpoint=CHECKPOINT, loras=[{"name": "partly"}], steps=1)
        good = await tools("validate-workflow", workflow=with_lora("good"))
    [problem] = checked["problems"]
    assert (checked["valid"], problem["code"], problem["severity"]) == (True, "lora_partly_unused", "warning")
    assert "3 of 4 layers are left out" in problem["message"]
    assert "3072 x 3072" in problem["message"]
    assert any("3 of 4 layers" in warning for warning in done["warnings"])
    assert good["problems"] == []


async def test_a_lora_that_was_mended_is_judged_anew(engine: EngineUnderTest, tmp_path: Path) -> None:
    path = engine.folder / "models" / "loras" / "changing.safetensors"
    path.write_bytes(LORAS["realflux"])
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        before = await tools("validate-workflow", workflow=with_lora("changing"))
        path.write_bytes(LORAS["good"])
        after = await tools("validate-workflow", workflow=with_lora("changing"))
        path.unlink()
    assert (before["valid"], after["valid"]) == (False, True)


async def test_a_broken_checkpoint_is_no_default_and_is_refused_where_it_is_named(
    engine: EngineUnderTest, tmp_path: Path
) -> None:
    named = graph()
    named["1"]["inputs"]["ckpt_name"] = "flux1-dev.safetensors"
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        done = await tools("generate-image", prompt="cat", steps=1, width=64, height=64)
        queued = await jobs(tools)
        with pytest.raises(InvalidArguments, match="web page") as refused:
            await tools("generate-image", prompt="cat", checkpoint="flux1-dev")
        with pytest.raises(InvalidArguments, match="web page"):
            await tools("execute-workflow", workflow=named)
        checked = await tools("validate-workflow", workflow=named)
        tips = await tools("get-model-tips", filename="flux1-dev.safetensors")
        assert await jobs(tools) == queued
    assert done["status"] == "completed"
    assert any("`flux1-dev.safetensors` was passed over" in warning for warning in done["warnings"])
    assert refused.value.details["field"] == "checkpoint"
    assert [
        (problem["code"], problem["input"]) for problem in checked["problems"] if problem["severity"] == "error"
    ] == [("model_unreadable", "ckpt_name")]
    assert any("cannot be loaded" in warning for warning in tips["warnings"])


async def test_lists_say_which_models_cannot_be_loaded(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        models = {model["name"]: model for model in (await tools("list-models"))["models"]}
    assert "web page" in models["flux1-dev.safetensors"]["problem"]
    assert "web page" in models["ae.safetensors"]["problem"]
    assert models["flux1-dev.safetensors"]["family"] is None
    assert (models[CHECKPOINT]["problem"], models[CHECKPOINT]["family"]) == (None, "flux")


async def test_with_nothing_but_broken_models_there_is_no_default(tmp_path: Path) -> None:
    with engine_process(tmp_path / "engine") as running:
        (running.folder / "models" / "checkpoints" / CHECKPOINT).write_bytes(PAGE)
        async with comfy_tools(running.settings(tmp_path / "data")) as tools:
            with pytest.raises(ToolError, match=CHECKPOINT) as refused:
                await tools("generate-image", prompt="cat")
    assert isinstance(refused.value, InvalidArguments)


async def test_a_file_that_is_no_lora_is_called_that(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        fit = await tools("check-lora", lora_name="nolora.safetensors", checkpoint=CHECKPOINT)
        info = await tools("get-lora-info", lora_name="nolora.safetensors")
    assert (fit["fits"], fit["verdict"], fit["layers"], fit["loader"]) == (False, "does_not_fit", 0, None)
    assert "none of its tensors is named as a LoRA's" in fit["message"]
    assert (info["suggested_strength"], info["loader"]) == (None, None)
