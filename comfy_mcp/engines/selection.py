"""Choose what renders: the ComfyUI that was configured, one that happens to run here, or the embedded engine."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio

from comfy_mcp.embedded.process import embedded_server
from comfy_mcp.engines.comfyui import PROBE_TIMEOUT_S
from comfy_mcp.engines.comfyui_http import ComfyHttp, fixed
from comfy_mcp.workflows.graphs import is_object
from mcp_toolserver.errors import BackendUnavailable, ToolError

log = logging.getLogger(__name__)

# So that a child that dies at once does not take a whole core.
_RESTART_PAUSE_S = 1.0

EngineName = Literal["comfyui", "embedded"]
RendererName = Literal["comfyui", "embedded", "diffusers"]


@dataclass(frozen=True, kw_only=True)
class Selected:
    """Say which engine renders, and at which address it answers (none for diffusers, which is in this process)."""

    engine: RendererName
    url: str


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Say what the settings ask for; `engine` None leaves the choice to what is there when the server starts.

    A ComfyUI that is asked for by name or address and does not answer stays the choice: the embedded engine never
    stands in for it.
    """

    engine: EngineName | None
    comfyui_url: str
    embedded_dir: Path


class Selection:
    """Make the choice in the background, so that the server itself starts at once; callers wait for it here."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._selected: Selected | None = None
        self._failure = ""
        self._settled = anyio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Choose, and keep the embedded engine alive if it is the choice, while the block runs."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._choose)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def selected(self) -> Selected:
        """Return the choice as soon as it is made; raises BackendUnavailable when the embedded engine cannot start."""
        while self._selected is None and not self._failure:
            await self._settled.wait()
        if self._selected is None:
            raise BackendUnavailable(
                f"The embedded engine did not start: {self._failure}.",
                hint="The server's log has the cause; COMFYUI_API_URL names a ComfyUI to use instead.",
            )
        return self._selected

    async def address(self) -> str:
        """Return the address of the choice."""
        return (await self.selected()).url

    async def _choose(self) -> None:
        engine = self._wanted.engine
        if engine is None:
            engine = "comfyui" if await self._comfyui_answers() else "embedded"
        if engine == "comfyui":
            self._settle(Selected(engine="comfyui", url=self._wanted.comfyui_url))
            return
        await self._run_embedded()

    async def _comfyui_answers(self) -> bool:
        http = ComfyHttp(fixed(self._wanted.comfyui_url))
        async with http.running():
            try:
                answer = await http.get("/system_stats", timeout_s=PROBE_TIMEOUT_S)
            except ToolError:
                return False
        # Another program may sit on that port.
        return is_object(answer) and "system" in answer

    async def _run_embedded(self) -> None:
        while True:
            try:
                async with embedded_server(self._wanted.embedded_dir) as server:
                    self._settle(Selected(engine="embedded", url=server.url))
                    exit_status = await server.process.wait()
            except (OSError, ToolError) as error:
                self._failure = str(error).rstrip(".") or type(error).__name__
                self._settled.set()
                log.exception("the embedded engine did not start")
                return
            # Its jobs are lost and say so; the next ones shall not be.
            log.error("the embedded engine ended and is started again", extra={"exit_status": exit_status})
            self._selected = None
            self._settled = anyio.Event()
            await anyio.sleep(_RESTART_PAUSE_S)

    def _settle(self, selected: Selected) -> None:
        self._selected = selected
        self._settled.set()
        log.info("engine chosen", extra={"engine": selected.engine, "url": selected.url})
