"""The LoRAs on the disk of an AI Toolkit on another machine: what is listed, sent and deleted, and what fails."""

import hashlib
import json
import socket
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from aitk_mcp.models.digests import Digests
from aitk_mcp.models.models import Models
from aitk_mcp.models.remote import RemoteModels
from aitk_mcp.models.routes import remote_model_routes
from aitk_mcp.system import read_ui_stats
from aitk_mcp.trainers.ui_http import UiHttp
from aitk_mcp.trainers.ui_jobs import UiJobs
from mcp_toolserver.errors import BackendRejected, BackendUnavailable, Conflict, InvalidArguments, NotFound
from tests.fakes.aitk_ui import FakeAitkUi

OUTPUTS = Path("/far/away/output")
Serve = Callable[[ASGIApp], str]


def lora(step: int, filling: bytes = b"\0") -> bytes:
    """Return a small LoRA that says after how many steps it was saved."""
    shapes = {"lora_A": ([4, 8], 0), "lora_B": ([8, 4], 128)}
    tensors = {
        f"transformer.blocks.0.attn.{name}.weight": {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 128]}
        for name, (shape, at) in shapes.items()
    }
    said = {"training_info": json.dumps({"step": step, "epoch": 1}), "name": "лора"}
    header = json.dumps({"__metadata__": said, **tensors}).encode()
    return len(header).to_bytes(8, "little") + header + filling * 256


@pytest.fixture
def fake(tmp_path: Path) -> Generator[FakeAitkUi]:
    """Give a stand-in on another machine."""
    far = FakeAitkUi(tmp_path / "toolkit", machine="/far/away")
    with far.serving():
        yield far


def over(url: str, folder: Path) -> RemoteModels:
    """Return the models of a server, with exports in a folder here."""
    return RemoteModels(UiHttp(url), OUTPUTS, Models(folder / "exports", Digests(folder / "digests.sqlite")))


@pytest.fixture
def models(fake: FakeAitkUi, tmp_path: Path) -> RemoteModels:
    """Give its models."""
    return over(fake.url, tmp_path)


async def job(fake: FakeAitkUi, name: str, **files: bytes) -> Path:
    """Make a job with files, by what follows its name in theirs."""
    await UiJobs(UiHttp(fake.url)).put(name, "0", {"job": "extension"})
    folder = fake.root / "output" / name
    folder.mkdir(parents=True)
    for ending, content in files.items():
        (folder / f"{name}{ending}.safetensors").write_bytes(content)
    return folder


async def test_models_of_all_jobs_are_listed_and_described(fake: FakeAitkUi, models: RemoteModels) -> None:
    await job(fake, "cat", _=lora(0), _000000010=lora(10), **{"": lora(20)})
    await job(fake, "my лора v1!", _000000005_high_noise=lora(5), _000000005_low_noise=lora(5))
    (await job(fake, "half")).joinpath("half.safetensors").write_bytes(lora(9)[:-3])
    found = {model.model_path: model for model in await models.all()}
    assert found["cat/cat.safetensors"].kind == "final"
    assert found["cat/cat.safetensors"].step == 20
    assert found["cat/cat_000000010.safetensors"].step == 10
    assert found["cat/cat_.safetensors"].kind == "other"
    high = found["my лора v1!/my лора v1!_000000005_high_noise.safetensors"]
    assert (high.stage, high.partner) == ("high_noise", high.model_path.replace("high", "low"))
    assert found["half/half.safetensors"].problem is not None
    described = found["cat/cat.safetensors"].description
    assert described is not None
    assert (described.network.rank, described.metadata["name"]) == (4, "лора")
    assert (await models.find("cat")).model_path == "cat/cat.safetensors"
    assert (await models.find(str(OUTPUTS / "cat" / "cat.safetensors"))).path == OUTPUTS / "cat" / "cat.safetensors"
    for path in ("../datasets", "/etc/passwd"):
        with pytest.raises(InvalidArguments):
            await models.find(path)
    with pytest.raises(NotFound) as caught:
        await models.find("cat/cat_000000011.safetensors")
    assert "cat/cat_000000010.safetensors" in caught.value.details["closest_matches"]


async def test_a_digest_is_that_of_the_bytes_as_they_are_now(fake: FakeAitkUi, models: RemoteModels) -> None:
    folder = await job(fake, "cat", **{"": lora(20)})
    assert (await models.find("cat")).sha256 is None
    for content in (lora(20), lora(20, b"\1")):
        (folder / "cat.safetensors").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        assert await models.sha256(await models.find("cat")) == digest
        assert (await models.find("cat")).sha256 == digest


async def test_an_export_is_kept_here_and_nothing_replaces_it(fake: FakeAitkUi, models: RemoteModels) -> None:
    folder = await job(fake, "cat", **{"": lora(20)})
    first = await models.export(await models.find("cat"), "mine", overwrite=False)
    assert (first.model_path, first.step) == ("_exported/mine.safetensors", 20)
    assert await models.read(first) == lora(20)
    again = await models.export(await models.find("cat"), "mine", overwrite=False)
    assert again.path == first.path
    (folder / "cat.safetensors").write_bytes(lora(30))
    with pytest.raises(Conflict, match="from other bytes"):
        await models.export(await models.find("cat"), "mine", overwrite=False)
    assert (await models.export(await models.find("cat"), "mine", overwrite=True)).step == 30
    assert [path.name for path in first.path.parent.parent.iterdir()] == ["_exported"]
    await models.delete(await models.find("_exported/mine.safetensors"))
    assert (folder / "cat.safetensors").exists()


