"""Answers in ComfyUI's form, where it differs from Starlette's."""

import json
from typing import Any

from starlette.responses import Response

_TROUBLE = "500 Internal Server Error\n\nServer got itself in trouble"


def dump_json(value: Any) -> bytes:
    """Write JSON as ComfyUI does: NaN, which a graph may hold, is written as NaN."""
    return json.dumps(value).encode()


def json_answer(value: Any, status: int = 200) -> Response:
    """Answer with JSON."""
    return Response(dump_json(value), status, {"content-type": "application/json; charset=utf-8"})


def empty_answer(status: int = 200) -> Response:
    """Answer with no body at all, as most of ComfyUI's controls and refusals do."""
    return Response(status_code=status)


def trouble() -> Response:
    """Answer a request that ComfyUI does not survive, such as a body that is no JSON, in its own words."""
    return Response(_TROUBLE, 500, media_type="text/plain")
