"""The sizes of a job's pictures, read while the job still runs: its end is told without waiting for them."""

import logging
from collections.abc import Iterable

import anyio
from anyio.abc import TaskGroup

from comfy_mcp.engines.comfyui_history import OutputFile
from comfy_mcp.engines.port import Engine
from comfy_mcp.image_sizes import size_of
from comfy_mcp.jobs.store import JobFile
from mcp_toolserver.errors import ToolError

log = logging.getLogger(__name__)

# A graph may save hundreds of frames; the engine is to go on rendering meanwhile.
_AT_ONCE = 4


class Measuring:
    """Measure the files of one job, each once."""

    def __init__(self) -> None:
        self._sizes: dict[OutputFile, tuple[int, int] | None] = {}
        self._known: dict[OutputFile, anyio.Event] = {}
        self._turns = anyio.CapacityLimiter(_AT_ONCE)

    def begin(self, engine: Engine, files: Iterable[OutputFile], tasks: TaskGroup) -> None:
        """Measure files in the background; those that were begun before are not read again."""
        for file in files:
            if file not in self._known and not file.animated:
                self._known[file] = anyio.Event()
                tasks.start_soon(self._measure, engine, file)

    async def finished(self, files: Iterable[OutputFile]) -> tuple[JobFile, ...]:
        """Return files with their sizes, which must have been begun; without one where there was none to be had."""
        measured: list[JobFile] = []
        for file in files:
            if file in self._known:
                await self._known[file].wait()
            width, height = self._sizes.get(file) or (None, None)
            measured.append(
                JobFile(
                    node_id=file.node_id,
                    filename=file.filename,
                    subfolder=file.subfolder,
                    kind=file.kind,
                    animated=file.animated,
                    width=width,
                    height=height,
                )
            )
        return tuple(measured)

    async def _measure(self, engine: Engine, file: OutputFile) -> None:
        try:
            async with self._turns:
                self._sizes[file] = await size_of(engine, file)
        except ToolError as error:
            log.warning("no size of an output", extra={"output": file.filename, "reason": error.message})
        except Exception:
            # One picture must not take down the group in which all jobs run.
            log.exception("measuring a picture failed inside the server", extra={"output": file.filename})
        finally:
            self._known[file].set()
