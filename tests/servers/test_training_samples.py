"""Sample pictures as callers get them, and the deletion of jobs, over a real socket on the embedded engine."""

import base64
from collections.abc import AsyncGenerator, Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from PIL import Image
from starlette.types import ASGIApp

from tests.servers.training import ENDLESS, Caller, training_server


@pytest.fixture
async def call(tmp_path: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[Caller]:
    """Give a server with a dataset."""
    async with training_server(tmp_path, serve) as caller:
        yield caller


async def trained(call: Caller, **config: Any) -> str:
    """Train to the end and return the job's id."""
    job_id = (await call("start-training", config_name=await call.config("cat", **config)))["job_id"]
    assert (await call("wait-training", job_id=job_id, wait_s=100))["status"] == "completed"
    return job_id


async def running(call: Caller, **config: Any) -> str:
    """Start a training without an end, and return its id once it has trained a step."""
    job_id = (await call("start-training", config_name=await call.config("cat", steps=ENDLESS, **config)))["job_id"]
    while not (await call("wait-training", job_id=job_id, wait_s=0.1))["step"]:
        pass
    return job_id


def pictures_in(content: list[Any]) -> list[tuple[str, Image.Image]]:
    """Return the pictures of an MCP answer, each with the words before it."""
    found: list[tuple[str, Image.Image]] = []
    for words, block in pairwise(content):
        if block.type == "image":
            assert block.mime_type == "image/jpeg"
            found.append((words.text, Image.open(BytesIO(base64.b64decode(block.data)))))
    return found


async def test_samples_have_addresses_and_say_that_they_were_scaled(call: Caller) -> None:
    prompts = ["pixcat in snow", "pixcat at night"]
    job_id = await trained(call, test_prompts=prompts, steps=12, overrides={"sample": {"sample_every": 5}})
    found = await call("list-samples", job_id=job_id, limit=5)
    shown = [(sample["step"], sample["prompt"]) for sample in found["samples"]]
    assert shown == [(12, prompts[0]), (12, prompts[1]), (10, prompts[0]), (10, prompts[1]), (5, prompts[0])]
    assert found["total"] > 5
    assert "32 x 32" in found["note"]
    newest = found["samples"][0]
    picture = await call.client.get(newest["url"])
    assert picture.headers["content-type"] == "image/jpeg"
    small = await call.client.get(newest["thumbnail_url"])
    with Image.open(BytesIO(small.content)) as thumbnail:
        assert (small.headers["content-type"], max(thumbnail.size)) == ("image/jpeg", 256)
    missing = await call.client.get(newest["url"][:-5] + "9.jpg")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_mcp_shows_the_newest_samples_as_small_pictures(call: Caller) -> None:
    job_id = await trained(call, overrides={"sample": {"sample_every": 3}})
    async with Client(f"{call.client.base_url}/mcp") as client:
        answer = await client.call_tool("list-samples", {"job_id": job_id, "show": 2})
        assert answer.structured_content == await call("list-samples", job_id=job_id)
        shown = pictures_in(list(answer.content))
        assert [words for words, _ in shown] == [
            "Step 12, prompt 0: pixcat in snow",
            "Step 9, prompt 0: pixcat in snow",
        ]
        assert {max(picture.size) for _, picture in shown} == {256}
        assert (
            len(pictures_in(list((await client.call_tool("list-samples", {"job_id": job_id, "show": 0})).content))) == 0
        )


async def test_samples_are_drawn_on_demand_while_the_training_goes_on(call: Caller) -> None:
    job_id = await running(call, overrides={"sample": {"sample_every": ENDLESS}, "train": {"skip_first_sample": True}})
    assert (await call("list-samples", job_id=job_id))["note"].startswith("None are drawn yet")
    drawn = await call("sample-now", job_id=job_id, wait_s=60)
    assert (drawn["complete"], drawn["status"], drawn["total"]) == (True, "running", 1)
    assert drawn["samples"][0]["step"] >= 1
    assert (await call("list-samples", job_id=job_id))["samples"] == drawn["samples"]
    later = await call("sample-now", job_id=job_id, wait_s=0)
    assert later["complete"] or "list-samples" in later["note"]
    await call("stop-training", job_id=job_id, save=False)
    assert (await call.refused("sample-now", job_id=job_id))["code"] == "conflict"


async def test_a_job_without_test_prompts_says_so(call: Caller) -> None:
    job_id = await running(call, test_prompts=[], disable_sampling=True)
    error = await call.refused("sample-now", job_id=job_id)
    assert (error["code"], "test_prompts" in error["hint"]) == ("conflict", True)
    assert "no test prompts" in (await call("list-samples", job_id=job_id))["note"]


async def test_a_deleted_job_leaves_its_models_unless_they_are_to_go(call: Caller) -> None:
    job_id = await trained(call)
    deleted = await call("delete-training-job", job_id=job_id)
    assert (deleted["status"], deleted["was_stopped"], deleted["deleted_models"]) == ("completed", False, [])
    assert deleted["kept_models"] == ["cat/cat.safetensors"]
    assert "still shows its LoRA" in deleted["message"]
    (model,) = (await call("list-exported-models"))["models"]
    assert model["model_path"] == "cat/cat.safetensors"
    assert (await call("get-model-info", model_path="cat"))["training_config"]
    assert (await call.refused("get-training-status", job_id=job_id))["code"] == "not_found"
    again = await trained(call, overwrite=True, steps=14)
    deleted = await call("delete-training-job", job_id=again, delete_models=True)
    assert deleted["deleted_models"] == ["cat/cat.safetensors"]
    assert (await call("list-exported-models"))["models"] == []
    assert (await call("list-training-jobs"))["total"] == 0


async def test_a_running_job_is_stopped_before_it_is_deleted(call: Caller) -> None:
    job_id = await running(call)
    waiting = (await call("start-training", config_name=await call.config("later", steps=ENDLESS)))["job_id"]
    withdrawn = await call("delete-training-job", job_id=waiting)
    assert (withdrawn["was_stopped"], withdrawn["status"], withdrawn["kept_models"]) == (True, "stopped", [])
    assert "no LoRA" in withdrawn["message"]
    deleted = await call("delete-training-job", job_id=job_id, delete_models=True)
    assert (deleted["was_stopped"], deleted["status"]) == (True, "stopped")
    assert (await call("list-training-jobs"))["total"] == 0


async def test_models_that_another_job_shares_are_not_deleted_with_one(call: Caller) -> None:
    first = await trained(call)
    second = await trained(call, overwrite=True, steps=14)
    error = await call.refused("delete-training-job", job_id=first, delete_models=True)
    assert (error["code"], error["details"]["sharing"]) == ("conflict", [second])
    kept = await call("delete-training-job", job_id=first)
    assert "another job" in kept["message"]
    assert (await call("list-samples", job_id=second))["total"] > 0
    assert (await call("get-training-loss", job_id=second))["total_points"] > 0
