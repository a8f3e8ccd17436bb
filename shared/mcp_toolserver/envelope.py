"""The REST envelope: how a result and an error look outside MCP."""

from typing import Any

import orjson
from starlette.responses import Response

from mcp_toolserver.errors import ToolError


class JsonResponse(Response):
    """Answer with JSON in UTF-8."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def success_body(tool: str, result: Any, request_id: str) -> dict[str, Any]:
    """Return the envelope of a tool's result."""
    return {"success": True, "tool": tool, "result": result, "request_id": request_id}


def error_body(error: ToolError, *, tool: str | None, request_id: str) -> dict[str, Any]:
    """Return the envelope of an error."""
    return {"success": False, "tool": tool, "error": error.as_dict(), "request_id": request_id}


def error_response(error: ToolError, *, request_id: str, tool: str | None = None) -> JsonResponse:
    """Render an error as an HTTP response with its status."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JsonResponse(error_body(error, tool=tool, request_id=request_id), status_code=error.status, headers=headers)
