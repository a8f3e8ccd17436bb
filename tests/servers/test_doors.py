"""Every door of a tool server, over the same toy tools: MCP in both eras, stdio, REST, and the guard before them."""

import json
import os
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from pydantic import SecretStr
from starlette.types import ASGIApp

from mcp_toolserver.app import create_server_app
from mcp_toolserver.auth import DoorPolicy
from tests.conftest import server_process
from tests.fakes.toy_server import SERVER

Serve = Callable[[ASGIApp], str]
TOY = Path(__file__).parent.parent / "fakes" / "toy_server.py"


@pytest.fixture
def url(serve: Serve) -> str:
    """Serve the toy tools."""
    return serve(create_server_app(SERVER, DoorPolicy()))


@asynccontextmanager
async def mcp_client(door: str, url: str) -> AsyncGenerator[Client]:
    """Connect through one of the MCP doors."""
    if door == "stdio":
        environment = {"PYTHONPATH": os.environ["PYTHONPATH"]}
        target: Any = StdioServerParameters(command=sys.executable, args=[str(TOY)], env=environment)
        async with Client(target) as client:
            yield client
    elif door == "memory":
        from mcp_toolserver.mcp_door import mcp_server

        async with Client(mcp_server("toy", "1", "Toy", "", SERVER.toolbox)) as client:
            yield client
    else:
        async with Client(f"{url}/mcp", mode="legacy" if door == "2025-11-25" else "auto") as client:
            assert client.protocol_version == door
            yield client


MCP_DOORS = ["memory", "2025-11-25", "2026-07-28", "stdio"]


@pytest.mark.parametrize("door", MCP_DOORS)
async def test_mcp_lists_calls_reports_and_refuses(door: str, url: str) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with mcp_client(door, url) as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["count-letters", "delete-all", "break-down"]
        assert tools[0].output_schema is not None
        assert tools[1].annotations is not None
        assert tools[1].annotations.destructive_hint

        answer = await client.call_tool("count_letters", {"text": "lora"}, progress_callback=hear)
        assert answer.structured_content == {"letters": 4}
        assert json.loads(answer.content[0].model_dump()["text"]) == {"letters": 4}
        assert heard == [(1.0, 2.0, "counting")]

        refused = await client.call_tool("count-letters", {"txt": "lora"})
        assert refused.is_error
        assert refused.structured_content["code"] == "invalid_arguments"
        said = refused.content[0].model_dump()["text"]
        assert "did you mean `text`?" in said
        assert "GET " not in said

        unknown = await client.call_tool("count-leters", {})
        assert unknown.is_error
        assert unknown.structured_content["details"]["closest_matches"] == ["count-letters"]


