"""A tool declared once, as a value, and the box through which every door calls it."""

import errno
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, ClassVar, Generic, Protocol, TypeGuard, TypeVar, cast, get_args
from uuid import uuid4

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from mcp_toolserver.errors import (
    InsufficientStorage,
    Internal,
    InvalidArguments,
    ToolError,
    UnknownTool,
    closest,
    shown,
)
from mcp_toolserver.metrics import ToolMetrics

log = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Arguments(BaseModel):
    """The arguments of a tool; its docstring is the tool's description.

    `classic_mistakes` maps a wrong argument name that people are known to send to the cure. What agents send beside
    the schema is read as it is meant: null for an optional argument is left out unless it has a meaning of its own,
    and an object or a list may come as its JSON text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    classic_mistakes: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        given = cast(Mapping[str, Any], data)
        return {name: value for name, value in given.items() if value is not None or name not in _optional(cls)}

    @field_validator("*", mode="wrap")
    @classmethod
    def _as_meant(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            result = handler(value)
        except ValidationError:
            if _is_json_text(value):
                return handler(_parsed(value))
            # A whole number past 64 bits comes out of JSON as a float, and has bounds to be told of.
            if isinstance(value, float) and value.is_integer():
                return handler(int(value))
            raise
        if isinstance(value, bool) and isinstance(result, int | float) and not isinstance(result, bool):
            raise PydanticCustomError("bool_as_number", "a number is wanted, not true or false")
        return result


@cache
def _optional(model: type[Arguments]) -> frozenset[str]:
    """Return the names by which the fields are sent that may be left out and have no meaning for null."""
    return frozenset(
        name
        for field_name, field in model.model_fields.items()
        if not field.is_required() and NoneType not in get_args(field.annotation) and field.annotation is not Any
        for name in _sent_names(field_name, field)
    )


def _sent_names(name: str, field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    if alias is None:
        return [name]
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [choice for choice in choices if isinstance(choice, str)]


def _is_json_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.lstrip()[:1] in {"{", "["}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is text, and no JSON ({error}): send the object or list itself") from None


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


ArgumentsT = TypeVar("ArgumentsT", bound=Arguments)
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
            self.metrics.count(tool.name, outcome, seconds)
            log.info(
                "tool call",
                extra={
                    "tool": tool.name,
                    "outcome": outcome,
                    "ms": round(seconds * 1000, 2),
                    "request_id": call.request_id,
                },
            )


def parse_arguments(model: type[ArgumentsT], arguments: Mapping[str, Any]) -> ArgumentsT:
    """Validate arguments; raises InvalidArguments that names each field, its value and the cure."""
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        problems = _problems(model, arguments, error.errors(include_url=False))
        raise InvalidArguments(
            " ".join(problem["message"] for problem in problems),
            hint="Correct the named arguments and call again; the tool's input schema describes them.",
            details={"problems": problems},
        ) from None


def _problems(
    model: type[Arguments], arguments: Mapping[str, Any], details: Sequence[ErrorDetails]
) -> list[dict[str, Any]]:
    """Describe each problem once: pydantic tells one for each type that a field may have."""
    problems: dict[str, dict[str, Any]] = {}
    for detail in details:
        problem = _problem(model, {**detail, "loc": _place(detail["loc"], arguments)})
        known = problems.setdefault(problem["field"], problem)
        if known is not problem:
            known["message"] = f"{known['message'].rstrip('.')}, or: {_reason(detail)}."
    return list(problems.values())


def _place(path: tuple[int | str, ...], arguments: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Return where in the arguments a problem is, without the names that pydantic gives to the types of a union."""
    place: list[int | str] = []
    node: Any = arguments
    for part in path:
        if isinstance(node, Mapping):
            node = _opened(cast(Mapping[str, Any], node).get(str(part)))
        elif isinstance(node, list) and isinstance(part, int):
            node = _opened(cast(list[Any], node)[part])
        else:
            continue
        place.append(part)
    return tuple(place)


def _opened(value: Any) -> Any:
    with suppress(ValueError):
        return _parsed(value) if _is_json_text(value) else value
    return value


def _reason(detail: ErrorDetails) -> str:
    return detail["msg"].removeprefix("Value error, ")


def _problem(model: type[Arguments], detail: ErrorDetails) -> dict[str, Any]:
    where = ".".join(str(part) for part in detail["loc"])
    last = str(detail["loc"][-1]) if detail["loc"] else ""
    problem: dict[str, Any] = {"field": where, "type": detail["type"]}
    if detail["type"] == "extra_forbidden":
        cure = model.classic_mistakes.get(last)
        matches = closest(last, _known_names(model, detail["loc"][:-1]), limit=1)
        problem["closest_matches"] = matches
        if cure is None:
            cure = f"did you mean `{matches[0]}`?" if matches else "there is nothing like it."
        problem["message"] = f"Unknown argument `{where}`; {cure.rstrip('.')}" + ("" if cure.endswith("?") else ".")
    elif detail["type"] == "missing":
        problem["message"] = f"Argument `{where}` is missing."
    else:
        value = shown(detail["input"])
        problem["message"] = f"Argument `{where}` is {value}: {_reason(detail)}."
        bounds = detail.get("ctx", {})
        nearest = bounds.get("le", bounds.get("ge"))
        if nearest is not None:
            problem["closest"] = nearest
            problem["message"] = (
                f"Argument `{where}` is {value}; the {'most' if 'le' in bounds else 'least'} is {nearest}."
            )
    return problem


def _known_names(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    schema: Any = model.model_json_schema()
    definitions = schema.get("$defs", {})

    def resolve(node: Any) -> Any:
        for choice in node.get("anyOf", ()):
            if choice.get("type") != "null":
                node = choice
                break
        return definitions[node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else node

    node = schema
    for part in path:
        node = resolve(node)
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    return list(resolve(node).get("properties", {}))


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
