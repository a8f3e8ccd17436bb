"""Two servers on one data folder: who follows a job, who may cancel it, and what becomes of it when one server dies."""

import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from comfy_mcp.jobs.servers import Servers
from tests.conftest import server_process
from tests.servers.comfy_tools import (
    ENDLESS_STEPS,
    EngineUnderTest,
    begin,
    comfy_tools,
    engine_process,
    graph,
    until_stepping,
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineUnderTest]:
    with engine_process(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


def tool(url: str, name: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool over REST."""
    answer = httpx.post(f"{url}/mcp/tool", json={"tool": name, "arguments": arguments}, timeout=90).json()
    assert answer["success"], answer
    return answer["result"]


def options(engine: EngineUnderTest, data_dir: Path) -> list[str]:
    """Return the options of a server in front of an engine."""
    return ["--data-dir", str(data_dir), "--comfyui-api-url", engine.url, "--comfyui-dir", str(engine.folder)]


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def test_a_job_of_a_killed_server_is_taken_over(engine: EngineUnderTest, tmp_path: Path) -> None:
    given = options(engine, tmp_path)
    with server_process("comfy_mcp", *given) as (owner, url), server_process("comfy_mcp", *given) as (_, other):
        running = tool(url, "execute-workflow", workflow=graph(steps=100), wait_s=0)["job_id"]
        waiting = tool(url, "execute-workflow", workflow=graph(seed=21), wait_s=0)["job_id"]
        assert tool(other, "get-job", job_id=waiting)["status"] in {"queued", "running"}
        kill(owner)
        for job_id in (running, waiting):
            job = tool(other, "wait-job", job_id=job_id, wait_s=40)
            assert job["status"] == "completed"
            assert job["images"]


def test_a_job_whose_embedded_engine_died_with_its_server_has_failed_for_the_other(tmp_path: Path) -> None:
    given = ["--data-dir", str(tmp_path), "--backend", "embedded"]
    with server_process("comfy_mcp", *given) as (owner, url), server_process("comfy_mcp", *given) as (_, other):
        job_id = tool(url, "execute-workflow", workflow=graph(steps=ENDLESS_STEPS), wait_s=0)["job_id"]
        kill(owner)
        job = tool(other, "wait-job", job_id=job_id, wait_s=40)
    assert job["status"] == "failed"
    assert job["error"] == "The embedded engine ended together with the server that ran it."


async def test_a_job_of_a_server_that_closed_is_taken_over(engine: EngineUnderTest, tmp_path: Path) -> None:
    settings = engine.settings(tmp_path)
    async with comfy_tools(settings) as survivor:
        async with comfy_tools(settings) as owner:
            job_id = await begin(owner, steps=200, seed=22)
            await until_stepping(owner, job_id)
        job = await survivor("wait-job", job_id=job_id, wait_s=40)
    assert job["status"] == "completed"
    assert job["images"]


async def test_a_running_job_is_cancelled_from_the_other_server(engine: EngineUnderTest, tmp_path: Path) -> None:
    settings = engine.settings(tmp_path)
    async with comfy_tools(settings) as owner, comfy_tools(settings) as other:
        running = await begin(owner, steps=ENDLESS_STEPS)
        waiting = await begin(owner, seed=23)
        await until_stepping(owner, running)
        assert (await other("cancel-job", job_id=waiting))["cancelled"]
        assert (await other("cancel-job", job_id=running))["cancelled"]
        for tools in (owner, other):
            assert [(await tools("get-job", job_id=job))["status"] for job in (running, waiting)] == ["cancelled"] * 2


async def test_a_job_is_cancelled_in_the_embedded_engine_of_the_other_server(tmp_path: Path) -> None:
    settings = EngineUnderTest("", tmp_path).settings(tmp_path, backend="embedded", comfyui_dir=None)
    async with comfy_tools(settings) as owner, comfy_tools(settings) as other:
        job_id = await begin(owner, steps=ENDLESS_STEPS)
        await until_stepping(owner, job_id)
        assert (await other("cancel-job", job_id=job_id))["cancelled"]
        assert (await owner("get-job", job_id=job_id))["status"] == "cancelled"


async def test_servers_know_who_lives(tmp_path: Path) -> None:
    first, second = Servers(tmp_path), Servers(tmp_path)
    async with first.joined():
        async with second.joined():
            assert await first.living() == await second.living() == {first.own_id, second.own_id}
        assert await first.living() == {first.own_id}


async def test_what_a_killed_server_left_is_removed(engine: EngineUnderTest, tmp_path: Path) -> None:
    def started_and_killed() -> list[Path]:
        with server_process("comfy_mcp", *options(engine, tmp_path)) as (process, _):
            kill(process)
        return list((tmp_path / "servers").iterdir())

    [left] = await anyio.to_thread.run_sync(started_and_killed)
    assert await Servers(tmp_path / "servers").living() == frozenset()
    assert not left.exists()
