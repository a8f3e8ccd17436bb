"""The queue, the history, interrupts, and the same through /api/jobs."""

import uuid

import pytest

from tests.contract.comfyui.talk import Comfy

# Far more steps than a test waits for: these runs are always stopped.
ENDLESS = 10_000


async def _endless(comfy: Comfy, seed: int) -> str:
    """Start a run and wait until it works."""
    prompt_id = await comfy.submit(comfy.graph(seed=seed, steps=ENDLESS))
    await comfy.hear_until("progress", prompt_id=prompt_id)
    return prompt_id


async def _has_no_jobs(comfy: Comfy) -> bool:
    """Tell whether the server is older than /api/jobs, and hold it to the 404 of such servers."""
    if comfy.differences.has("GET /api/jobs"):
        return False
    assert (await comfy.http.get("/api/jobs")).status_code == 404
    return True


async def _cancel(comfy: Comfy, prompt_id: str) -> bool:
    """Cancel a prompt in the way that this server has, and return what its answer says."""
    path = f"/api/jobs/{prompt_id}/cancel"
    answer = await comfy.post(path)
    if comfy.differences.has("POST /api/jobs/{id}/cancel"):
        return answer.json()["cancelled"]
    assert answer.status_code == 405
    known = (await comfy.get("/api/jobs", status="pending,in_progress"))["jobs"]
    await comfy.post("/queue", {"delete": [prompt_id]})
    await comfy.post("/interrupt", {"prompt_id": prompt_id})
    return prompt_id in {job["id"] for job in known}


async def test_queue_shows_what_runs_and_what_waits(comfy: Comfy) -> None:
    running = await _endless(comfy, 201)
    waiting = await comfy.submit(comfy.graph(seed=202))
    first = await comfy.submit(comfy.graph(seed=203), front=True)

    queue = await comfy.get("/queue")
    assert [entry[1] for entry in queue["queue_running"]] == [running]
    assert sorted(entry[1] for entry in queue["queue_pending"]) == sorted([waiting, first])
    number, prompt_id, graph, extra_data, outputs = queue["queue_running"][0]
    assert isinstance(number, int)
    assert (prompt_id, outputs) == (running, ["9"])
    assert graph["31"]["inputs"]["seed"] == 201
    assert extra_data["client_id"] == comfy.client_id
    if comfy.differences.has("a prompt's create_time"):
        assert extra_data["create_time"] > 1_600_000_000_000
    assert await comfy.get("/prompt") == {"exec_info": {"queue_remaining": 3}}

    deleted = await comfy.post("/queue", {"delete": [waiting]})
    assert (deleted.status_code, deleted.text) == (200, "")
    await comfy.post("/queue", {"delete": [running]})
    await comfy.post("/interrupt", {"prompt_id": running})
    stopped = await comfy.end_of(running)
    assert stopped.words[-3:] == ["execution_interrupted", "status", "executing"]
    assert (stopped.history["status"]["status_str"], stopped.history["status"]["completed"]) == ("error", False)
    assert (await comfy.end_of(first)).history["status"]["completed"] is True
    assert await comfy.get(f"/history/{waiting}") == {}


async def test_front_runs_before_those_that_came_earlier(comfy: Comfy) -> None:
    running = await _endless(comfy, 211)
    later = await comfy.submit(comfy.graph(seed=212))
    first = await comfy.submit(comfy.graph(seed=213), front=True)
    await comfy.post("/interrupt", {"prompt_id": running})
    await comfy.end_of(running)
    started = await comfy.hear_until("execution_start")
    assert started["prompt_id"] == first
    await comfy.end_of(later)


async def test_clear_empties_the_queue_but_for_the_running_prompt(comfy: Comfy) -> None:
    running = await _endless(comfy, 221)
    waiting = [await comfy.submit(comfy.graph(seed=seed)) for seed in (222, 223)]
    await comfy.post("/queue", {"clear": True})
    queue = await comfy.get("/queue")
    assert ([entry[1] for entry in queue["queue_running"]], queue["queue_pending"]) == ([running], [])
    await comfy.post("/interrupt")
    await comfy.end_of(running)
    for prompt_id in waiting:
        assert await comfy.get(f"/history/{prompt_id}") == {}


async def test_interrupt_of_another_prompt_or_of_none_does_nothing(comfy: Comfy) -> None:
    await comfy.post("/interrupt", {"prompt_id": str(uuid.uuid4())})
    await comfy.post("/interrupt")
    ended = await comfy.run(comfy.graph(seed=231))
    assert ended.history["status"]["status_str"] == "success"