async def rest(url: str, body: Any, query: str = "", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await client.post(f"{url}/mcp/tool{query}", content=content, headers=headers)


async def test_rest_answers_in_the_envelope(url: str) -> None:
    answer = await rest(url, {"tool": "count-letters", "arguments": {"text": "flux"}}, **{"X-Request-ID": "abc-1"})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "abc-1"
    expected = {"success": True, "tool": "count-letters", "result": {"letters": 4}, "request_id": "abc-1"}
    assert answer.json() == expected


@pytest.mark.parametrize(
    "body",
    [
        {"name": "count_letters", "parameters": {"text": "flux"}},
        {"tool": "count-letters", "params": {"text": "flux"}},
        {"tool": "count_letters", "arguments": {"words": "flux"}},
    ],
)
async def test_rest_takes_every_alias(url: str, body: dict[str, Any]) -> None:
    assert (await rest(url, body)).json()["result"] == {"letters": 4}


async def test_execute_is_tool_and_result_can_be_text(url: str) -> None:
    async with httpx.AsyncClient() as client:
        body = {"tool": "count-letters", "arguments": {"text": "ab"}}
        answer = await client.post(f"{url}/mcp/execute?result=text", json=body)
    assert json.loads(answer.json()["result"]) == {"letters": 2}


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        (b"{", 422, "invalid_arguments", "not JSON"),
        (b"[]", 422, "invalid_arguments", "not a JSON object"),
        ({}, 422, "invalid_arguments", "names no tool"),
        ({"tool": "count-letters", "argument": {}}, 422, "invalid_arguments", "`arguments`"),
        ({"tool": "count-letters", "arguments": []}, 422, "invalid_arguments", "not a JSON object"),
        ({"tool": "count-letters", "arguments": None}, 422, "invalid_arguments", "`text` is missing"),
        (
            {"tool": "count-letters", "arguments": {"letters": "x"}},
            422,
            "invalid_arguments",
            "the letters are in `text`",
        ),
        ({"tool": "count-letters", "arguments": {"text": 5}}, 422, "invalid_arguments", "`text` is 5"),
        ({"tool": "cuont-letters"}, 404, "unknown_tool", "`cuont-letters`"),
        ({"tool": "delete-all", "arguments": {}}, 409, "conflict", "still in use"),
    ],
)
async def test_rest_errors_say_what_and_what_next(url: str, body: Any, status: int, code: str, said: str) -> None:
    answer = await rest(url, body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert answer.json()["success"] is False
    assert error["code"] == code
    assert said in error["message"]
    assert error["hint"]


async def test_a_surprise_is_hidden_behind_its_request_id(url: str) -> None:
    answer = await rest(url, {"tool": "break-down"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert answer.json()["request_id"] in answer.json()["error"]["hint"]
    assert "secret" not in answer.text


async def test_rest_streams_progress_and_then_the_result(url: str) -> None:
    body = {"tool": "count-letters", "arguments": {"text": "flux"}}
    answer = await rest(url, body, Accept="text/event-stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    assert [lines[0] for lines in events] == ["event: progress", "event: result"]
    assert json.loads(events[0][1][6:]) == {"progress": 1, "total": 2, "message": "counting"}
    assert json.loads(events[1][1][6:])["result"] == {"letters": 4}
    as_text = await rest(url, body, "?result=text", Accept="text/event-stream")
    assert json.loads(as_text.text.strip().rsplit("data: ", 1)[1])["result"] == '{"letters":4}'
    failed = await rest(url, {"tool": "delete-all"}, Accept="text/event-stream")
    assert failed.text.startswith("event: error\n")


async def test_lists_hide_no_tool(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        listed = (await client.get("/mcp/tools")).json()
        assert listed == (await client.get("/mcp/tools/list")).json()
        assert [tool["name"] for tool in listed["tools"]] == [tool.name for tool in SERVER.toolbox.tools]
        assert all(tool["inputSchema"]["type"] == "object" and tool["outputSchema"] for tool in listed["tools"])
        version = (await client.get("/mcp/version")).json()
        assert {"2025-11-25", "2026-07-28"} <= set(version["protocol_versions"])
        health = (await client.get("/health")).json()
        assert (health["status"], health["server"], health["backend"]["engine"]) == ("ok", "toy", "none")


PATHS = [
    "/mcp",
    "/mcp/tool",
    "/mcp/execute",
    "/mcp/tools",
    "/mcp/tools/list",
    "/mcp/version",
    "/health",
    "/metrics",
    "/nowhere",
]


@pytest.mark.parametrize("path", PATHS)
async def test_every_route_checks_host_origin_and_token(serve: Serve, path: str) -> None:
    url = serve(create_server_app(SERVER, DoorPolicy(token=SecretStr("s3cret"))))
    good = {"Authorization": "Bearer s3cret"}
    async with httpx.AsyncClient(base_url=url) as client:
        for headers, status in [
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            (good | {"Host": "rebound.example"}, 403),
            (good | {"Origin": "https://evil.example"}, 403),
        ]:
            answer = await client.post(path, content=b"{}", headers=headers)
            assert answer.status_code == status, (path, headers)
            assert answer.json()["error"]["hint"]
        assert (await client.get(path, headers=good)).status_code not in (401, 403)


@pytest.mark.parametrize("path", ["/mcp", "/mcp/tool", "/nowhere"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_past_the_limit_is_413(serve: Serve, path: str, chunked: bool) -> None:
    url = serve(create_server_app(SERVER, DoorPolicy(max_body_bytes=100_000)))

    async def pieces() -> AsyncGenerator[bytes]:
        for _ in range(20):
            yield bytes(10_000)

    async with httpx.AsyncClient(base_url=url) as client:
        content = pieces() if chunked else bytes(200_000)
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        answer = await client.post(path, content=content, headers=headers)
    assert answer.status_code in ((404, 413) if chunked and path == "/nowhere" else (413,))


def test_the_refusal_of_a_large_body_reaches_who_sends_all_of_it_first(tmp_path: Path) -> None:
    with server_process("comfy_mcp", "--data-dir", str(tmp_path), "--backend", "embedded") as (_, address):
        url = httpx.URL(address)
        with closing(HTTPConnection(url.host, url.port, timeout=30)) as connection:
            connection.request("POST", "/mcp/tool", bytes(20_000_000), {"Connection": "close"})
            answer = connection.getresponse()
            error = json.loads(answer.read())["error"]
    assert answer.status == 413
    assert "COMFY_MCP_MAX_BODY_BYTES" in error["hint"]
    assert "`/uploads`" in error["hint"]
    assert "lora" not in error["hint"].lower()


@pytest.mark.parametrize("path", ["/mcp/tool", "/nowhere"])
def test_who_sends_a_large_body_first_hears_that_the_token_is_wrong(serve: Serve, path: str) -> None:
    url = httpx.URL(serve(create_server_app(SERVER, DoorPolicy(token=SecretStr("s3cret")))))
    with closing(HTTPConnection(url.host, url.port, timeout=30)) as connection:
        connection.request("POST", path, bytes(20_000_000), {"Authorization": "Bearer wrong", "Connection": "close"})
        answer = connection.getresponse()
        error = json.loads(answer.read())["error"]
    assert answer.status == 401
    assert "bearer token is not the right one" in error["message"]


def test_who_asks_before_sending_is_refused_at_once(serve: Serve) -> None:
    url = httpx.URL(serve(create_server_app(SERVER, DoorPolicy(max_body_bytes=100_000))))
    with socket.create_connection((url.host, url.port), timeout=5) as connection:
        connection.sendall(
            b"POST /mcp/tool HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


async def test_wrong_addresses_and_methods_are_explained(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        missing = await client.get("/mcp/tols")
        assert missing.status_code == 404
        assert "/mcp/tool" in missing.json()["error"]["message"]
        wrong = await client.get("/mcp/tool")
        assert wrong.status_code == 405
        assert "POST" in wrong.json()["error"]["hint"]


async def test_metrics_count_calls_by_tool_and_outcome(url: str) -> None:
    await rest(url, {"tool": "delete-all"})
    async with httpx.AsyncClient(base_url=url) as client:
        text = (await client.get("/metrics")).text
    assert 'tool_calls_total{outcome="conflict",tool="delete-all"}' in text
    assert 'tool_call_seconds_count{tool="delete-all"}' in text
