"""Every tool of both servers is reached through every door, and answers the same there."""

import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from starlette.types import ASGIApp

import aitk_mcp.app
import comfy_mcp.app
from aitk_mcp.settings import AitkSettings
from comfy_mcp.settings import ComfySettings
from mcp_toolserver.app import ToolServer, create_server_app
from mcp_toolserver.auth import DoorPolicy
from mcp_toolserver.mcp_door import mcp_server

Serve = Callable[[ASGIApp], str]
CallTool = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
DOORS = ["memory", "2025-11-25", "2026-07-28", "stdio", "rest"]
SERVERS = ["comfy_mcp", "aitk_mcp"]


def built(name: str, data_dir: Path) -> ToolServer:
    """Build a server on its embedded engine; nothing is started."""
    if name == "comfy_mcp":
        return comfy_mcp.app.build(ComfySettings(data_dir=data_dir, backend="embedded"))
    return aitk_mcp.app.build(AitkSettings(data_dir=data_dir, trainer="embedded"))


@asynccontextmanager
async def opened(door: str, name: str, server: ToolServer, serve: Serve, data_dir: Path) -> AsyncGenerator[CallTool]:
    """Give a way to call a tool through a door that returns the error object of the answer."""
    if door == "rest":
        async with httpx.AsyncClient(base_url=serve(create_server_app(server, DoorPolicy())), timeout=30) as http:

            async def over_rest(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
                answer = await http.post("/mcp/tool", json={"tool": tool, "arguments": arguments})
                assert answer.status_code == 422
                return answer.json()["error"]

            yield over_rest
        return
    target: Any
    if door == "memory":
        target = mcp_server(name, "1", name, "", server.toolbox)
    elif door == "stdio":
        choice = ["--backend", "embedded"] if name == "comfy_mcp" else ["--trainer", "embedded"]
        arguments = ["-m", name, "--transport", "stdio", "--data-dir", str(data_dir), *choice]
        environment = {"PYTHONPATH": os.environ["PYTHONPATH"]}
        target = StdioServerParameters(command=sys.executable, args=arguments, env=environment)
    else:
        target = f"{serve(create_server_app(server, DoorPolicy()))}/mcp"
    async with Client(target, mode="legacy" if door == "2025-11-25" else "auto") as client:

        async def over_mcp(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
            answer = await client.call_tool(tool, arguments)
            assert answer.is_error
            return answer.structured_content

        yield over_mcp


@pytest.fixture(params=SERVERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(name: str, tmp_path: Path) -> ToolServer:
    return built(name, tmp_path)


@pytest.mark.parametrize("door", DOORS)
async def test_each_tool_answers_through_each_door(
    door: str, name: str, server: ToolServer, serve: Serve, tmp_path: Path
) -> None:
    async with opened(door, name, server, serve, tmp_path) as call:
        for tool in server.toolbox.tools:
            error = await call(tool.name, {"no_such_argument": 1})
            assert error["code"] == "invalid_arguments", tool.name
            assert "`no_such_argument`" in error["message"], tool.name
            assert error["hint"], tool.name
