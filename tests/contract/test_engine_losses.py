"""What becomes of a prompt when the connection, the answer or the whole server is lost."""

from collections.abc import Callable, Generator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from comfy_mcp.engines.comfyui_history import Ending
from mcp_toolserver.errors import BackendRejected, BackendUnavailable
from tests.conftest import server_process
from tests.contract.engine_room import ENDLESS_STEPS, Story, connected, data_dir, picture, run
from tests.fakes.relay import relay_before

Serve = Callable[[ASGIApp], str]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with server_process("comfy_mcp.embedded", *data_dir(tmp_path_factory.mktemp("engine"))) as (_, address):
        yield address


async def test_a_prompt_survives_its_socket(url: str) -> None:
    async with relay_before(url) as relay, connected(relay.url) as comfyui:
        cut: list[int] = []
        story = Story(on_step=lambda: cut.append(relay.cut_sockets()))
        ending = await run(comfyui, await picture(comfyui, seed=1, steps=40), story)
        assert cut == [1]
        assert ending.status == "completed"
        assert ending.outputs


async def test_after_a_lost_socket_the_queue_is_asked_before_the_history(url: str) -> None:
    async with relay_before(url) as relay, connected(relay.url) as comfyui:

        def cut() -> None:
            relay.cut_sockets()
            relay.requests.clear()

        await run(comfyui, await picture(comfyui, seed=2, steps=40), Story(on_step=cut))
        asked = [request for request in relay.requests if request.startswith(("GET /queue", "GET /history"))]
        assert asked[0] == "GET /queue"


async def test_a_server_that_takes_no_sockets_still_tells_how_a_prompt_ended(url: str) -> None:
    async with relay_before(url) as relay:
        relay.lets_sockets_in = False
        async with connected(relay.url) as comfyui:
            ending = await run(comfyui, await picture(comfyui, seed=3))
            assert ending.status == "completed"


async def test_a_prompt_whose_answer_was_lost_is_found_again(url: str) -> None:
    async with relay_before(url) as relay, connected(relay.url) as comfyui:
        graph = await picture(comfyui, seed=4, steps=40)
        relay.swallow_answer_to = "POST /prompt"
        ending = await run(comfyui, graph)
        assert relay.swallow_answer_to is None
        assert ending.status == "completed"


async def test_a_server_that_is_killed_ends_the_prompt_truthfully(tmp_path: Path) -> None:
    with server_process("comfy_mcp.embedded", *data_dir(tmp_path)) as (process, url):
        async with connected(url, lost_after_s=0.2) as comfyui:
            graph = await picture(comfyui, seed=5, steps=ENDLESS_STEPS)
            ending = await run(comfyui, graph, Story(on_step=process.kill))
            assert ending.status == "failed"
            assert ending.error is not None
            assert "does not answer" in ending.error
            assert "unknown" in ending.error
            with pytest.raises(BackendUnavailable, match="does not answer") as absent:
                await comfyui.system_stats()
            assert "COMFYUI_API_URL" in (absent.value.hint or "")


async def test_a_server_that_was_restarted_has_forgotten_the_prompt(tmp_path: Path) -> None:
    endings: list[Ending] = []
    stepping, ended = anyio.Event(), anyio.Event()
    with server_process("comfy_mcp.embedded", *data_dir(tmp_path)) as (process, url):
        async with connected(url) as comfyui, anyio.create_task_group() as tasks:
            graph = await picture(comfyui, seed=6, steps=ENDLESS_STEPS)

            async def follow() -> None:
                endings.append(await run(comfyui, graph, Story(on_step=stepping.set)))
                ended.set()

            tasks.start_soon(follow)
            await stepping.wait()
            process.kill()
            await anyio.to_thread.run_sync(process.wait)
            port = str(urlsplit(url).port)
            with server_process("comfy_mcp.embedded", *data_dir(tmp_path), "--port", port):
                await ended.wait()
    assert endings[0].status == "failed"
    assert "no longer knows" in (endings[0].error or "")


async def test_an_absent_server_is_unavailable() -> None:
    async with connected("http://127.0.0.1:9") as comfyui:
        with pytest.raises(BackendUnavailable) as absent:
            await comfyui.submit({"1": {"class_type": "KSampler", "inputs": {}}}, str(uuid4()))
        assert absent.value.retryable
        assert absent.value.details["url"] == "http://127.0.0.1:9"


async def test_a_page_of_html_is_no_comfyui(serve: Serve) -> None:
    async def page(request: Request) -> Response:
        return HTMLResponse("<h1>It works!</h1>")

    async with connected(serve(Starlette(routes=[Route("/{path:path}", page)]))) as comfyui:
        with pytest.raises(BackendRejected, match="is not ComfyUI") as refused:
            await comfyui.system_stats()
        assert refused.value.details["content_type"] == "text/html"


async def test_a_server_that_hangs_is_unavailable(serve: Serve) -> None:
    async def hang(request: Request) -> Response:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        return Response()

    async with connected(serve(Starlette(routes=[Route("/{path:path}", hang)]))) as comfyui:
        with pytest.raises(BackendUnavailable, match="did not answer in time"):
            await comfyui.system_stats(timeout_s=0.2)
