"""Cancelling one prompt: waiting, running, too late; with and without ComfyUI's jobs API."""

from collections.abc import Generator
from uuid import uuid4

import anyio
import pytest

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_history import Ending
from comfy_mcp.workflows import Graph
from tests.conftest import server_process
from tests.contract.engine_room import ENDLESS_STEPS, REAL_URL, Story, connected, data_dir, picture, run
from tests.fakes.relay import relay_before


@pytest.fixture(scope="module", params=["embedded", *(["real"] if REAL_URL else [])])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    if request.param == "real" and REAL_URL:
        yield REAL_URL.rstrip("/")
        return
    with server_process("comfy_mcp.embedded", *data_dir(tmp_path_factory.mktemp("engine"))) as (_, address):
        yield address


class Followed:
    """A prompt that is followed by a task of its own."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.prompt_id = str(uuid4())
        self.submitted = anyio.Event()
        self.stepping = anyio.Event()
        self.ended = anyio.Event()
        self.ending: Ending | None = None

    async def follow(self, comfyui: ComfyUI) -> None:
        with comfyui.watch(self.prompt_id) as watch:
            await comfyui.submit(self.graph, self.prompt_id)
            self.submitted.set()
            self.ending = await watch.ended(Story(on_step=self.stepping.set))
            self.ended.set()


async def test_a_running_prompt_is_interrupted(url: str) -> None:
    async with connected(url) as comfyui, anyio.create_task_group() as tasks:
        prompt = Followed(await picture(comfyui, seed=1, steps=ENDLESS_STEPS))
        tasks.start_soon(prompt.follow, comfyui)
        await prompt.stepping.wait()
        assert await comfyui.cancel(prompt.prompt_id) == "cancelled"
        await prompt.ended.wait()
        assert prompt.ending == Ending("cancelled")
        assert await comfyui.cancel(prompt.prompt_id) == "cancelled"


async def test_a_waiting_prompt_is_removed_and_the_running_one_goes_on(url: str) -> None:
    async with connected(url) as comfyui, anyio.create_task_group() as tasks:
        running = Followed(await picture(comfyui, seed=2, steps=ENDLESS_STEPS))
        waiting = Followed(await picture(comfyui, seed=3))
        tasks.start_soon(running.follow, comfyui)
        await running.stepping.wait()
        tasks.start_soon(waiting.follow, comfyui)
        await waiting.submitted.wait()
        assert await comfyui.cancel(waiting.prompt_id) == "cancelled"
        await waiting.ended.wait()
        assert waiting.ending is not None
        assert waiting.ending.status == "cancelled"
        assert await comfyui.locate(running.prompt_id) == "running"
        await comfyui.cancel(running.prompt_id)


async def test_an_ended_prompt_is_too_late(url: str) -> None:
    async with connected(url) as comfyui:
        prompt = Followed(await picture(comfyui, seed=4))
        await prompt.follow(comfyui)
        assert await comfyui.cancel(prompt.prompt_id) == "too_late"


async def test_a_prompt_that_nobody_knows_is_said_to_be_unknown(url: str) -> None:
    async with connected(url) as comfyui:
        assert await comfyui.cancel(str(uuid4())) == "unknown"


async def test_a_server_without_the_jobs_api_obeys_too(url: str) -> None:
    async with relay_before(url) as relay, connected(relay.url) as comfyui, anyio.create_task_group() as tasks:
        relay.not_found = "POST /api/jobs/"
        running = Followed(await picture(comfyui, seed=5, steps=ENDLESS_STEPS))
        waiting = Followed(await picture(comfyui, seed=6))
        tasks.start_soon(running.follow, comfyui)
        await running.stepping.wait()
        tasks.start_soon(waiting.follow, comfyui)
        await waiting.submitted.wait()
        assert await comfyui.cancel(waiting.prompt_id) == "cancelled"
        assert await comfyui.locate(running.prompt_id) == "running"
        assert await comfyui.cancel(running.prompt_id) == "cancelled"
        await running.ended.wait()
        await waiting.ended.wait()
        assert "POST /queue" in relay.requests
        assert "POST /interrupt" in relay.requests


async def test_a_prompt_that_somebody_else_removes_is_cancelled(url: str) -> None:
    async with connected(url) as comfyui, connected(url) as stranger, anyio.create_task_group() as tasks:
        running = Followed(await picture(comfyui, seed=7, steps=ENDLESS_STEPS))
        tasks.start_soon(running.follow, comfyui)
        await running.stepping.wait()
        assert await stranger.cancel(running.prompt_id) == "cancelled"
        await running.ended.wait()
        assert running.ending == Ending("cancelled")
        assert (await run(comfyui, await picture(comfyui, seed=8))).status == "completed"