async def test_one_model_is_deleted_and_no_other_file(fake: FakeAitkUi, models: RemoteModels) -> None:
    folder = await job(fake, "100%25 cat", _000000010=lora(10), **{"": lora(20)})
    doomed = await models.find("100%25 cat/100%25 cat_000000010.safetensors")
    await models.delete(doomed)
    assert [path.name for path in folder.iterdir()] == ["100%25 cat.safetensors"]
    with pytest.raises(NotFound, match="deleted at this moment"):
        await models.delete(doomed)
    with pytest.raises(NotFound, match="deleted at this moment"):
        await models.read(doomed)


async def test_a_download_that_ai_toolkit_refuses_is_told_before_it_begins(
    fake: FakeAitkUi, models: RemoteModels, serve: Serve
) -> None:
    folder = await job(fake, "cat", **{"": lora(20)})
    routes = remote_model_routes(models)
    url = serve(Starlette(routes=routes))
    async with httpx.AsyncClient(base_url=url) as client:
        found = await client.get("/models/cat/cat.safetensors", headers={"Range": "bytes=-100"})
    assert (found.status_code, found.content) == (206, lora(20)[-100:])
    (folder / "cat.safetensors").unlink()
    with pytest.raises(NotFound):
        await models.find("cat")


CALLS: dict[str, Callable[[RemoteModels], Awaitable[object]]] = {
    "all": lambda models: models.all(),
    "find": lambda models: models.find("cat"),
}
NONSENSE = [
    HTMLResponse("<html>Sign in</html>"),
    PlainTextResponse('{"jobs": [', media_type="application/json"),
    JSONResponse(["jobs"]),
    Response(status_code=500),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("response", NONSENSE)
async def test_whatever_answers_that_is_not_ai_toolkit_is_told_with_its_address(
    serve: Serve, tmp_path: Path, call: str, response: Response
) -> None:
    async def answer(request: Request) -> Response:
        return response

    url = serve(Starlette(routes=[Route("/{path:path}", answer)]))
    with pytest.raises(BackendRejected, match=url):
        await CALLS[call](over(url, tmp_path))
    with pytest.raises(BackendRejected, match=url):
        await read_ui_stats(UiHttp(url))


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (JSONResponse({"files": [{"path": "/far/away/output/x.safetensors"}]}), "without its path and size"),
        (JSONResponse({"files": "none"}), "lists no files"),
        (HTMLResponse("<html>"), "text/html"),
    ],
)
async def test_a_strange_list_of_files_is_no_empty_one(
    fake: FakeAitkUi, models: RemoteModels, response: Response, said: str
) -> None:
    await job(fake, "cat", **{"": lora(20)})
    fake.answers[f"/api/jobs/{next(iter(fake.tables.jobs))}/files"] = [response]
    with pytest.raises(BackendRejected, match=said):
        await models.all()


async def test_a_checkpoint_that_vanishes_while_the_server_lists_is_no_error(
    fake: FakeAitkUi, models: RemoteModels
) -> None:
    await job(fake, "cat", **{"": lora(20)})
    path = f"/api/jobs/{next(iter(fake.tables.jobs))}/files"
    fake.answers[path] = [Response(status_code=500)] * 3
    assert [model.model_path for model in await models.all()] == ["cat/cat.safetensors"]
    fake.answers[path] = [Response(status_code=500)] * 9
    with pytest.raises(BackendRejected, match="with 500"):
        await models.all()


async def test_nobody_there_is_unavailable_with_its_address(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for call in CALLS.values():
            with pytest.raises(BackendUnavailable, match=url):
                await call(over(url, tmp_path))


async def test_the_machine_of_ai_toolkit_is_described_as_it_tells(fake: FakeAitkUi) -> None:
    gpu = {
        "index": 0,
        "name": "NVIDIA H200",
        "driverVersion": "570.1",
        "temperature": 41,
        "utilization": {"gpu": 7, "memory": 1},
        "memory": {"total": 143771, "free": 143000, "used": 771},
        "power": {"draw": 76.5, "limit": 700},
    }
    fake.answers["/api/gpu"] = [JSONResponse({"hasNvidiaSmi": True, "isMac": False, "gpus": [gpu]})]
    found = await read_ui_stats(UiHttp(fake.url))
    assert (found.cpu_count, found.disks, found.gpu_problem) == (2, (), None)
    assert (found.gpus[0].name, found.gpus[0].memory_total_bytes) == ("NVIDIA H200", 143771 * 1024**2)
    assert (found.gpus[0].utilization_percent, found.gpus[0].power_limit_w) == (7, 700)
    assert (await read_ui_stats(UiHttp(fake.url))).gpu_problem == "nvidia-smi not found or not accessible"
