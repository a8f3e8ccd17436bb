"""Serve before it is known what trains: AI Toolkit's server may start after this one, and tells where its folders are.

Tools and routes are there from the start; a call waits for the first attempt to choose, and hears why it failed.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from mcp_toolserver.app import BackendState, ToolServer
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import BackendUnavailable, ToolError
from mcp_toolserver.tools import AnyTool, Call, Result, Toolbox

_TRY_AGAIN_S = 1.0


class LateServer:
    """Stand for a server that is chosen while it already answers."""

    def __init__(self, prototype: ToolServer, engine: str, choose: Callable[[], Awaitable[ToolServer]]) -> None:
        """Take a server with the same tools and routes, what is hoped to train, and how to choose.

        `choose` raises a ToolError for as long as it cannot; it is called again until it can, and its choice stays.
        """
        self._prototype, self._engine, self._choose = prototype, engine, choose
        self._chosen: ToolServer | None = None
        self._failure: ToolError | None = None
        self._tried: anyio.Event | None = None

    def server(self) -> ToolServer:
        """Return what the doors serve."""
        plain = [route for route in self._prototype.routes if isinstance(route, Route)]
        return replace(
            self._prototype,
            toolbox=Toolbox(self._late_tool(tool) for tool in self._prototype.toolbox.tools),
            backend=self._backend,
            routes=[
                Route(route.path, _LateApp(self.chosen, index), methods=list(route.methods or ()))
                for index, route in enumerate(plain)
            ],
            lifespan=self._lifespan,
        )

    async def chosen(self) -> ToolServer:
        """Return the choice; raises what keeps it from being made."""
        if self._tried is None:
            raise BackendUnavailable("This server is not running.", hint="Call again.")
        await self._tried.wait()
        if self._chosen is not None:
            return self._chosen
        assert self._failure is not None
        raise self._failure

    @asynccontextmanager
    async def _lifespan(self) -> AsyncGenerator[None]:
        self._tried = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run, self._tried)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _run(self, tried: anyio.Event) -> None:
        while True:
            try:
                server = await self._choose()
                break
            except ToolError as error:
                self._failure = error
                tried.set()
            await anyio.sleep(_TRY_AGAIN_S)
        async with server.lifespan():
            self._chosen = server
            tried.set()
            await anyio.sleep_forever()

    async def _backend(self) -> BackendState:
        try:
            return await (await self.chosen()).backend()
        except ToolError as error:
            return BackendState(state="unavailable", engine=self._engine, detail=error.as_text())

    def _late_tool(self, tool: AnyTool) -> AnyTool:
        async def run(args: Arguments, call: Call) -> Result:
            return await (await self.chosen()).toolbox.find(tool.name).run(args, call)

        return replace(tool, run=run)


class _LateApp:
    """Pass a request on to the same route of the choice."""

    def __init__(self, chosen: Callable[[], Awaitable[ToolServer]], index: int) -> None:
        self._chosen, self._index = chosen, index

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = [route for route in (await self._chosen()).routes if isinstance(route, Route)]
        await plain[self._index].app(scope, receive, send)
