"""The training tools and addresses of aitk_mcp, over a real socket on the embedded engine."""

from collections.abc import AsyncGenerator, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.types import ASGIApp

from tests.servers.training import ENDLESS, Caller, training_server


@pytest.fixture
async def call(tmp_path: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[Caller]:
    """Give a server with a dataset."""
    async with training_server(tmp_path, serve) as caller:
        yield caller


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
        ("list-samples", {"job_id": "nope", "show": 13}, "invalid_arguments", "show"),
        ("sample-now", {"job_id": "nope"}, "not_found", "nope"),
        ("delete-training-job", {"job_id": "nope"}, "not_found", "nope"),
        ("delete-training-job", {"job_id": "nope", "keep_models": True}, "invalid_arguments", "`delete_models`"),
        ("stop-training", {"job_id": "nope"}, "not_found", "nope"),
        ("resume-training", {"job_id": "nope"}, "not_found", "nope"),
        ("save-checkpoint", {"job_id": "nope"}, "not_found", "nope"),
    ],
)
async def test_bad_input_is_named(call: Caller, tool: str, arguments: dict[str, Any], code: str, words: str) -> None:
    error = await call.refused(tool, **arguments)
    assert error["code"] == code
    assert words in error["message"]
