"""The MCP door: streamable HTTP in both protocol eras, and stdio, over the SDK's low-level `Server`.

`MCPServer` of the same SDK is not used: it flattens every error to one sentence and ignores unknown arguments.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import mcp_types as types
import orjson
import pybase64
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from mcp_toolserver.errors import ToolError
from mcp_toolserver.rest_door import annotations, base_url, caller_of
from mcp_toolserver.tools import AnyTool, Call, Link, Picture, Toolbox

PROTOCOL_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")


def mcp_server(
    name: str, version: str, title: str, instructions: str, toolbox: Toolbox, public_url: str | None = None
) -> Server[Any]:
    """Build the protocol server over a toolbox."""
    listed = [_listed(tool) for tool in toolbox.tools]

    async def list_tools(
        context: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed)

    async def call_tool(
        context: ServerRequestContext[Any, Request], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        request = context.request
        address = base_url(request, public_url) if request is not None else (public_url or "").rstrip("/")
        pictures: list[Picture] = []
        links: list[Link] = []
        call = Call(report=context.session.report_progress, base_url=address, pictures=pictures, links=links)
        if request is not None:
            call = replace(call, request_id=request.state.request_id, caller=caller_of(request))
        try:
            result = await toolbox.call(params.name, params.arguments, call)
        except ToolError as error:
            return types.CallToolResult(
                content=[types.TextContent(type="text", text=error.as_text())],
                structured_content=error.as_dict(),
                is_error=True,
            )
        return types.CallToolResult(
            content=[
                types.TextContent(type="text", text=orjson.dumps(result).decode()),
                *_shown(pictures),
                *(types.ResourceLink(uri=link.uri, name=link.name, mime_type=link.media_type) for link in links),
            ],
            structured_content=result,
        )

    return Server(
        name,
        version=version,
        title=title,
        instructions=instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


class McpEndpoint:
    """Serve `/mcp`; its `run()` spans the life of one app (the SDK allows it once)."""

    def __init__(self, server: Server[Any], max_body_bytes: int) -> None:
        # Host and Origin are checked for every route by our own guard, so the SDK's check stays off.
        self._sessions = StreamableHTTPSessionManager(app=server, max_request_body_size=max_body_bytes)

    def run(self) -> AbstractAsyncContextManager[None]:
        """Return the context within which requests are served."""
        return self._sessions.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._sessions.handle_request(scope, receive, send)


async def serve_stdio(server: Server[Any], lifespan: Callable[[], AbstractAsyncContextManager[None]]) -> None:
    """Speak MCP on stdin and stdout until stdin closes."""
    async with lifespan(), stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())


def _shown(pictures: Iterable[Picture]) -> Iterator[types.TextContent | types.ImageContent]:
    for picture in pictures:
        yield types.TextContent(type="text", text=picture.caption)
        data = pybase64.b64encode(picture.content).decode("ascii")
        yield types.ImageContent(type="image", data=data, mime_type=picture.media_type)


def _listed(tool: AnyTool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema(),
        output_schema=tool.output_schema(),
        annotations=types.ToolAnnotations.model_validate(annotations(tool)),
    )
