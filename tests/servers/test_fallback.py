"""Choosing what renders where ComfyUI is away and the extra is not installed, and jobs of diffusers told later."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from comfy_mcp.engines.diffusers_orders import PictureOrder
from comfy_mcp.jobs.store import JobFile, JobRecord, JobStore
from comfy_mcp.settings import ComfySettings
from mcp_toolserver.errors import BackendUnavailable, InvalidArguments, NotFound, ToolError
from tests.servers.comfy_tools import Tools, comfy_tools, png

NOWHERE = "http://127.0.0.1:9"


def settings(data_dir: Path, **more: Any) -> ComfySettings:
    """Return settings of a server for a ComfyUI that is not there."""
    return ComfySettings.model_validate({"port": 0, "data_dir": data_dir, "comfyui_api_url": NOWHERE, **more})


async def refusal(tools: Tools, **arguments: Any) -> ToolError:
    """Return why no picture is made."""
    with pytest.raises(ToolError) as caught:
        await tools("generate-image", prompt="a cat", **arguments)
    assert (await tools("list-jobs"))["jobs"] == []
    return caught.value


@pytest.mark.parametrize("engine", ["auto", "comfyui"])
async def test_without_the_extra_a_comfyui_that_is_away_is_an_error(tmp_path: Path, engine: str) -> None:
    async with comfy_tools(settings(tmp_path)) as tools:
        error = await refusal(tools, engine=engine)
    assert NOWHERE in error.message
    assert error.retryable
    assert "loraloop[diffusers]" in (error.hint or "")
    assert str(tmp_path / "diffusers" / "models") in (error.hint or "")


async def test_the_engine_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    async with comfy_tools(settings(tmp_path)) as tools:
        error = await refusal(tools, engine="diffusers")
        with pytest.raises(InvalidArguments, match="engine"):
            await tools("generate-image", prompt="a cat", engine="difusers")
    # To call again does not install it.
    assert not error.retryable
    assert error.details["field"] == "engine"
    assert error.details["missing"] in error.message
    assert "pip install 'loraloop[diffusers]'" in (error.hint or "")


async def test_the_engine_in_front_of_the_embedded_one_is_named_too(tmp_path: Path) -> None:
    async with comfy_tools(settings(tmp_path, backend="embedded", comfyui_api_url=None)) as tools:
        error = await refusal(tools, engine="diffusers")
        info = await tools("get-system-info")
    assert error.details["value"] == "diffusers"
    assert "loraloop[diffusers]" in info["fallback"]


async def test_the_system_says_how_to_add_it(tmp_path: Path) -> None:
    models = tmp_path / "elsewhere"
    async with comfy_tools(settings(tmp_path, diffusers_dir=models)) as tools:
        with pytest.raises(BackendUnavailable) as caught:
            await tools("get-system-info")
    assert str(models) in (caught.value.hint or "")


def test_there_is_no_cloud_to_enable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_CLOUD_APIS", "false")
    assert not settings(tmp_path).enable_cloud_apis
    monkeypatch.setenv("ENABLE_CLOUD_APIS", "true")
    with pytest.raises(ValidationError, match="cloud"):
        settings(tmp_path)
    command = [sys.executable, "-m", "comfy_mcp", "--port", "0", "--data-dir", str(tmp_path / "data")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "there is no cloud" in ended.stderr
    assert "Traceback" not in ended.stderr


async def recorded(data_dir: Path, **told: Any) -> JobRecord:
    """Record a job of diffusers as a server leaves it behind."""
    order = PictureOrder(
        model="tiny",
        prompt="a cat",
        negative_prompt="",
        steps=20,
        guidance=5.0,
        sampler="euler",
        scheduler="normal",
        seed=5,
        batch_size=1,
        filename_prefix="loraloop_1",
    )
    record = JobRecord.model_validate(
        {
            "job_id": str(uuid4()),
            "tool": "generate-image",
            "status": "running",
            "created_at": time.time(),
            "engine": "diffusers",
            "engine_url": "",
            "workflow_name": "diffusers-sd15-txt2img",
            "seed": 5,
            "graph": order.as_graph(),
            **told,
        }
    )
    store = JobStore(data_dir / "jobs.sqlite")
    async with store.opened():
        await store.add(record)
    return record


@pytest.mark.parametrize("status", ["queued", "running"])
async def test_a_job_that_ended_with_its_server_has_failed(tmp_path: Path, status: str) -> None:
    record = await recorded(tmp_path, status=status)
    async with comfy_tools(settings(tmp_path)) as tools:
        job = await tools("wait-job", job_id=record.job_id)
    assert job["status"] == "failed"
    assert "server that ended before the job did" in job["error"]
    assert job["error_details"]["code"] == "engine_forgot"


async def test_pictures_stay_after_a_restart_and_their_loss_is_said(tmp_path: Path) -> None:
    file = JobFile(node_id="1", filename="a.png", subfolder="", kind="output", animated=False, width=48, height=32)
    record = await recorded(tmp_path, status="completed", finished_at=time.time(), files=(file,))
    output = tmp_path / "diffusers" / "output"
    output.mkdir(parents=True)
    (output / "a.png").write_bytes(png())
    async with comfy_tools(settings(tmp_path)) as tools:
        [image] = (await tools("get-job", job_id=record.job_id))["images"]
        assert (image["width"], image["height"]) == (48, 32)
        with pytest.raises(NotFound, match="no graph"):
            await tools("get-image-workflow", image_id=image["id"])
        (output / "a.png").unlink()
        with pytest.raises(NotFound, match="no longer there"):
            await tools("get-image-workflow", image_id=image["id"])


def test_the_start_of_a_server_pays_for_no_picture() -> None:
    code = "import sys, comfy_mcp.app; print(*{'PIL', 'numpy', 'torch', 'diffusers'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b""
