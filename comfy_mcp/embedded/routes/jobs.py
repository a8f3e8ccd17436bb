"""The queue and the history as ComfyUI 0.30's /api/jobs shows them."""

import json
from collections.abc import Mapping
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from comfy_mcp.embedded.answers import json_answer
from comfy_mcp.embedded.engine import Engine
from comfy_mcp.embedded.queue import Finished, QueuedPrompt

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")

_ENDS = ("execution_success", "execution_error", "execution_interrupted")


def job_routes(engine: Engine) -> list[Route]:
    """Return the routes; unlike all others they are found under `/api` alone."""

    def every_job() -> list[dict[str, Any]]:
        running = engine.queue.running
        waiting = [unfinished_job(prompt, "pending") for prompt in engine.queue.waiting()]
        started = [] if running is None else [unfinished_job(running, "in_progress")]
        return waiting + started + [finished_job(entry) for entry in engine.queue.history.values()]

    async def jobs(request: Request) -> Response:
        return list_jobs(every_job(), request.query_params)

    async def job(request: Request) -> Response:
        job_id = request.path_params["job_id"]
        if job_id in engine.queue.history:
            return json_answer(finished_job(engine.queue.history[job_id], whole=True))
        found = next((job for job in every_job() if job["id"] == job_id), None)
        return json_answer({"error": "Job not found"}, 404) if found is None else json_answer(found)

    def cancel_one(job_id: str) -> bool:
        return engine.interrupt(job_id) or engine.queue.delete([job_id])

    async def cancel(request: Request) -> Response:
        return json_answer({"cancelled": cancel_one(request.path_params["job_id"])})

    async def cancel_several(request: Request) -> Response:
        try:
            job_ids: Any = json.loads(await request.body())["job_ids"]
        except (ValueError, KeyError, TypeError):
            job_ids = None
        if not isinstance(job_ids, list):
            return json_answer({"error": "job_ids must be a list"}, 400)
        cancelled = [cancel_one(str(job_id)) for job_id in cast("list[Any]", job_ids)]
        return json_answer({"cancelled": any(cancelled)})

    return [
        Route("/api/jobs", jobs, methods=["GET"]),
        Route("/api/jobs/cancel", cancel_several, methods=["POST"]),
        Route("/api/jobs/{job_id}", job, methods=["GET"]),
        Route("/api/jobs/{job_id}/cancel", cancel, methods=["POST"]),
    ]


def unfinished_job(prompt: QueuedPrompt, status: str) -> dict[str, Any]:
    """Describe a prompt that waits or runs."""
    return {
        "id": prompt.prompt_id,
        "status": status,
        "priority": prompt.number,
        "create_time": prompt.extra_data["create_time"],
        "outputs_count": 0,
    }


def finished_job(entry: Finished, *, whole: bool = False) -> dict[str, Any]:
    """Describe a prompt that has run; `whole` adds its outputs, its course and its graph."""
    messages = dict(entry.outcome.messages)
    status = "completed" if entry.outcome.completed else "failed"
    if "execution_interrupted" in messages:
        status = "cancelled"
    files = [
        {**file, "nodeId": node_id, "mediaType": "images"}
        for node_id, output in entry.outcome.outputs.items()
        for file in output["images"]
    ]
    job: dict[str, Any] = {
        **unfinished_job(entry.prompt, status),
        "execution_start_time": messages["execution_start"]["timestamp"],
        "execution_end_time": next(messages[event]["timestamp"] for event in _ENDS if event in messages),
        "outputs_count": len(files),
    }
    if "execution_error" in messages:
        job["execution_error"] = messages["execution_error"]
    if files:
        # A saved picture is worth more than a preview, which is gone when the server ends.
        job["preview_output"] = next((file for file in files if file["type"] == "output"), files[0])
    if whole:
        job |= {
            "outputs": entry.outcome.outputs,
            "execution_status": entry.outcome.status(),
            "workflow": {"prompt": entry.prompt.graph, "extra_data": entry.prompt.extra_data},
        }
    return job


def list_jobs(jobs: list[dict[str, Any]], query: Mapping[str, str]) -> Response:
    """Filter, sort and cut the list as the query says; 400 with ComfyUI's words for a query that makes no sense."""
    wanted = [word.strip().lower() for word in query.get("status", "").split(",") if word.strip()]
    unknown = [word for word in wanted if word not in STATUSES]
    if unknown:
        words = f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUSES)}"
        return json_answer({"error": words}, 400)
    sort_by = query.get("sort_by", "created_at")
    if sort_by not in {"created_at", "execution_duration"}:
        return json_answer({"error": "sort_by must be 'created_at' or 'execution_duration'"}, 400)
    order = query.get("sort_order", "desc")
    if order not in {"asc", "desc"}:
        return json_answer({"error": "sort_order must be 'asc' or 'desc'"}, 400)
    limit = _whole_number(query.get("limit"))
    if "limit" in query and (limit is None or limit < 1):
        return json_answer({"error": "limit must be a positive integer"}, 400)
    offset = max(0, _whole_number(query.get("offset")) or 0)
    found = [job for job in jobs if not wanted or job["status"] in wanted]
    found.sort(key=_duration_ms if sort_by == "execution_duration" else _creation_ms, reverse=order == "desc")
    end = len(found) if limit is None else offset + limit
    pagination = {"offset": offset, "limit": limit, "total": len(found), "has_more": end < len(found)}
    return json_answer({"jobs": found[offset:end], "pagination": pagination})


def _creation_ms(job: Mapping[str, Any]) -> int:
    return job["create_time"]


def _duration_ms(job: Mapping[str, Any]) -> int:
    return job.get("execution_end_time", 0) - job.get("execution_start_time", 0)


def _whole_number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
