"""A caller's graph, brought into the form that runs and checked against what the engine really has."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from anyio import to_thread

from comfy_mcp.workflows.check import check
from comfy_mcp.workflows.convert import convert, is_ui_graph, unwrapped
from comfy_mcp.workflows.graphs import Graph, is_object
from comfy_mcp.workflows.named_models import named_models
from comfy_mcp.workflows.problems import Problem
from comfy_mcp.workflows.specs import ObjectInfo
from lora_files.fit import Fit

# Lists of files grow and nodes get installed after /object_info was last read.
_MAY_BE_STALE = frozenset({"value_not_in_list", "missing_node_type"})

TellArchitecture = Callable[[str], Awaitable[str | None]]
"""Return the architecture of a file that a loader's list has, or None where its header is out of reach."""

TellFit = Callable[[str, str], Awaitable[Fit | None]]
"""Return how a LoRA fits a checkpoint, or None where one of their headers is out of reach."""

TellProblem = Callable[[str, str], Awaitable[str | None]]
"""Say why no loader can read a file, by its kind and its name, or None where nothing is known against it."""


class ReadObjectInfo(Protocol):
    """Return what the engine says of its node classes, read anew where `refresh` is set."""

    async def __call__(self, *, refresh: bool = False) -> ObjectInfo: ...


@dataclass(frozen=True, kw_only=True)
class CheckedWorkflow:
    """A graph in API format, or None where what was sent is none; `converted` from the page's form; its problems."""

    graph: Graph | None
    converted: bool
    problems: tuple[Problem, ...]


class WorkflowChecks:
    """Check graphs, with what the headers of the files say that they name.

    `engine_is_away` tells whether the engine does not answer now: then its last words are what graphs are checked by.
    """

    def __init__(
        self,
        object_info: ReadObjectInfo,
        lora_architecture: TellArchitecture,
        checkpoint_family: TellArchitecture,
        *,
        lora_fit: TellFit,
        problem: TellProblem,
        engine_is_away: Callable[[], Awaitable[bool]],
    ) -> None:
        self._object_info = object_info
        self._lora_architecture = lora_architecture
        self._checkpoint_family = checkpoint_family
        self._lora_fit = lora_fit
        self._problem = problem
        self.engine_is_away = engine_is_away

    async def check(self, workflow: object) -> CheckedWorkflow:
        """Return a workflow as a graph with its problems; a list or class that lacks something is read again first."""
        checked = await self._check(workflow, await self._object_info())
        if any(problem.code in _MAY_BE_STALE for problem in checked.problems):
            return await self._check(workflow, await self._object_info(refresh=True))
        return checked

    async def has_nodes(self, *class_types: str) -> bool:
        """Tell whether the engine has all of these node classes."""
        return set(class_types) <= (await self._object_info()).keys()

    async def _check(self, workflow: object, object_info: ObjectInfo) -> CheckedWorkflow:
        graph, is_page = unwrapped(workflow), False
        if is_object(graph) and is_ui_graph(graph):
            is_page = True
            graph, obstacles = await to_thread.run_sync(convert, graph, object_info)
            if obstacles:
                return CheckedWorkflow(graph=None, converted=False, problems=tuple(obstacles))
        named = named_models(graph, object_info)
        fits = {use: await self._lora_fit(*use) for use in sorted(named.uses)}
        faults = {file: await self._problem(*file) for file in sorted(named.files)}
        problems = await to_thread.run_sync(
            partial(
                check,
                graph,
                object_info,
                await _told(named.loras, self._lora_architecture),
                await _told(named.checkpoints, self._checkpoint_family),
                lora_fits={use: fit for use, fit in fits.items() if fit is not None},
                unreadable={file: fault for file, fault in faults.items() if fault is not None},
            )
        )
        return CheckedWorkflow(
            graph=dict(graph) if is_object(graph) else None, converted=is_page, problems=tuple(problems)
        )


async def _told(names: frozenset[str], tell: TellArchitecture) -> Mapping[str, str]:
    found = {name: await tell(name) for name in sorted(names)}
    return {name: architecture for name, architecture in found.items() if architecture is not None}
