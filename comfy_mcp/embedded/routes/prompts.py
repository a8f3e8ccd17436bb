"""POST /prompt, the queue, the history, and the controls of the run."""

import json
import uuid
from typing import Any, cast

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from comfy_mcp.embedded.answers import empty_answer, json_answer, trouble
from comfy_mcp.embedded.engine import Engine
from comfy_mcp.embedded.narration import now_ms
from comfy_mcp.embedded.nodes.catalogue import NODES
from comfy_mcp.embedded.queue import QueuedPrompt
from comfy_mcp.embedded.validation import Graph, problem, validate


def prompt_routes(engine: Engine) -> list[Route]:
    """Return the routes, without the `/api` under which each is found too."""

    async def submit(request: Request) -> Response:
        body = await _json_body(request)
        if body is None:
            return trouble()
        if "prompt" not in body:
            return _refused(problem("no_prompt", "No prompt provided", "No prompt provided"))
        prompt_id = body.get("prompt_id") or str(uuid.uuid4())
        if not _is_canonical_uuid(prompt_id):
            details = (
                "prompt_id must be a UUID string in canonical lowercase hyphenated form;"
                " omit it to let the server generate one"
            )
            return _refused(problem("invalid_prompt_id", "prompt_id must be a valid UUID", details))
        graph = _as_graph(body["prompt"])
        if graph is None:
            return trouble()
        number = engine.queue.next_number(front=bool(body.get("front")))
        if "number" in body:
            number = float(body["number"])
        targets = body.get("partial_execution_targets")
        verdict = await anyio.to_thread.run_sync(validate, graph, NODES, engine.folders, targets)
        if verdict.error is not None:
            return _refused(verdict.error, verdict.node_errors)
        extra_data = dict(body.get("extra_data") or {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        extra_data["create_time"] = now_ms()
        engine.queue.put(QueuedPrompt(number, prompt_id, graph, extra_data, verdict.outputs))
        return json_answer({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})

    async def remaining(request: Request) -> Response:
        return json_answer(engine.status())

    async def queue(request: Request) -> Response:
        running = engine.queue.running
        return json_answer(
            {
                "queue_running": [] if running is None else [running.as_list()],
                "queue_pending": [prompt.as_list() for prompt in engine.queue.waiting()],
            }
        )

    async def edit_queue(request: Request) -> Response:
        body = await _json_body(request)
        if body is None:
            return trouble()
        if body.get("clear"):
            engine.queue.clear()
        engine.queue.delete(body.get("delete") or [])
        return empty_answer()

    async def history(request: Request) -> Response:
        entries = list(engine.queue.history.values())
        try:
            count = int(request.query_params.get("max_items", len(entries)))
            offset = int(request.query_params.get("offset", -1))
        except ValueError:
            return trouble()
        first = max(0, len(entries) - count) if offset < 0 else offset
        return json_answer({entry.prompt.prompt_id: entry.as_dict() for entry in entries[first : first + count]})

    async def history_of_one(request: Request) -> Response:
        entry = engine.queue.history.get(request.path_params["prompt_id"])
        return json_answer({} if entry is None else {entry.prompt.prompt_id: entry.as_dict()})

    async def edit_history(request: Request) -> Response:
        body = await _json_body(request)
        if body is None:
            return trouble()
        if body.get("clear"):
            engine.queue.history.clear()
        unwanted: list[Any] = body.get("delete") or []
        for prompt_id in unwanted:
            engine.queue.history.pop(prompt_id, None)
        return empty_answer()

    async def interrupt(request: Request) -> Response:
        body = await _json_body(request) or {}
        engine.interrupt(body.get("prompt_id"))
        return empty_answer()

    async def free(request: Request) -> Response:
        body = await _json_body(request)
        if body is None:
            return trouble()
        engine.free(models=bool(body.get("unload_models")), results=bool(body.get("free_memory")))
        return empty_answer()

    return [
        Route("/prompt", remaining, methods=["GET"]),
        Route("/prompt", submit, methods=["POST"]),
        Route("/queue", queue, methods=["GET"]),
        Route("/queue", edit_queue, methods=["POST"]),
        Route("/history", history, methods=["GET"]),
        Route("/history", edit_history, methods=["POST"]),
        Route("/history/{prompt_id}", history_of_one, methods=["GET"]),
        Route("/interrupt", interrupt, methods=["POST"]),
        Route("/free", free, methods=["POST"]),
    ]


def _refused(error: dict[str, Any], node_errors: dict[str, Any] | None = None) -> Response:
    return json_answer({"error": error, "node_errors": node_errors or {}}, 400)


async def _json_body(request: Request) -> dict[str, Any] | None:
    """Return the body's object, empty for other JSON; None when it is no JSON.

    The standard library's parser, because graphs hold NaN and numbers of 64 bits and more.
    """
    try:
        body = json.loads(await request.body())
    except ValueError:
        return None
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}


def _as_graph(value: Any) -> Graph | None:
    """Return the graph if it has the outline of one: nodes by their ids."""
    if not isinstance(value, dict):
        return None
    nodes = cast("dict[str, Any]", value)
    return nodes if all(isinstance(node, dict) for node in nodes.values()) else None


def _is_canonical_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False
