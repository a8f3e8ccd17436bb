"""import-lora from a server that answers as aitk_mcp does not: what came is told, and nothing is left of it."""

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mcp_toolserver.errors import BackendRejected, InvalidArguments
from mcp_toolserver.tools import Call
from tests.servers.importing import Serve, importing, lora_bytes, sha256

LORA = lora_bytes(200_000)
TOLD: dict[str, Any] = {
    "model_path": "cat/cat.safetensors",
    "filename": "cat.safetensors",
    "path": "/nonexistent/cat.safetensors",
    "size": len(LORA),
    "sha256": sha256(LORA),
    "etag": '"1"',
    "link_safe": True,
    "training_config": None,
}


def answering(body: Any, content: Response | None = None) -> Starlette:
    """Return a server that answers every tool with `body`, and is asked for models with `content`."""

    async def version(request: Request) -> Response:
        return JSONResponse({"server": "aitk_mcp"})

    async def tool(request: Request) -> Response:
        return JSONResponse(body)

    async def model(request: Request) -> Response:
        assert content is not None
        return content

    return Starlette(
        routes=[
            Route("/mcp/version", version),
            Route("/mcp/tool", tool, methods=["POST"]),
            Route("/models/{path:path}", model),
        ]
    )


def telling(**changes: Any) -> dict[str, Any]:
    """Return an answer of `download-model`."""
    return {"success": True, "tool": "download-model", "result": TOLD | changes}


async def refusal(tmp_path: Path, serve: Serve, server: Starlette) -> Exception:
    """Return what an import from a server raises; it must leave neither a LoRA nor an upload."""
    loras = tmp_path / "loras"
    loras.mkdir()
    async with importing(loras, serve(server), tmp_path / "cache.sqlite") as tools:
        with pytest.raises((BackendRejected, InvalidArguments)) as caught:
            await tools.call("import-lora", {"model_path": "cat"}, Call())
        uploads = (await tools.call("list-uploads", {}, Call()))["uploads"]
    assert (list(loras.glob("*.safetensors")), uploads) == ([], [])
    return caught.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", None),
        ("path", "a\0b"),
        ("size", "abc"),
        ("size", -5),
        ("size", 10**30),
        ("sha256", "zz"),
        ("sha256", None),
        ("etag", '"a"\r\nX: y'),
        ("etag", "\N{SNOWMAN}"),
        ("training_config", [1]),
    ],
)
async def test_what_is_told_wrongly_is_named(tmp_path: Path, serve: Serve, field: str, value: Any) -> None:
    refused = await refusal(tmp_path, serve, answering(telling(**{field: value})))
    assert isinstance(refused, BackendRejected)
    assert (refused.details["field"], f"`{field}` is " in refused.message) == (field, True)


async def test_what_is_not_told_is_named(tmp_path: Path, serve: Serve) -> None:
    told = {name: value for name, value in TOLD.items() if name != "sha256"}
    refused = await refusal(tmp_path, serve, answering({"success": True, "result": told}))
    assert "`sha256` is missing" in str(refused)


@pytest.mark.parametrize("body", [{"success": True, "result": [1]}, {"success": True}, [1], "page"])
async def test_an_answer_without_a_model_is_refused(tmp_path: Path, serve: Serve, body: Any) -> None:
    assert isinstance(await refusal(tmp_path, serve, answering(body)), BackendRejected)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Response("<html>hi</html>"), "unchanged: it answered 200 (15 bytes) where"),
        (Response(status_code=404), "unchanged: it answered 404"),
        (Response(status_code=416, headers={"content-range": "bytes */1"}), "unchanged: it answered 416 (bytes */1)"),
        (StreamingResponse(iter([LORA])), "unchanged: it answered 200 (unknown bytes)"),
        (Response(LORA, headers={"content-encoding": "gzip"}), "answered 200, coded as `gzip`,"),
        (Response(status_code=401), "answered 401 for the bytes"),
        (Response(status_code=302, headers={"location": "http://169.254.169.254/"}), "answered 302 for the bytes"),
    ],
)
async def test_bytes_that_are_not_those_of_the_model_are_told(
    tmp_path: Path, serve: Serve, content: Response, said: str
) -> None:
    refused = await refusal(tmp_path, serve, answering(telling(), content))
    assert isinstance(refused, BackendRejected)
    assert said in refused.message


async def test_a_page_as_long_as_the_model_leaves_no_upload(tmp_path: Path, serve: Serve) -> None:
    page = Response("<html>".ljust(len(LORA)))
    assert isinstance(await refusal(tmp_path, serve, answering(telling(), page)), InvalidArguments)
