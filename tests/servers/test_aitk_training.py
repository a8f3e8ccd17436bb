"""The training tools and addresses of aitk_mcp, over a real socket on the embedded engine."""

from collections.abc import AsyncGenerator, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from tests.servers.aitk import image, settings_in

ENDLESS = 100_000


class Caller:
    """Call the server's tools by REST."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = (await self.client.post("/mcp/tool", json={"tool": tool, "arguments": arguments})).json()
        assert answer["success"], answer
        return answer["result"]

    async def refused(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = (await self.client.post("/mcp/tool", json={"tool": tool, "arguments": arguments})).json()
        assert not answer["success"], answer
        return answer["error"]

    async def config(self, name: str, **arguments: Any) -> str:
        given = {"steps": 12, "rank": 4, "alpha": 4, "trigger_word": "pixcat", "test_prompts": ["pixcat in snow"]}
        await self("create-training-config", name=name, model_name="tinyflux", dataset_path="cats", **given | arguments)
        return name


@pytest.fixture
async def call(tmp_path: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[Caller]:
    """Give a server with a dataset, and end the trainings that the test leaves behind."""
    async with httpx.AsyncClient(base_url=serve(create_app(settings_in(tmp_path))), timeout=120) as client:
        caller = Caller(client)
        images = [image(f"{index}.png", "pixcat, a cat", colour=colour) for index, colour in enumerate(("teal", "red"))]
        await caller("upload-dataset", dataset_name="cats", images=images)
        yield caller
        for status in ("queued", "running"):
            for job in (await caller("list-training-jobs", status=status))["jobs"]:
                await caller("stop-training", job_id=job["job_id"], save=False)


async def test_a_training_from_start_to_finish(call: Caller) -> None:
    started = await call("start-training", config_name=await call.config("cat"))
    job_id = started["job_id"]
    assert (started["status"], started["engine"], started["total_steps"]) == ("running", "embedded", 12)
    done = await call("wait-training", job_id=job_id, wait_s=100)
    assert (done["status"], done["progress_percent"], done["error"]) == ("completed", 100.0, None)
    assert await call("get-training-status", job_id=job_id) == done
    assert done["model_path"] == "cat/cat.safetensors"
    listed = await call("list-training-jobs")
    assert (listed["total"], listed["jobs"]) == (1, [done])
    logs = await call("get-training-logs", job_id=job_id, lines=5)
    assert len(logs["lines"]) == 5
    loss = await call("get-training-loss", job_id=job_id)
    assert [point["step"] for point in loss["points"]] == list(range(1, 12))
    assert loss["plot"]
    picture = await call.client.get(loss["plot_url"])
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    with Image.open(BytesIO(picture.content)) as curve:
        assert curve.size == (900, 420)


async def test_samples_have_addresses_and_say_that_they_were_scaled(call: Caller) -> None:
    job_id = (await call("start-training", config_name=await call.config("cat")))["job_id"]
    await call("wait-training", job_id=job_id, wait_s=100)
    found = await call("list-samples", job_id=job_id)
    assert [(sample["step"], sample["prompt"]) for sample in found["samples"]][-1] == (12, "pixcat in snow")
    assert "32 x 32" in found["note"]
    picture = await call.client.get(found["samples"][-1]["url"])
    assert picture.headers["content-type"] == "image/jpeg"
    missing = await call.client.get(found["samples"][-1]["url"][:-5] + "9.jpg")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_the_seeds_status_addresses_answer(call: Caller) -> None:
    assert (await call.client.get("/api/jobs")).json() == {"jobs": []}
    job_id = (await call("start-training", config_name=await call.config("cat", steps=ENDLESS)))["job_id"]
    for address in ("/api/jobs", "/api/v2/training/status"):
        (job,) = (await call.client.get(address)).json()["jobs"]
        assert (job["id"], job["job_id"], job["status"]) == (job_id, job_id, "running")


async def test_wait_tells_of_progress_while_it_waits(call: Caller) -> None:
    job_id = (await call("start-training", config_name=await call.config("cat", steps=40)))["job_id"]
    body = {"tool": "wait-training", "arguments": {"job_id": job_id, "wait_s": 100}}
    headers = {"Accept": "text/event-stream"}
    async with call.client.stream("POST", "/mcp/tool", json=body, headers=headers) as answer:
        text = (await answer.aread()).decode()
    assert text.count("event: progress") >= 2
    assert "Training completed" in text


async def test_a_stop_says_what_is_on_disk_and_a_resume_goes_on(call: Caller) -> None:
    job_id = (await call("start-training", config_name=await call.config("cat", steps=ENDLESS)))["job_id"]
    while not (await call("wait-training", job_id=job_id, wait_s=0.1))["step"]:
        pass
    stopped = await call("stop-training", job_id=job_id)
    assert (stopped["status"], stopped["saved"]) == ("stopped", True)
    assert stopped["checkpoint_step"] == stopped["step"]
    assert (await call.refused("stop-training", job_id=job_id))["code"] == "conflict"
    assert (await call("resume-training", job_id=job_id))["status"] == "running"
    saved = await call("save-checkpoint", job_id=job_id, wait_s=60)
    assert saved["checkpoint_step"] >= stopped["checkpoint_step"]
    reconciled = await call("reconcile-jobs")
    assert (reconciled["running"], reconciled["queued"], reconciled["counts"]) == ([job_id], [], {"running": 1})


async def test_a_config_that_another_engine_needs_is_refused_at_the_start(call: Caller) -> None:
    name = await call.config("xl")
    await call(
        "create-training-config",
        name=name,
        model_name="stabilityai/stable-diffusion-xl-base-1.0",
        dataset_path="cats",
        trigger_word="pixcat",
        overwrite=True,
    )
    error = await call.refused("start-training", config_name=name)
    assert error["code"] == "invalid_arguments"
    assert "tinyflux" in error["message"]
    assert (await call("list-training-jobs"))["total"] == 0


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "words"),
    [
        ("start-training", {"config": "cat"}, "invalid_arguments", "`config_name`"),
        ("start-training", {"config_name": "nope"}, "not_found", "nope"),
        ("start-training", {"config_name": "a", "gpu_ids": "first"}, "invalid_arguments", "gpu_ids"),
        ("get-training-status", {"job_id": "nope"}, "not_found", "nope"),
        ("get-training-status", {"job_id": "../jobs"}, "not_found", "../jobs"),
        ("get-training-status", {"id": "x"}, "invalid_arguments", "`job_id`"),
        ("wait-training", {"job_id": "nope", "wait_s": -1}, "invalid_arguments", "wait_s"),
        ("get-training-logs", {"job_id": "nope", "lines": 0}, "invalid_arguments", "lines"),
        ("get-training-loss", {"job_id": "nope"}, "not_found", "nope"),
        ("list-samples", {"job_id": "nope"}, "not_found", "nope"),
        ("stop-training", {"job_id": "nope"}, "not_found", "nope"),
        ("resume-training", {"job_id": "nope"}, "not_found", "nope"),
        ("save-checkpoint", {"job_id": "nope"}, "not_found", "nope"),
    ],
)
async def test_bad_input_is_named(call: Caller, tool: str, arguments: dict[str, Any], code: str, words: str) -> None:
    error = await call.refused(tool, **arguments)
    assert error["code"] == code
    assert words in error["message"]
