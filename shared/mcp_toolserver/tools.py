"""A tool declared once, as a value, and the box through which every door calls it."""

import errno
import logging
import time
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar, cast
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from mcp_toolserver.arguments import ArgumentsT, parse_arguments
from mcp_toolserver.errors import InsufficientStorage, Internal, ToolError, UnknownTool, closest
from mcp_toolserver.metrics import ToolMetrics

log = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Result(BaseModel):
    """What a tool answers; an object on every door."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Effect(Enum):
    """What a call may change: nothing, something new, or something that was there."""

    READ = "read"
    WRITE = "write"
    DESTROY = "destroy"


class Report(Protocol):
    """Tell the caller how far the work is: `done` of `total` (any unit), and a few words."""

    async def __call__(self, done: float, /, total: float | None = None, message: str | None = None) -> None: ...


async def unheard(done: float, /, total: float | None = None, message: str | None = None) -> None:
    """Drop a progress report: the caller's door carries none."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A small picture that goes to the caller beside the result: encoded bytes, and what it shows in a few words.

    Its bytes cost the caller's context: keep those of one answer below `MOST_PICTURE_BYTES` together.
    """

    content: bytes
    media_type: str
    caption: str


MOST_PICTURE_BYTES = 500_000


@dataclass(frozen=True, slots=True)
class Link:
    """A file that the caller can fetch, beside the result: its address, a name, and what kind of file it is."""

    uri: str
    name: str
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What a running tool may know of its caller.

    `base_url` is the address that the caller used for this server (no slash at its end), for links in results.
    `caller` is the address that the call came from, None where there is none (stdio).
    `pictures` is where to put what the caller shall see, and `links` what it can fetch; None where its door shows
    nothing beside the result.
    """

    request_id: str = field(default_factory=lambda: uuid4().hex)
    report: Report = unheard
    base_url: str = ""
    caller: str | None = None
    pictures: list[Picture] | None = None
    links: list[Link] | None = None


ResultT = TypeVar("ResultT", bound=Result)


@dataclass(frozen=True, kw_only=True)
class Tool(Generic[ArgumentsT, ResultT]):
    """Declare a tool: its wire name (kebab-case), models, effect and the coroutine that does it."""

    name: str
    args: type[ArgumentsT]
    result: type[ResultT]
    effect: Effect
    run: Callable[[ArgumentsT, Call], Awaitable[ResultT]]

    @property
    def description(self) -> str:
        """Return the argument model's docstring, as the caller reads it."""
        return "\n".join(line.strip() for line in (self.args.__doc__ or "").strip().splitlines())

    @property
    def title(self) -> str:
        """Return the name in words."""
        return self.name.replace("-", " ").capitalize()

    def input_schema(self) -> dict[str, Any]:
        """Return the JSON schema of the arguments."""
        return _schema(self.args, "validation")

    def output_schema(self) -> dict[str, Any]:
        """Return the JSON schema of the result."""
        return _schema(self.result, "serialization")


AnyTool = Tool[Any, Any]


class Toolbox:
    """Hold every tool of a server and run any of them: validate, run, time, and turn surprises into `Internal`."""

    def __init__(self, tools: Iterable[AnyTool]) -> None:
        self._by_name: dict[str, AnyTool] = {}
        self.metrics = ToolMetrics()
        for tool in tools:
            if tool.name in self._by_name:
                raise ValueError(f"two tools are named {tool.name!r}")
            self._by_name[tool.name] = tool

    @property
    def tools(self) -> list[AnyTool]:
        """Return the tools in the order of their declaration."""
        return list(self._by_name.values())

    def find(self, name: str) -> AnyTool:
        """Return the tool of this name (`_` counts as `-`); raises UnknownTool with the closest names."""
        tool = self._by_name.get(name.replace("_", "-"))
        if tool is None:
            matches = closest(name, self._by_name)
            cure = f"Did you mean `{matches[0]}`? " if matches else ""
            raise UnknownTool(
                f"There is no tool `{name}` here.",
                hint=f"{cure}The list of tools names every one.",
                details={"tool": name, "closest_matches": matches},
            )
        return tool

    async def call(self, name: str, arguments: Mapping[str, Any] | None, call: Call) -> dict[str, Any]:
        """Run a tool and return its result as a JSON object.

        Raises ToolError for everything that went wrong; an unexpected exception becomes Internal, and its text
        stays in the log under the request id.
        """
        tool = self.find(name)
        started = time.perf_counter()
        outcome = "ok"
        try:
            parsed = parse_arguments(tool.args, arguments or {})
            result = await tool.run(parsed, call)
            return result.model_dump(mode="json", by_alias=True)
        except ToolError as error:
            outcome = error.code
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _FULL:
                outcome = InsufficientStorage.code
                raise InsufficientStorage(
                    f"`{tool.name}` failed: the disk of this server is full.",
                    hint="Free some room on it and call again; get-system-stats or df shows how much there is.",
                    details={"reason": error.strerror},
                ) from error
            outcome = "internal"
            log.exception("tool failed", extra={"tool": tool.name, "request_id": call.request_id})
            raise Internal(
                f"`{tool.name}` failed inside the server.",
                hint=f"The server's log has the cause under request id {call.request_id}.",
                details={"request_id": call.request_id},
            ) from error
        finally:
            seconds = time.perf_counter() - started
            # To write a line takes as long as many an answer, which need not wait for it.
            get_running_loop().call_soon(self._note, tool.name, outcome, seconds, call.request_id)

    def _note(self, name: str, outcome: str, seconds: float, request_id: str) -> None:
        self.metrics.count(name, outcome, seconds)
        log.info(
            "tool call",
            extra={"tool": name, "outcome": outcome, "ms": round(seconds * 1000, 2), "request_id": request_id},
        )


def _schema(model: type[BaseModel], mode: Any) -> dict[str, Any]:
    schema: dict[str, Any] = _untitled(model.model_json_schema(mode=mode, by_alias=True))
    schema.pop("description", None)
    schema.setdefault("type", "object")
    schema.setdefault("properties", {})
    return schema


def _untitled(node: Any) -> Any:
    # A generated title repeats the property's name, and every agent pays for it with each list of tools.
    if isinstance(node, list):
        return [_untitled(item) for item in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    fields = cast(dict[str, Any], node)
    return {
        key: value if key in ("default", "enum", "const", "examples") else _untitled(value)
        for key, value in fields.items()
        if key != "title" or not isinstance(value, str)
    }
