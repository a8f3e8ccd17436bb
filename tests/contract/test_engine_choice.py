"""Which engine renders: asked for, found, or the embedded one."""

from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from comfy_mcp.engines.selection import EngineName, Selected, Selection, Wanted
from mcp_toolserver.errors import BackendUnavailable
from tests.conftest import server_process
from tests.contract.engine_room import connected, data_dir

Serve = Callable[[ASGIApp], str]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with server_process("comfy_mcp.embedded", *data_dir(tmp_path_factory.mktemp("engine"))) as (_, address):
        yield address


async def chosen(engine: EngineName | None, url: str, folder: Path) -> Selected:
    """Return the choice, after it was seen to answer where it should."""
    selection = Selection(Wanted(engine=engine, comfyui_url=url, embedded_dir=folder))
    async with selection.running():
        selected = await selection.selected()
        if selected.engine == "embedded":
            async with connected(selected.url) as comfyui:
                assert (await comfyui.system_stats())["system"]["engine"] == "embedded"
        return selected


async def test_a_comfyui_that_answers_is_taken(url: str, tmp_path: Path) -> None:
    assert await chosen(None, url, tmp_path) == Selected(engine="comfyui", url=url)


async def test_where_none_answers_the_embedded_engine_is_started(tmp_path: Path) -> None:
    assert (await chosen(None, NOWHERE, tmp_path)).engine == "embedded"


async def test_another_program_on_that_port_is_no_comfyui(serve: Serve, tmp_path: Path) -> None:
    async def answer(request: Request) -> Response:
        return JSONResponse({"status": "fine"})

    other = serve(Starlette(routes=[Route("/{path:path}", answer)]))
    assert (await chosen(None, other, tmp_path)).engine == "embedded"


async def test_a_comfyui_that_was_asked_for_stays_the_choice_when_it_is_absent(tmp_path: Path) -> None:
    assert await chosen("comfyui", NOWHERE, tmp_path) == Selected(engine="comfyui", url=NOWHERE)


async def test_an_embedded_engine_that_cannot_start_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    selection = Selection(Wanted(engine="embedded", comfyui_url=NOWHERE, embedded_dir=tmp_path / "file"))
    async with selection.running():
        with pytest.raises(BackendUnavailable, match="did not start"):
            await selection.selected()
