"""The REST door: `POST /mcp/tool` for curl and scripts, and the lists that hide no tool."""

import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import anyio
import orjson
from anyio.streams.memory import MemoryObjectSendStream
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from mcp_toolserver.envelope import JsonResponse, error_body, error_response, success_body
from mcp_toolserver.errors import InvalidArguments, ToolError, did_you_mean
from mcp_toolserver.tools import AnyTool, Call, Effect, Toolbox

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15.0
_NAME_KEYS = ("tool", "name")
_ARGUMENT_KEYS = ("arguments", "parameters", "params")


def describe_tool(tool: AnyTool) -> dict[str, Any]:
    """Return a tool as the lists show it: the same object as MCP's `tools/list`."""
    return {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": tool.input_schema(),
        "outputSchema": tool.output_schema(),
        "annotations": annotations(tool),
    }


def annotations(tool: AnyTool) -> dict[str, bool]:
    """Return MCP's hints about what a call may change."""
    return {
        "readOnlyHint": tool.effect is Effect.READ,
        "destructiveHint": tool.effect is Effect.DESTROY,
        "openWorldHint": False,
    }


def rest_routes(toolbox: Toolbox, public_url: str | None = None) -> list[Route]:
    """Return the routes that list and call tools without MCP."""
    door = RestDoor(toolbox, public_url)
    return [
        Route("/mcp/tool", door.call, methods=["POST"]),
        Route("/mcp/execute", door.call, methods=["POST"]),
        Route("/mcp/tools", door.list_tools, methods=["GET"]),
        Route("/mcp/tools/list", door.list_tools, methods=["GET"]),
    ]


class RestDoor:
    """Call tools from plain HTTP."""

    def __init__(self, toolbox: Toolbox, public_url: str | None) -> None:
        self._toolbox = toolbox
        self._public_url = public_url
        self._listed = orjson.dumps(
            {"tools": [describe_tool(tool) for tool in toolbox.tools], "count": len(toolbox.tools)}
        )

    async def list_tools(self, request: Request) -> Response:
        """Answer with every tool, its description and both schemas."""
        return Response(self._listed, media_type="application/json")

    async def call(self, request: Request) -> Response:
        """Run the tool that the body names, and answer in the envelope (or as server-sent events if asked)."""
        request_id: str = request.state.request_id
        as_text = request.query_params.get("result") == "text"
        name: str | None = None
        try:
            name, arguments = _read(await _body(request))
            tool = self._toolbox.find(name).name
            call = Call(request_id=request_id, base_url=base_url(request, self._public_url), caller=caller_of(request))
            if "text/event-stream" in request.headers.get("accept", ""):
                return StreamingResponse(
                    self._events(tool, arguments, call, as_text=as_text),
                    media_type="text/event-stream",
                    headers={"Cache-Control": "no-store"},
                )
            result = await self._toolbox.call(tool, arguments, call)
        except ToolError as error:
            return error_response(error, tool=name, request_id=request_id)
        return JsonResponse(success_body(tool, _shaped(result, as_text=as_text), request_id))

    async def _events(
        self, tool: str, arguments: Mapping[str, Any], call: Call, *, as_text: bool
    ) -> AsyncIterator[bytes]:
        sender, receiver = anyio.create_memory_object_stream[bytes](64)

        async def report(done: float, /, total: float | None = None, message: str | None = None) -> None:
            await sender.send(_event("progress", {"progress": done, "total": total, "message": message}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(self._run, as_text=as_text), tool, arguments, replace(call, report=report), sender)
            async with receiver:
                while True:
                    chunk = b": still working\n\n"
                    with anyio.move_on_after(KEEP_ALIVE_S):
                        try:
                            chunk = await receiver.receive()
                        except anyio.EndOfStream:
                            break
                    yield chunk

    async def _run(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        call: Call,
        sender: MemoryObjectSendStream[bytes],
        *,
        as_text: bool,
    ) -> None:
        async with sender:
            try:
                result = await self._toolbox.call(tool, arguments, call)
            except ToolError as error:
                await sender.send(_event("error", error_body(error, tool=tool, request_id=call.request_id)))
            else:
                shaped = _shaped(result, as_text=as_text)
                await sender.send(_event("result", success_body(tool, shaped, call.request_id)))


def base_url(request: Request, public_url: str | None) -> str:
    """Return this server's address as the caller knows it, without a slash at its end."""
    return (public_url or str(request.base_url)).rstrip("/")


def caller_of(request: Request) -> str | None:
    """Return the address that a request came from."""
    return request.client.host if request.client else None


async def _body(request: Request) -> bytearray:
    """Return the body; unlike `request.body()`, in one block, which the request does not keep while the tool runs."""
    announced = request.headers.get("content-length", "")
    body, filled = bytearray(int(announced) if announced.isdecimal() else 0), 0
    async for piece in request.stream():
        body[filled : filled + len(piece)] = piece
        filled += len(piece)
    del body[filled:]
    return body


def _shaped(result: dict[str, Any], *, as_text: bool) -> Any:
    return orjson.dumps(result).decode() if as_text else result


def _event(name: str, data: Any) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


def _read(body: bytearray) -> tuple[str, Mapping[str, Any]]:
    try:
        payload: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArguments(
            f"The request's body is not JSON: {error}.",
            hint='Send {"tool": "NAME", "arguments": {}}; GET /mcp/tools lists the names.',
        ) from None
    if not isinstance(payload, dict):
        raise InvalidArguments(
            "The request's body is not a JSON object.",
            hint='Send {"tool": "NAME", "arguments": {}}; GET /mcp/tools lists the names.',
        )
    fields = cast(dict[str, Any], payload)
    for key in fields:
        if key not in (*_NAME_KEYS, *_ARGUMENT_KEYS):
            raise InvalidArguments(
                f"Unknown key `{key}` in the request's body.{did_you_mean(key, (*_NAME_KEYS, *_ARGUMENT_KEYS))}",
                hint="A call has `tool` and `arguments`; the tool's own parameters belong inside `arguments`.",
            )
    names = [key for key in _NAME_KEYS if key in fields]
    if not names or not isinstance(fields[names[0]], str):
        raise InvalidArguments(
            "The body names no tool.", hint='Send {"tool": "NAME", "arguments": {…}}; GET /mcp/tools lists the names.'
        )
    given = next((fields[key] for key in _ARGUMENT_KEYS if key in fields), None)
    if given is None:
        return fields[names[0]], {}
    if not isinstance(given, dict):
        raise InvalidArguments(f"`arguments` is a {type(given).__name__}, not a JSON object.", hint="Send an object.")
    return fields[names[0]], cast(dict[str, Any], given)