async def test_history_holds_graph_outputs_and_course(comfy: Comfy) -> None:
    prompt_id = str(uuid.uuid4())
    ended = await comfy.run(comfy.graph(seed=241), prompt_id=prompt_id, extra_data={"note": "kept"})
    assert ended.prompt_id == prompt_id
    entry = ended.history
    assert entry["prompt"][1] == prompt_id
    assert entry["prompt"][3]["note"] == "kept"
    assert entry["prompt"][4] == ["9"]
    assert entry["meta"] == {"9": {"node_id": "9", "display_node": "9", "parent_node": None, "real_node_id": "9"}}
    assert [event for event, _ in entry["status"]["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]
    latest = await comfy.get("/history", max_items=1)
    assert list(latest) == [prompt_id]
    assert (await comfy.post("/history", {"delete": [prompt_id, "unknown"]})).text == ""
    assert await comfy.get(f"/history/{prompt_id}") == {}


async def test_jobs_tell_pending_running_cancelled(comfy: Comfy) -> None:
    if await _has_no_jobs(comfy):
        return
    running = await _endless(comfy, 251)
    waiting = await comfy.submit(comfy.graph(seed=252))
    job = await comfy.get(f"/api/jobs/{running}")
    assert (job["status"], job["outputs_count"]) == ("in_progress", 0)
    assert (await comfy.get(f"/api/jobs/{waiting}"))["status"] == "pending"
    listed = await comfy.get("/api/jobs", status="pending,in_progress")
    assert {job["id"] for job in listed["jobs"]} == {running, waiting}

    assert await _cancel(comfy, waiting)
    gone = await comfy.http.get(f"/api/jobs/{waiting}")
    assert (gone.status_code, gone.json()) == (404, {"error": "Job not found"})
    assert await _cancel(comfy, running)
    await comfy.end_of(running)
    job = await comfy.get(f"/api/jobs/{running}")
    assert (job["status"], job["outputs"]) == ("cancelled", {})
    assert job["execution_status"]["messages"][-1][0] == "execution_interrupted"
    assert job["execution_start_time"] <= job["execution_end_time"]
    assert not await _cancel(comfy, running)


async def test_jobs_tell_completed_and_failed(comfy: Comfy) -> None:
    if await _has_no_jobs(comfy):
        return
    done = await comfy.run(comfy.graph(seed=261))
    job = await comfy.get(f"/api/jobs/{done.prompt_id}")
    assert (job["status"], job["outputs_count"]) == ("completed", 1)
    preview = job["preview_output"]
    assert preview == {**done.images[0], "nodeId": "9", "mediaType": "images"}
    failed = await comfy.run(comfy.graph(seed=262, negative=None))
    job = await comfy.get(f"/api/jobs/{failed.prompt_id}")
    assert job["status"] == "failed"
    assert job["execution_error"]["exception_type"] == "TypeError"
    newest = await comfy.get("/api/jobs", status="completed,failed", limit=1)
    assert [job["id"] for job in newest["jobs"]] == [failed.prompt_id]
    page = newest["pagination"]
    assert (page["offset"], page["limit"], page["has_more"]) == (0, 1, True)
    oldest = await comfy.get(
        "/api/jobs", sort_order="asc", limit=1, offset=page["total"] - 1, status="completed,failed"
    )
    assert [job["id"] for job in oldest["jobs"]] == [failed.prompt_id]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (
            {"status": "bogus"},
            "Invalid status value(s): bogus. Valid values: pending, in_progress, completed, failed, cancelled",
        ),
        ({"limit": "0"}, "limit must be a positive integer"),
        ({"sort_by": "x"}, "sort_by must be 'created_at' or 'execution_duration'"),
    ],
)
async def test_jobs_refuse_a_query_that_makes_no_sense(comfy: Comfy, query: dict[str, str], words: str) -> None:
    if await _has_no_jobs(comfy):
        return
    response = await comfy.http.get("/api/jobs", params=query)
    assert (response.status_code, response.json()) == (400, {"error": words})


async def test_jobs_cannot_cancel_what_is_not_there(comfy: Comfy) -> None:
    if await _has_no_jobs(comfy):
        return
    unknown = str(uuid.uuid4())
    assert not await _cancel(comfy, unknown)
    if not comfy.differences.has("POST /api/jobs/{id}/cancel"):
        return
    assert (await comfy.post("/api/jobs/cancel", {"job_ids": [unknown]})).json() == {"cancelled": False}
    refused = await comfy.post("/api/jobs/cancel", {"job_ids": unknown})
    assert (refused.status_code, refused.json()) == (400, {"error": "job_ids must be a list"})
    assert (await comfy.http.get("/jobs")).status_code == 404
