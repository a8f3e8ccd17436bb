"""The arguments of a tool: a model that is read as callers mean it, and refusals that name field, value and cure."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import NoneType
from typing import Any, ClassVar, TypeGuard, TypeVar, cast, get_args

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

from mcp_toolserver.errors import InvalidArguments, closest, shown


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


ArgumentsT = TypeVar("ArgumentsT", bound=Arguments)


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
