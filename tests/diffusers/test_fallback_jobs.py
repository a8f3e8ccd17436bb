"""Jobs that diffusers renders: chosen, followed, queued, cancelled, and told after the server died."""

import shutil
import socket
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from comfy_mcp import GenerationService
from comfy_mcp.engines.diffusers import Diffusers
from comfy_mcp.settings import ComfySettings
from mcp_toolserver.errors import BackendRejected, Conflict, NotFound
from tests.conftest import server_process
from tests.diffusers.conftest import TinyModel
from tests.servers.comfy_tools import EngineUnderTest, comfy_tools, engine_process, until_stepping

# What the libraries deprecate among themselves is no fault of ours.
pytestmark = pytest.mark.filterwarnings("ignore")

NOWHERE = "http://127.0.0.1:9"
SMALL: dict[str, Any] = {"prompt": "a red cat", "width": 64, "height": 64, "steps": 2, "seed": 5}
# Long enough that it still renders when a test acts on it.
LONG: dict[str, Any] = {**SMALL, "width": 256, "height": 256, "steps": 150, "sampler": "heun", "wait_s": 0}


@pytest.fixture
def sd15(tiny_model: TinyModel) -> Path:
    """Return the folder of a model: making one blocks, which no test may do in the event loop."""
    return tiny_model("sd15").path


@pytest.fixture
def two_models(tmp_path: Path, sd15: Path, tiny_model: TinyModel) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for path in (sd15, tiny_model("flux").path):
        (folder / path.name).symlink_to(path)
    return folder


def settings(data_dir: Path, models: Path, comfyui_url: str | None = NOWHERE, **more: Any) -> ComfySettings:
    """Return settings of a server for a ComfyUI."""
    return ComfySettings.model_validate(
        {"port": 0, "data_dir": data_dir, "diffusers_dir": models, "comfyui_api_url": comfyui_url, **more}
    )


