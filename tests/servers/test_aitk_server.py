"""The whole aitk_mcp: which tools it has, the same answer at every door, and what it says of its trainer."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from starlette.applications import Starlette
from starlette.types import ASGIApp

from aitk_mcp.app import build, create_app
from mcp_toolserver.errors import BackendUnavailable, Conflict
from mcp_toolserver.mcp_door import mcp_server
from mcp_toolserver.tools import Toolbox
from tests.conftest import server_process
from tests.servers.aitk import call, image, settings_in, toolbox_in

Serve = Callable[[ASGIApp], str]

CONTRACT = {
    *("upload-dataset", "list-datasets", "get-dataset", "set-caption", "delete-images", "delete-dataset"),
    *("create-training-config", "validate-config", "list-configs", "get-config", "delete-config", "list-model-presets"),
    *("start-training", "get-training-status", "wait-training", "stop-training", "resume-training", "save-checkpoint"),
    *("list-training-jobs", "get-training-logs", "get-training-loss", "list-samples", "reconcile-jobs"),
    *("list-exported-models", "get-model-info", "export-model", "download-model", "get-system-stats"),
}


@pytest.fixture
def app(tmp_path: Path) -> Starlette:
    return create_app(settings_in(tmp_path))


@pytest.fixture
def toolbox(tmp_path: Path) -> Toolbox:
    return toolbox_in(tmp_path)


@pytest.fixture
def without_run_py(tmp_path: Path) -> Starlette:
    return create_app(settings_in(tmp_path, trainer="auto", AITK_DIR=str(tmp_path / "ai-toolkit")))


def test_every_tool_of_the_contract_is_there_and_described(toolbox: Toolbox) -> None:
    assert {tool.name for tool in toolbox.tools} >= CONTRACT
    for tool in toolbox.tools:
        assert len(tool.description) > 20, tool.name
        for schema in (tool.input_schema(), tool.output_schema()):
            for name, field in schema["properties"].items():
                assert field.get("description"), f"{tool.name}: {name}"


@pytest.mark.parametrize("door", ["memory", "2025-11-25", "2026-07-28", "stdio"])
async def test_the_tools_work_through_every_door_of_mcp(
    door: str, app: Starlette, serve: Serve, tmp_path: Path
) -> None:
    target: Any
    if door == "memory":
        # Building looks at the disk, as it may before a loop runs.
        server = await asyncio.to_thread(build, settings_in(tmp_path))
        target = mcp_server("aitk_mcp", "1", "AI Toolkit", "", server.toolbox)
    elif door == "stdio":
        arguments = ["-m", "aitk_mcp", "--transport", "stdio", "--data-dir", str(tmp_path), "--trainer", "embedded"]
        environment = {"PYTHONPATH": os.environ["PYTHONPATH"]}
        target = StdioServerParameters(command=sys.executable, args=arguments, env=environment)
    else:
        target = f"{serve(app)}/mcp"
    async with Client(target, mode="legacy" if door == "2025-11-25" else "auto") as client:
        assert {tool.name for tool in (await client.list_tools()).tools} >= CONTRACT
        stored = await client.call_tool("upload_dataset", {"dataset_name": "Cat", "images": [image()]})
        assert stored.structured_content["path"] == str(tmp_path / "datasets" / "cat")
        refused = await client.call_tool(
            "create-training-config", {"name": "cat", "model_name": "tinyflux", "dataset_path": "datasets/cat"}
        )
        assert refused.is_error
        assert str(tmp_path / "datasets" / "cat") in refused.content[0].model_dump()["text"]


async def test_rest_health_and_the_status_addresses_of_older_scripts(
    app: Starlette, serve: Serve, tmp_path: Path
) -> None:
    async with httpx.AsyncClient(base_url=serve(app)) as client:
        health = (await client.get("/health")).json()
        assert (health["status"], health["server"], health["backend"]["engine"]) == ("ok", "aitk_mcp", "embedded")
        assert "No AI Toolkit is configured" in health["backend"]["detail"]
        for address in ("/api/jobs", "/api/v2/training/status"):
            assert (await client.get(address)).json() == {"jobs": []}
        answer = await client.post("/mcp/tool", json={"tool": "get-system-stats"})
        stats = answer.json()["result"]
        assert stats["engine"] == "embedded"
        assert {disk["used_for"] for disk in stats["disks"]} == {"datasets", "outputs", "jobs"}
        assert (await client.get("/mcp/tools")).json()["tools"][0]["name"] == "upload-dataset"


async def test_a_configured_checkout_that_is_not_there_is_unavailable_and_never_replaced(
    without_run_py: Starlette, serve: Serve, tmp_path: Path
) -> None:
    async with httpx.AsyncClient(base_url=serve(without_run_py)) as client:

        async def tool(name: str, /, **arguments: Any) -> dict[str, Any]:
            return (await client.post("/mcp/tool", json={"tool": name, "arguments": arguments})).json()

        health = (await client.get("/health")).json()
        assert (health["status"], health["backend"]["state"], health["backend"]["engine"]) == (
            "degraded",
            "unavailable",
            "cli",
        )
        await tool("upload-dataset", dataset_name="cat", images=[image()])
        await tool("create-training-config", name="cat", model_name="flex", dataset_path="cat")
        refused = await tool("start-training", config_name="cat")
        assert refused["error"]["code"] == BackendUnavailable.code
        assert "run.py" in refused["error"]["message"]
        assert (await client.get("/api/jobs")).json() == {"jobs": []}
        checkout = tmp_path / "ai-toolkit"
        checkout.mkdir(exist_ok=True)
        (checkout / "run.py").write_text("raise SystemExit(1)")
        (checkout / "version.py").write_text('VERSION = "0.12.26"\n')
        health = (await client.get("/health")).json()
        assert (health["status"], health["backend"]["version"]) == ("ok", "0.12.26")


async def test_the_loop_from_images_to_a_file_that_is_exported(app: Starlette, serve: Serve, tmp_path: Path) -> None:
    async with httpx.AsyncClient(base_url=serve(app), timeout=120) as client:

        async def tool(name: str, /, **arguments: Any) -> dict[str, Any]:
            answer = (await client.post("/mcp/tool", json={"tool": name, "arguments": arguments})).json()
            return answer["result"] if answer["success"] else answer["error"]

        images = [image(f"{n}.png", "tok, a cat", colour=colour) for n, colour in enumerate(("teal", "navy", "red"))]
        await tool("upload-dataset", dataset_name="cat", images=images)
        given = {"trigger_word": "tok", "steps": 30, "save_every": 10, "rank": 4, "test_prompts": ["tok, asleep"]}
        made = await tool("create-training-config", name="cat_v1", model_name="tinyflux", dataset_path="cat", **given)
        assert made["warnings"] == []
        assert (await tool("validate-config", name="cat_v1"))["valid"]
        job = await tool("start-training", config_name="cat_v1")
        done = await tool("wait-training", job_id=job["job_id"], wait_s=100)
        assert done["status"] == "completed"
        assert done["engine"] == "embedded"

        models = (await tool("list-exported-models"))["models"]
        assert models[0]["model_path"] == done["model_path"] == "cat_v1/cat_v1.safetensors"
        assert (models[0]["finished"], models[0]["step"], models[0]["rank"]) == (True, 30, 4)
        assert models[0]["trigger_words"] == ["tok"]
        assert [model["step"] for model in models[1:]] == [20, 10]

        exported = await tool("export-model", job_id=job["job_id"], format="safetensors", name="tok_cat")
        assert exported["model_path"] == "_exported/tok_cat.safetensors"
        info = await tool("get-model-info", model_path=exported["model_path"])
        assert info["sha256"] == exported["sha256"]
        bytes_of_it = (await client.get(exported["url"])).content
        assert bytes_of_it == (tmp_path / "output" / "cat_v1" / "cat_v1.safetensors").read_bytes()
        assert (await tool("download-model", model_path="cat_v1"))["training_config"]["config"]["name"] == "cat_v1"
        assert (await client.get("/api/jobs")).json()["jobs"][0]["id"] == job["job_id"]


async def test_a_job_without_a_file_cannot_be_exported(app: Starlette, serve: Serve) -> None:
    async with httpx.AsyncClient(base_url=serve(app), timeout=120) as client:

        async def tool(name: str, /, **arguments: Any) -> dict[str, Any]:
            answer = (await client.post("/mcp/tool", json={"tool": name, "arguments": arguments})).json()
            return answer["result"] if answer["success"] else answer["error"]

        await tool("upload-dataset", dataset_name="cat", images=[image()])
        await tool("create-training-config", name="cat", model_name="tinyflux", dataset_path="cat", steps=100_000)
        job = await tool("start-training", config_name="cat")
        refused = await tool("export-model", job_id=job["job_id"])
        assert refused["code"] == Conflict.code
        assert "has saved nothing yet" in refused["message"]
        await tool("stop-training", job_id=job["job_id"], save=False)
        assert (await tool("export-model", job_id="nobody"))["code"] == "not_found"


def test_the_server_runs_as_a_program_of_its_own(tmp_path: Path) -> None:
    with server_process("aitk_mcp", "--data-dir", str(tmp_path), "--trainer", "embedded") as (process, url):
        answer = httpx.post(f"{url}/mcp/tool", json={"tool": "list-datasets"}).json()
        assert answer["result"]["root"] == str(tmp_path / "datasets")
        process.terminate()
        # Once it has shut down in order, uvicorn hands the signal on.
        assert process.wait(20) in (0, -signal.SIGTERM)


async def test_the_same_question_has_the_same_answer_in_memory(toolbox: Toolbox) -> None:
    await call(toolbox, "upload-dataset", dataset_name="cat", images=[image()])
    assert (await call(toolbox, "list_datasets"))["total"] == 1
