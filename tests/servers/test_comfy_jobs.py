"""Jobs: told, listed, waited for, cancelled, and found again after either side was restarted or killed."""

import json
import os
import signal
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, ToolError
from tests.conftest import server_process
from tests.fakes.relay import relay_before
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


async def test_a_finished_job_is_told_in_full(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        job_id = await begin(tools)
        job = await tools("wait-job", job_id=job_id)
        assert job == await tools("get-job", job_id=job_id)
    assert job["status"] == "completed"
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    assert job["progress"] is None
    assert job["error"] is None
    assert job["images"][0]["width"] == 64


async def test_an_unknown_job_is_not_found(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        for tool in ("get-job", "wait-job", "cancel-job"):
            with pytest.raises(NotFound, match="no job"):
                await tools(tool, job_id=str(uuid4()))
        with pytest.raises(InvalidArguments, match="`job_id`"):
            await tools("get-job", prompt_id="x")


async def test_jobs_are_listed_newest_first_by_pages(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        ids = [await begin(tools, seed=seed) for seed in range(5)]
        for job_id in ids:
            await tools("wait-job", job_id=job_id)
        first = await tools("list-jobs", limit=3)
        second = await tools("list-jobs", limit=3, cursor=first["next_cursor"])
        assert [job["job_id"] for job in first["jobs"] + second["jobs"]] == ids[::-1]
        assert second["next_cursor"] is None
        assert (await tools("list-jobs", status="failed"))["jobs"] == []
        assert len((await tools("list-jobs", status="completed"))["jobs"]) == 5
        with pytest.raises(InvalidArguments, match="cursor"):
            await tools("list-jobs", cursor="elsewhere")


async def test_a_running_job_is_cancelled_and_another_is_not(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        running = await begin(tools, steps=ENDLESS_STEPS)
        waiting = await begin(tools, seed=9)
        await until_stepping(tools, running)
        assert (await tools("get-job", job_id=waiting))["status"] == "queued"
        cancelled = await tools("cancel-job", job_id=running)
        assert cancelled["cancelled"]
        assert cancelled["status"] == "cancelled"
        assert (await tools("wait-job", job_id=waiting))["status"] == "completed"
        assert (await tools("cancel-job", job_id=running))["cancelled"]


async def test_a_waiting_job_is_cancelled_and_the_running_one_is_not(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        running = await begin(tools, steps=ENDLESS_STEPS)
        waiting = await begin(tools, seed=10)
        await until_stepping(tools, running)
        assert (await tools("cancel-job", job_id=waiting))["status"] == "cancelled"
        assert (await tools("get-job", job_id=waiting))["status"] == "cancelled"
        assert (await tools("get-job", job_id=running))["status"] == "running"
        await tools("cancel-job", job_id=running)


async def test_cancelling_a_finished_job_is_said_to_be_too_late(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        job_id = await begin(tools)
        await tools("wait-job", job_id=job_id)
        with pytest.raises(Conflict, match="too late") as refused:
            await tools("cancel-job", job_id=job_id)
    assert refused.value.details == {"job_id": job_id, "status": "completed"}


async def test_a_refused_graph_leaves_no_job(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(ToolError):
            await tools("execute-workflow", workflow={"1": {"class_type": "KSampler", "inputs": {}}})
        assert (await tools("list-jobs"))["jobs"] == []


async def test_a_job_is_found_again_by_the_next_server(engine: EngineUnderTest, tmp_path: Path) -> None:
    settings = engine.settings(tmp_path)
    async with comfy_tools(settings) as tools:
        running = await begin(tools, steps=200)
        waiting = await begin(tools, seed=11)
        await until_stepping(tools, running)
    async with comfy_tools(settings) as tools:
        done = await tools("wait-job", job_id=running)
        assert done["status"] == "completed"
        assert done["images"]
        assert (await tools("wait-job", job_id=waiting))["status"] == "completed"


async def test_a_job_that_ended_while_no_server_ran_is_told_by_the_next(
    engine: EngineUnderTest, tmp_path: Path
) -> None:
    async with comfy_tools(engine.settings(tmp_path / "a")) as first:
        job_id = await begin(first, steps=100)
        await until_stepping(first, job_id)
    async with comfy_tools(engine.settings(tmp_path / "b")) as other:
        # What is submitted after it, ends after it.
        await other("wait-job", job_id=await begin(other, seed=12))
    async with comfy_tools(engine.settings(tmp_path / "a")) as again:
        assert (await again("wait-job", job_id=job_id))["status"] == "completed"


async def test_a_job_that_comfyui_forgot_has_failed_with_the_reason(tmp_path: Path) -> None:
    with engine_process(tmp_path / "one") as one:
        async with comfy_tools(one.settings(tmp_path / "data")) as tools:
            job_id = await begin(tools, steps=ENDLESS_STEPS)
            await until_stepping(tools, job_id)
    with engine_process(tmp_path / "two") as two:
        async with comfy_tools(two.settings(tmp_path / "data")) as tools:
            job = await tools("wait-job", job_id=job_id)
    assert job["status"] == "failed"
    assert "does not answer" in job["error"]


async def test_a_killed_comfyui_ends_its_jobs_truthfully(tmp_path: Path) -> None:
    with server_process("comfy_mcp.embedded", "--data-dir", str(tmp_path / "comfyui")) as (process, url):
        settings = EngineUnderTest(url, tmp_path / "comfyui").settings(tmp_path / "data", lost_after_s=0.2)
        async with comfy_tools(settings) as tools:
            job_id = await begin(tools, steps=ENDLESS_STEPS)
            await until_stepping(tools, job_id)
            process.kill()
            job = await tools("wait-job", job_id=job_id)
    assert job["status"] == "failed"
    assert job["error_details"]["code"] == "backend_unavailable"


async def test_a_job_tells_that_comfyui_does_not_answer(tmp_path: Path) -> None:
    with server_process("comfy_mcp.embedded", "--data-dir", str(tmp_path / "comfyui")) as (process, url):
        settings = EngineUnderTest(url, tmp_path / "comfyui").settings(tmp_path / "data")
        async with comfy_tools(settings) as tools:
            ids = [await begin(tools, steps=ENDLESS_STEPS), await begin(tools, seed=12)]
            await until_stepping(tools, ids[0])
            assert (await tools("get-job", job_id=ids[0]))["warnings"] == []
            process.kill()
            for job_id in ids:
                job = await tools("wait-job", job_id=job_id, wait_s=1)
                assert job["status"] in {"queued", "running"}
                [warning] = job["warnings"]
                assert f"ComfyUI does not answer at {url}" in warning
                assert "60 seconds" in warning
            listed = (await tools("list-jobs"))["jobs"]
            assert all(len(job["warnings"]) == 1 for job in listed)


async def test_a_job_is_followed_again_when_comfyui_answers_again(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with relay_before(engine.url) as relay:
        settings = EngineUnderTest(relay.url, engine.folder).settings(tmp_path)
        async with comfy_tools(settings) as tools:
            job_id = await begin(tools, steps=ENDLESS_STEPS)
            await until_stepping(tools, job_id)
            relay.answers = False
            relay.cut_sockets()
            assert (await tools("wait-job", job_id=job_id, wait_s=1))["warnings"]
            relay.answers = True
            assert (await tools("wait-job", job_id=job_id, wait_s=2))["warnings"] == []
            assert (await tools("get-job", job_id=job_id))["status"] == "running"
            await tools("cancel-job", job_id=job_id)


async def test_two_servers_on_one_folder_see_each_others_jobs(engine: EngineUnderTest, tmp_path: Path) -> None:
    settings = engine.settings(tmp_path)
    async with comfy_tools(settings) as first, comfy_tools(settings) as second:
        job_id = await begin(first, steps=100)
        assert (await second("get-job", job_id=job_id))["status"] in {"queued", "running"}
        assert (await second("wait-job", job_id=job_id))["status"] == "completed"


def test_a_killed_server_finds_its_jobs_again(engine: EngineUnderTest, tmp_path: Path) -> None:
    options = ["--data-dir", str(tmp_path), "--comfyui-api-url", engine.url, "--comfyui-dir", str(engine.folder)]
    with server_process("comfy_mcp", *options) as (process, url):
        result = tool(url, "execute-workflow", workflow=graph(steps=200), wait_s=0)
        process.kill()
        process.wait()
    with server_process("comfy_mcp", *options) as (_, url):
        done = tool(url, "wait-job", job_id=result["job_id"])
        assert done["status"] == "completed"
        assert httpx.get(done["images"][0]["url"]).content.startswith(b"\x89PNG")


def test_the_embedded_engine_is_started_again_and_its_job_has_failed(tmp_path: Path) -> None:
    with server_process("comfy_mcp", "--data-dir", str(tmp_path), "--backend", "embedded") as (process, url):
        job_id = tool(url, "execute-workflow", workflow=graph(steps=ENDLESS_STEPS), wait_s=0)["job_id"]
        for child in children_of(process.pid):
            os.kill(child, signal.SIGKILL)
        job = tool(url, "wait-job", job_id=job_id)
        assert job["status"] == "failed"
        assert "no longer knows" in job["error"]
        assert tool(url, "execute-workflow", workflow=graph())["status"] == "completed"


def test_jobs_of_an_embedded_engine_that_ended_with_its_server_have_failed(tmp_path: Path) -> None:
    options = ["--data-dir", str(tmp_path), "--backend", "embedded"]
    with server_process("comfy_mcp", *options) as (process, url):
        finished = tool(url, "execute-workflow", workflow=graph())
        unfinished = tool(url, "execute-workflow", workflow=graph(steps=ENDLESS_STEPS), wait_s=0)
        process.kill()
        process.wait()
    with server_process("comfy_mcp", *options) as (_, url):
        job = tool(url, "wait-job", job_id=unfinished["job_id"])
        assert job["status"] == "failed"
        assert job["error"] == "The embedded engine ended together with the server that ran it."
        kept = tool(url, "get-job", job_id=finished["job_id"])["images"][0]
        assert httpx.get(kept["url"]).content.startswith(b"\x89PNG")


async def test_records_are_plain_rows(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        await tools("wait-job", job_id=await begin(tools))
    rows = sqlite3.connect(tmp_path / "jobs.sqlite")
    try:
        [(status, record)] = rows.execute("SELECT status, record FROM jobs").fetchall()
    finally:
        rows.close()
    assert status == json.loads(record)["status"] == "completed"


def tool(url: str, name: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool over REST."""
    answer = httpx.post(f"{url}/mcp/tool", json={"tool": name, "arguments": arguments}, timeout=90).json()
    assert answer["success"], answer
    return answer["result"]


def children_of(pid: int) -> list[int]:
    """Return the processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