async def test_a_comfyui_that_hangs_is_given_two_seconds(tmp_path: Path, sd15: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with comfy_tools(settings(tmp_path, sd15.parent, url)) as tools:
            result = await tools("generate-image", **SMALL)
    assert result["engine"] == "diffusers"
    assert any(url in warning for warning in result["warnings"])


async def test_a_comfyui_that_answers_is_not_replaced(tmp_path: Path, sd15: Path) -> None:
    """Not by itself; who names the engine gets it."""
    with engine_process(tmp_path / "comfyui") as comfyui:
        async with comfy_tools(settings(tmp_path, sd15.parent, comfyui.url)) as tools:
            usual = await tools("generate-image", **SMALL)
            forced = await tools("generate-image", **SMALL, engine="comfyui")
            preferred = await tools("generate-image", **SMALL, engine="diffusers")
    assert [result["engine"] for result in (usual, forced, preferred)] == ["comfyui", "comfyui", "diffusers"]


async def test_the_embedded_engine_is_only_there_by_its_name(tmp_path: Path, sd15: Path) -> None:
    under_test = EngineUnderTest("", tmp_path)
    given = {"backend": "embedded", "comfyui_dir": None, "diffusers_dir": sd15.parent}
    async with comfy_tools(under_test.settings(tmp_path, **given)) as tools:
        assert (await tools("generate-image", **SMALL))["engine"] == "embedded"


async def test_the_best_model_is_taken_or_the_one_that_is_named(tmp_path: Path, two_models: Path) -> None:
    async with comfy_tools(settings(tmp_path, two_models)) as tools:
        best = await tools("generate-image", **SMALL, guidance=3.5, cfg_scale=7.0)
        named = await tools("generate-image", **SMALL, checkpoint="tiny-sd15", engine="diffusers")
        with pytest.raises(NotFound, match="tiny-sdxl") as caught:
            await tools("generate-image", **SMALL, checkpoint="tiny-sdxl", engine="diffusers")
    assert best["workflow_name"] == "diffusers-flux-txt2img"
    assert any("`cfg_scale` 7.0" in warning for warning in best["warnings"])
    assert named["workflow_name"] == "diffusers-sd15-txt2img"
    assert "tiny-sd15" in caught.value.details["closest_matches"]


async def test_a_running_job_is_cancelled_between_two_steps(tmp_path: Path, sd15: Path) -> None:
    async with comfy_tools(settings(tmp_path, sd15.parent)) as tools:
        job_id = (await tools("generate-image", **LONG))["job_id"]
        await until_stepping(tools, job_id)
        running = await tools("get-job", job_id=job_id)
        cancelled = await tools("cancel-job", job_id=job_id)
        job = await tools("get-job", job_id=job_id)
    assert running["status"] == "running"
    assert running["progress"]["node"] == "DiffusersSampler"
    assert 0 < running["progress"]["step"] < running["progress"]["total_steps"]
    assert (cancelled["status"], cancelled["cancelled"]) == ("cancelled", True)
    assert (job["status"], job["images"], job["error"]) == ("cancelled", [], None)


async def test_one_renders_and_others_wait(tmp_path: Path, sd15: Path) -> None:
    async with comfy_tools(settings(tmp_path, sd15.parent)) as tools:
        running, waiting, last = [
            (await tools("generate-image", **{**LONG, **more}))["job_id"] for more in ({}, {}, {**SMALL, "wait_s": 0})
        ]
        await until_stepping(tools, running)
        assert [(await tools("get-job", job_id=job_id))["status"] for job_id in (waiting, last)] == ["queued"] * 2
        assert (await tools("cancel-job", job_id=waiting))["status"] == "cancelled"
        assert (await tools("get-job", job_id=running))["status"] == "running"
        await tools("cancel-job", job_id=running)
        assert (await tools("wait-job", job_id=last))["status"] == "completed"


def test_a_job_that_died_with_its_server_has_failed(tmp_path: Path, sd15: Path) -> None:
    (tmp_path / "diffusers" / "models").mkdir(parents=True)
    (tmp_path / "diffusers" / "models" / sd15.name).symlink_to(sd15)
    options = ("--data-dir", str(tmp_path), "--comfyui-api-url", NOWHERE)
    with server_process("comfy_mcp", *options) as (process, url):
        job_id = tool(url, "generate-image", **LONG)["job_id"]
        process.kill()
        process.wait()
    with server_process("comfy_mcp", *options) as (_, url):
        job = tool(url, "wait-job", job_id=job_id)
    assert job["status"] == "failed"
    assert job["engine"] == "diffusers"
    assert "server" in job["error"]
    assert job["images"] == []


async def test_what_is_unfinished_when_its_server_closes_has_failed(tmp_path: Path, sd15: Path) -> None:
    """In one process, as Python callers close and open a service."""
    given = settings(tmp_path, sd15.parent)
    async with comfy_tools(given) as tools:
        running, waiting = [(await tools("generate-image", **LONG))["job_id"] for _ in range(2)]
        await until_stepping(tools, running)
    async with comfy_tools(given) as tools:
        for job_id in (running, waiting):
            job = await tools("wait-job", job_id=job_id)
            assert job["status"] == "failed"
            assert "server that ended before the job did" in job["error"]


async def test_a_broken_model_fails_its_job_with_the_cause(tmp_path: Path, sd15: Path) -> None:
    broken = tmp_path / "models" / "broken"
    shutil.copytree(sd15, broken)
    (broken / "unet" / "config.json").write_text("{}")
    async with comfy_tools(settings(tmp_path, broken.parent)) as tools:
        with pytest.raises(BackendRejected, match="DiffusersSampler failed") as caught:
            await tools("generate-image", **SMALL)
        # The next one has its turn all the same.
        job = await tools("get-job", job_id=caught.value.details["job_id"])
    assert job["status"] == "failed"
    assert job["error_details"]["node_type"] == "DiffusersSampler"


async def test_the_python_api_falls_back_too(tmp_path: Path, sd15: Path) -> None:
    async with GenerationService(settings(tmp_path, sd15.parent)) as service:
        result = await service.generate_image("a cat", width=64, height=64, num_inference_steps=2, guidance_scale=3.5)
        video = await service.generate_video(
            prompt=["a cat sits", "a cat jumps"], width=64, height=64, num_inference_steps=2, seed=3
        )
    assert (result["status"], result["workflow"], result["model"]) == ("success", "diffusers", "tiny-sd15")
    assert result["images"][0]["content"].startswith(b"\x89PNG")
    assert (video["workflow"], len(video["frames"])) == ("diffusers", 2)


def tool(url: str, name: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool over REST."""
    answer = httpx.post(f"{url}/mcp/tool", json={"tool": name, "arguments": arguments}, timeout=120).json()
    assert answer["success"], answer
    return answer["result"]


async def test_two_servers_on_one_folder_see_each_others_jobs(tmp_path: Path, sd15: Path) -> None:
    given = settings(tmp_path, sd15.parent)
    async with comfy_tools(given) as first:
        cancelled = (await first("generate-image", **LONG))["job_id"]
        await until_stepping(first, cancelled)
        completed = (await first("generate-image", **SMALL, wait_s=0))["job_id"]
        async with comfy_tools(given) as second:
            assert (await second("get-job", job_id=cancelled))["status"] == "running"
            with pytest.raises(Conflict, match="another server"):
                await second("cancel-job", job_id=cancelled)
            await first("cancel-job", job_id=cancelled)
            assert (await second("wait-job", job_id=cancelled))["status"] == "cancelled"
            job = await second("wait-job", job_id=completed)
            assert job["status"] == "completed"
            assert job["images"]


async def test_a_picture_that_renders_takes_no_memory_from_those_that_wait(tmp_path: Path, sd15: Path) -> None:
    async def no_lora(name: str) -> Path:
        raise AssertionError(name)

    engine = Diffusers(tmp_path, [sd15.parent], lora_path=no_lora)
    async with engine.running():
        idle = await engine.memory()
        with engine.watch(str(uuid4())):
            assert await engine.memory() is idle
        assert await engine.memory() is not idle
    assert idle.free_bytes > 0
