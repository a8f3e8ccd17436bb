"""Every way in which AI Toolkit's server can fail to answer, and what the caller hears."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from aitk_mcp.trainers.ui import UiTrainer
from aitk_mcp.trainers.ui_http import UiHttp, UiRefused
from aitk_mcp.trainers.ui_jobs import UiJobs
from mcp_toolserver.errors import BackendRejected, BackendUnavailable
from tests.fakes.aitk_ui import FakeAitkUi

Serve = Callable[[ASGIApp], str]
ROW = json.loads(Path(__file__).with_name("captures").joinpath("104_job_get.json").read_text("utf-8"))["response"]


def answering(response: Response) -> Starlette:
    async def answer(request: Request) -> Response:
        return response

    return Starlette(routes=[Route("/{path:path}", answer)])


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (HTMLResponse("<html>Sign in</html>"), "text/html"),
        (PlainTextResponse('{"jobs": [{"id"', media_type="application/json"), "application/json"),
        (JSONResponse(["jobs"]), "lists no jobs"),
        (JSONResponse({"jobs": [{"id": "1"}]}), "'name'"),
        (Response(b"no gzip", headers={"content-encoding": "gzip"}), "broken"),
        (Response(status_code=500), "500: Internal Server Error"),
        (PlainTextResponse("database is locked", 500), "database is locked"),
        (HTMLResponse("<html>404</html>", 404), "404: Not Found"),
    ],
)
async def test_an_answer_that_is_none_is_rejected_with_its_address(serve: Serve, response: Response, said: str) -> None:
    url = serve(answering(response))
    with pytest.raises(BackendRejected) as caught:
        await UiJobs(UiHttp(url)).all()
    assert said in caught.value.message
    assert url in caught.value.message
    assert caught.value.details["url"] == f"{url}/api/jobs"
    assert caught.value.hint


async def test_nobody_there_is_unavailable_and_says_how_to_start_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        trainer = UiTrainer(UiHttp(url), tmp_path)
        # The watch goes on without it; a caller hears of it.
        await trainer.tend()
        with pytest.raises(BackendUnavailable) as caught:
            await trainer.jobs()
    assert url in caught.value.message
    assert "AITK_UI_URL" in str(caught.value.hint)
    assert caught.value.retryable


async def test_a_server_that_takes_the_request_and_is_silent_is_unavailable() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        http = UiHttp(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(BackendUnavailable, match="did not answer in time"):
            await http.folders(timeout_s=0.2)


async def test_the_token_opens_the_door_and_is_never_shown(tmp_path: Path) -> None:
    fake = FakeAitkUi(tmp_path, token="s3cret")
    with fake.serving() as url:
        assert await UiJobs(UiHttp(url, SecretStr("s3cret"))).all() == []
        with pytest.raises(UiRefused) as caught:
            await UiJobs(UiHttp(url, SecretStr("wr0ng"))).all()
    assert caught.value.answer_status == 401
    assert "AI_TOOLKIT_AUTH" in str(caught.value.hint)
    assert "wr0ng" not in f"{caught.value.as_dict()}{vars(UiHttp(url, SecretStr('wr0ng')))}"


@pytest.mark.parametrize(("verb", "sent"), [("save_now", 2), ("stop", 1)])
async def test_a_busy_database_is_asked_again_for_what_only_sets_a_flag(serve: Serve, verb: str, sent: int) -> None:
    asked: list[str] = []

    async def change(request: Request) -> Response:
        asked.append(request.path_params["verb"])
        return Response(status_code=500) if len(asked) == 1 else JSONResponse({})

    async def jobs(request: Request) -> Response:
        return JSONResponse(ROW)

    url = serve(Starlette(routes=[Route("/api/jobs", jobs), Route("/api/jobs/{id}/{verb}", change)]))
    changing = UiJobs(UiHttp(url)).change(ROW["id"], verb)
    if sent == 1:
        with pytest.raises(BackendRejected, match="500"):
            await changing
    else:
        assert (await changing).job_id == ROW["id"]
    assert asked == [verb] * sent
