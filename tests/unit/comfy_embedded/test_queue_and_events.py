"""The queue's order, who hears what, and what stands before the routes."""

from collections.abc import AsyncGenerator

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from comfy_mcp.embedded.events import EventHub
from comfy_mcp.embedded.guards import BodyLimit, is_welcome
from comfy_mcp.embedded.queue import Outcome, PromptQueue, QueuedPrompt


def _prompt(prompt_id: str, number: float) -> QueuedPrompt:
    return QueuedPrompt(number, prompt_id, {}, {"create_time": 0}, [])


def _queue() -> tuple[PromptQueue, list[int]]:
    told: list[int] = []
    queue = PromptQueue(lambda: told.append(queue.remaining))
    return queue, told


async def test_the_lowest_number_runs_first_and_equal_ones_as_they_came() -> None:
    queue, told = _queue()
    for prompt_id, number in (("a", 3), ("b", 1), ("c", 1), ("front", -4)):
        queue.put(_prompt(prompt_id, number))
    taken = [(await queue.take()).prompt_id for _ in range(4)]
    assert taken == ["front", "b", "c", "a"]
    assert told[:4] == [1, 2, 3, 4]


async def test_a_taker_waits_for_what_comes() -> None:
    queue, _ = _queue()
    taken: list[str] = []

    async def take() -> None:
        taken.append((await queue.take()).prompt_id)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        await anyio.lowlevel.checkpoint()
        queue.put(_prompt("late", 0))
    assert taken == ["late"]


async def test_a_finished_prompt_takes_the_place_of_an_older_one_with_its_id() -> None:
    queue, told = _queue()
    for number in (0, 1):
        queue.put(_prompt("same", number))
        prompt = await queue.take()
        queue.finish(prompt, Outcome({}, completed=True, messages=[]))
    assert [entry.prompt.number for entry in queue.history.values()] == [1]
    assert told[-1] == 0


async def test_numbers_rise_and_fall_at_the_front() -> None:
    queue, _ = _queue()
    assert [queue.next_number(front=front) for front in (False, False, True, False)] == [0, 1, -2, 3]


async def test_of_two_sockets_with_one_id_the_first_takes_the_events_with_it() -> None:
    hub = EventHub()
    one, first = hub.connect("me")
    two, second = hub.connect("me")
    hub.send("status", {"n": 1}, "me")
    assert (first.statistics().current_buffer_used, second.statistics().current_buffer_used) == (0, 1)
    hub.disconnect("me")
    hub.send("status", {"n": 2}, "me")
    assert second.statistics().current_buffer_used == 1
    for end in (one.frames, two.frames, first, second):
        end.close()


async def test_a_socket_that_went_away_is_not_waited_for() -> None:
    hub = EventHub()
    listener, frames = hub.connect("gone")
    frames.close()
    hub.send("status", {}, None)
    listener.frames.close()


@pytest.mark.parametrize(
    ("headers", "welcome"),
    [
        ({"host": "127.0.0.1:8188"}, True),
        ({"host": "localhost:8188"}, True),
        ({"host": "[::1]:8188"}, True),
        ({"host": "127.0.0.1:8188", "origin": "http://127.0.0.1:8188"}, True),
        ({"host": "127.0.0.1:8188", "origin": "http://127.0.0.1:9"}, False),
        ({"host": "127.0.0.1:8188", "origin": "https://evil.example"}, False),
        ({"host": "127.0.0.1:8188", "sec-fetch-site": "cross-site"}, False),
        ({"host": "evil.example"}, False),
        ({}, False),
    ],
)
def test_only_programs_of_this_machine_and_its_own_pages_are_welcome(headers: dict[str, str], welcome: bool) -> None:
    assert is_welcome(headers) is welcome


async def test_a_body_without_a_length_is_counted_as_it_comes() -> None:
    async def echo(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    async def pieces(count: int) -> AsyncGenerator[bytes]:
        for _ in range(count):
            yield bytes(10)

    limit = Middleware(BodyLimit, limit_bytes=100)
    app = Starlette(routes=[Route("/", echo, methods=["POST"])], middleware=[limit])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        accepted = await http.post("/", content=pieces(10))
        refused = await http.post("/", content=pieces(11))
    assert (accepted.status_code, accepted.text) == (200, "100")
    assert (refused.status_code, refused.text) == (413, "Maximum request body size 100 exceeded.")
