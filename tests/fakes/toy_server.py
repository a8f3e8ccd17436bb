"""A tool server with three toy tools; run as a program it speaks stdio."""

from collections.abc import Mapping
from typing import ClassVar

import anyio
from pydantic import AliasChoices, Field

from mcp_toolserver.app import BackendState, ServerIdentity, ToolServer, run_stdio
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import Conflict
from mcp_toolserver.tools import Call, Effect, Result, Tool, Toolbox


class CountLetters(Arguments):
    """Count the letters of a text."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {"letters": "the letters are in `text`."}

    text: str = Field(description="what to count", validation_alias=AliasChoices("text", "words"))


class Letters(Result):
    letters: int


class Nothing(Arguments):
    """Take no arguments."""


async def count(arguments: CountLetters, call: Call) -> Letters:
    await call.report(1, 2, "counting")
    return Letters(letters=len(arguments.text))


async def delete(arguments: Nothing, call: Call) -> Letters:
    raise Conflict("The letters are still in use.", hint="Wait until nobody reads.")


async def fall_over(arguments: Nothing, call: Call) -> Letters:
    raise RuntimeError("secret detail")


async def backend() -> BackendState:
    return BackendState(state="ok", engine="none")


SERVER = ToolServer(
    identity=ServerIdentity(name="toy", title="Toy", version="1", instructions="Count."),
    toolbox=Toolbox(
        [
            Tool(name="count-letters", args=CountLetters, result=Letters, effect=Effect.READ, run=count),
            Tool(name="delete-all", args=Nothing, result=Letters, effect=Effect.DESTROY, run=delete),
            Tool(name="break-down", args=Nothing, result=Letters, effect=Effect.WRITE, run=fall_over),
        ]
    ),
    backend=backend,
)

if __name__ == "__main__":
    anyio.run(run_stdio, SERVER)
