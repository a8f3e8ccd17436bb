"""estimate-training and get-training-info, before and after this machine has finished a training."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from mcp_toolserver.client import ToolClient
from mcp_toolserver.errors import InvalidArguments, NotFound
from mcp_toolserver.tools import Toolbox
from tests.servers.aitk import call, image, settings_in, toolbox_in

IMAGES = [image(f"{number}.png", f"tok, a cat {number}") for number in range(4)]


@pytest.fixture
def cli(tmp_path: Path) -> Toolbox:
    return toolbox_in(tmp_path, trainer="cli", AITK_DIR=str(tmp_path / "ai-toolkit"))


@pytest.fixture
async def real(cli: Toolbox) -> Toolbox:
    await call(cli, "upload-dataset", dataset_name="cat", images=IMAGES)
    return cli


@pytest.fixture
async def client(tmp_path: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[ToolClient]:
    async with ToolClient(serve(create_app(settings_in(tmp_path)))) as client:
        await client.call("upload-dataset", {"dataset_name": "cat", "images": IMAGES})
        yield client


async def estimate(tools: Toolbox, **given: Any) -> dict[str, Any]:
    return await call(tools, "estimate-training", **{"model_name": "flex", "dataset_path": "cat", **given})


async def test_a_real_model_is_estimated_and_priced(real: Toolbox, tmp_path: Path) -> None:
    answer = await estimate(real, steps=2000, hourly_rate=0.6)
    assert (answer["steps"], answer["images"], answer["epochs"]) == (2000, 4, 500)
    assert answer["seconds"] == 2300
    assert answer["cost"] == pytest.approx(2300 / 3600 * 0.6, abs=1e-3)
    assert 8e9 < answer["vram_bytes"] < 16e9
    assert 3e8 < answer["disk_bytes"] < 3e9
    assert "RTX 4090" in answer["based_on"]["seconds"]
    assert "rule of thumb" in answer["based_on"]["vram"]
    assert answer["learned_from"] == []
    assert not (tmp_path / "configs").exists()
    unknown = await estimate(real, model_name="/m/x.safetensors", ecosystem="krea2", hourly_rate=1)
    assert (unknown["seconds"], unknown["cost"], unknown["vram_bytes"]) == (None, None, None)
    assert unknown["based_on"]["vram"].startswith("nothing")


async def test_a_stored_config_is_estimated_by_its_name(real: Toolbox) -> None:
    given = {"model_name": "sdxl", "dataset_path": "cat", "steps": 100}
    await call(real, "create-training-config", name="a", **given)
    by_name = await call(real, "estimate-training", name="a", hourly_rate=2)
    assert by_name == await estimate(real, **given, hourly_rate=2)
    await call(real, "delete-dataset", dataset_name="cat")
    assert (await call(real, "estimate-training", name="a"))["images"] is None


async def test_what_is_wrong_is_said_as_by_create_training_config(real: Toolbox) -> None:
    with pytest.raises(InvalidArguments, match="`model_name` is missing"):
        await call(real, "estimate-training", name="a", steps=2)
    with pytest.raises(NotFound):
        await call(real, "estimate-training", name="a")
    with pytest.raises(NotFound):
        await estimate(real, dataset_path="dog")
    with pytest.raises(InvalidArguments, match="adamx"):
        await estimate(real, optimizer="adamx")
    with pytest.raises(InvalidArguments, match="hourly_rate"):
        await estimate(real, hourly_rate=-1)


async def test_a_finished_training_teaches_the_next_estimate(client: ToolClient) -> None:
    given = {"model_name": "tinyflux", "dataset_path": "cat", "rank": 4, "alpha": 4, "test_prompts": ["tok"]}
    before = await client.call("estimate-training", {**given, "steps": 20})
    assert (before["learned_from"], before["disk_bytes"], before["vram_bytes"]) == ([], None, 0)
    await client.call("create-training-config", {"name": "cat_v1", **given, "steps": 20})
    job = await client.call("start-training", {"config_name": "cat_v1"})
    done = await client.call("wait-training", {"job_id": job["job_id"], "wait_s": 100})
    assert done["status"] == "completed"
    after = await client.call("estimate-training", {**given, "steps": 20, "hourly_rate": 3600})
    assert after["learned_from"] == [job["job_id"]]
    assert after["cost"] == pytest.approx(after["seconds"], abs=0.1)
    assert 0 < after["seconds"] <= done["elapsed_s"] * 3
    assert "on this machine" in after["based_on"]["seconds"]
    twice = await client.call("estimate-training", {**given, "steps": 20, "rank": 8, "alpha": 8})
    assert twice["disk_bytes"] > after["disk_bytes"] > 0
    longer = await client.call("estimate-training", {**given, "steps": 2000})
    assert longer["seconds"] > after["seconds"]
    # Another architecture has learned nothing from it.
    assert (await client.call("estimate-training", {**given, "model_name": "flex", "steps": 20}))["learned_from"] == []


async def test_one_answer_tells_everything_about_a_training(client: ToolClient) -> None:
    given = {"model_name": "tinyflux", "dataset_path": "cat", "steps": 10, "rank": 4, "alpha": 4, "trigger_word": "tok"}
    made = await client.call("create-training-config", {"name": "cat_v1", **given})
    before = await client.call("get-training-info", {"name": "cat_v1"})
    assert (before["jobs"], before["models"], before["config"]["config"]) == ([], [], made["config"]["config"])
    job = await client.call("start-training", {"config_name": "cat_v1"})
    await client.call("wait-training", {"job_id": job["job_id"], "wait_s": 100})
    for name in ("cat_v1", job["job_id"]):
        info = await client.call("get-training-info", {"name": name})
        assert (info["name"], info["base_model"], info["trigger_word"]) == ("cat_v1", "tinyflux", "tok")
        assert info["dataset_path"].endswith("/datasets/cat")
        assert [each["job_id"] for each in info["jobs"]] == [job["job_id"]]
        assert [each["model_path"] for each in info["models"]] == ["cat_v1/cat_v1.safetensors"]
    await client.call("delete-config", {"name": "cat_v1"})
    info = await client.call("get-training-info", {"name": "cat_v1"})
    assert (info["config"], info["config_path"], len(info["jobs"])) == (None, None, 1)
    with pytest.raises(NotFound) as caught:
        await client.call("get-training-info", {"name": "cat_v2"})
    assert caught.value.details["closest_matches"] == ["cat_v1"]
