"""import-lora from an aitk_mcp on a real socket: what arrives, by which way, and what is refused."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from aitk_mcp.app import create_app
from comfy_mcp.settings import ComfySettings
from mcp_toolserver.errors import BackendRejected, BackendUnavailable, Conflict, InvalidArguments, NotFound
from tests.fakes.comfyui_elsewhere import Elsewhere
from tests.servers.aitk import settings_in
from tests.servers.comfy_tools import comfy_tools
from tests.servers.importing import Pair, Serve, importing, in_one_task, lora_bytes, pair_of, save_model, sha256
from tests.servers.lora_server import lora_server

LORA = lora_bytes(300_000)


@pytest.fixture
async def pair(tmp_path: Path, serve: Serve) -> AsyncGenerator[Pair]:
    """Run both sides, with a trained model on one."""
    async with in_one_task(pair_of(tmp_path, serve)) as running:
        save_model(running.outputs, LORA)
        yield running


@pytest.mark.parametrize(
    ("method", "came_by"), [("auto", ("reflink", "link")), ("copy", ("copy",)), ("pull", ("pull",))]
)
async def test_a_model_arrives_whole_with_its_config(pair: Pair, method: str, came_by: tuple[str, ...]) -> None:
    result = await pair.bring(method=method, filename="people/anna.safetensors")
    assert (pair.loras / "people" / "anna.safetensors").read_bytes() == LORA
    assert result["method"] in came_by
    assert (result["status"], result["already_there"], result["filename"]) == (
        "completed",
        False,
        "people/anna.safetensors",
    )
    assert (result["source"], result["received_bytes"], result["total_bytes"]) == (
        "cat/cat.safetensors",
        len(LORA),
        len(LORA),
    )
    assert result["sha256"] == sha256(LORA)
    # Nobody read the bytes of a link, and so nothing is said of them.
    is_read = result["method"] in ("copy", "pull")
    assert (result["checksum_verified"], result["lora"]["sha256"]) == (is_read, sha256(LORA) if is_read else None)
    supplied = json.loads((pair.loras / "people" / "anna.safetensors.metadata.json").read_text())
    assert supplied["source"] == {"server": pair.url, "model_path": "cat/cat.safetensors"}
    assert supplied["training_config"]["config"]["process"][0]["trigger_word"] == "tok"
    assert pair.leftovers() == []


@pytest.mark.parametrize("method", ["auto", "copy", "pull"])
async def test_what_is_there_already_is_left_alone(pair: Pair, method: str) -> None:
    await pair.bring(method=method)
    before = (pair.loras / "cat.safetensors").stat()
    asked = len(pair.road.asked)
    for overwrite in (False, True):
        again = await pair.bring(method=method, overwrite=overwrite)
        assert (again["status"], again["already_there"], again["method"]) == ("completed", True, None)
        assert again["sha256"] == again["lora"]["sha256"] == sha256(LORA)
    assert (pair.loras / "cat.safetensors").stat() == before
    assert len(pair.road.asked) == asked


async def test_the_same_bytes_from_elsewhere_count_as_there(pair: Pair) -> None:
    (pair.loras / "cat.safetensors").write_bytes(LORA)
    assert (await pair.bring())["already_there"] is True


@pytest.mark.parametrize("method", ["auto", "copy", "pull"])
async def test_another_lora_of_the_name_is_replaced_only_when_that_is_wanted(pair: Pair, method: str) -> None:
    other = lora_bytes(300_000, seed=1)
    (pair.loras / "cat.safetensors").write_bytes(other)
    with pytest.raises(Conflict, match="exists already"):
        await pair.bring(method=method)
    assert (pair.loras / "cat.safetensors").read_bytes() == other
    assert (await pair.bring(method=method, overwrite=True))["already_there"] is False
    assert (pair.loras / "cat.safetensors").read_bytes() == LORA
    assert pair.leftovers() == []


@pytest.mark.parametrize("method", ["auto", "pull"])
async def test_a_lora_that_was_deleted_comes_again(pair: Pair, method: str) -> None:
    for _ in range(3):
        await pair.bring(method=method)
        await pair.call("delete-lora", lora_name="cat.safetensors")
        assert (pair.outputs / "cat" / "cat.safetensors").read_bytes() == LORA


async def test_the_address_of_a_model_is_as_good_as_its_path(pair: Pair) -> None:
    url = f"{pair.url.replace('127.0.0.1', 'localhost')}/models/cat/cat.safetensors"
    result = await pair.bring(url=url)
    assert (result["source"], result["method"] in ("link", "reflink")) == ("cat/cat.safetensors", True)


class Prefixed:
    """A proxy that puts a server below a path."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            assert path.startswith(self._prefix)
            scope = {**scope, "path": path.removeprefix(self._prefix), "raw_path": path.encode()}
        await self._app(scope, receive, send)


async def test_the_address_of_a_model_may_lie_below_a_path(pair: Pair, tmp_path: Path, serve: Serve) -> None:
    url = f"{serve(Prefixed(create_app(settings_in(tmp_path / 'aitk')), '/aitk'))}/aitk"
    async with importing(pair.loras, url, tmp_path / "other.sqlite") as tools:
        prefixed = Pair(pair.outputs, pair.loras, pair.road, url, tools)
        told = await prefixed.bring(url=f"{url}/models/cat/cat.safetensors", method="pull")
    assert (told["source"], told["method"]) == ("cat/cat.safetensors", "pull")
    assert (pair.loras / "cat.safetensors").read_bytes() == LORA


@pytest.mark.parametrize("method", ["auto", "pull"])
async def test_a_comfyui_on_another_machine_gets_it_by_its_routes(
    pair: Pair, tmp_path: Path, serve: Serve, method: str
) -> None:
    machine = Elsewhere(tmp_path / "elsewhere")
    (machine.folder / "models" / "loras").mkdir(parents=True)
    settings = {"port": 0, "data_dir": tmp_path / "data", "comfyui_api_url": serve(machine.app()), "aitk_url": pair.url}
    async with comfy_tools(ComfySettings.model_validate(settings)) as tools:
        first = await tools("import-lora", model_path="cat", method=method)
        again = await tools("import-lora", model_path="cat", method=method)
    (stored,) = (path for path in (tmp_path / "elsewhere").rglob("*.safetensors"))
    assert stored.read_bytes() == LORA
    assert (first["already_there"], again["already_there"]) == (False, True)
    assert first["filename"] == again["filename"]
    assert (pair.outputs / "cat" / "cat.safetensors").stat().st_nlink == 1


async def test_progress_is_told(pair: Pair) -> None:
    heard: list[tuple[float, float | None]] = []

    async def report(done: float, /, total: float | None = None, message: str | None = None) -> None:
        heard.append((done, total))

    await pair.heard("import-lora", report, {"model_path": "cat", "method": "pull"})
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1] == (len(LORA), len(LORA))


async def test_a_wait_that_runs_out_loses_nothing(pair: Pair) -> None:
    going_on = threading.Event()

    async def hold(sent: int) -> None:
        if sent:
            await asyncio.to_thread(going_on.wait)

    pair.road.at_piece = hold
    first = await pair.bring(method="pull", wait_s=0)
    assert (first["status"], first["lora"], first["method"]) == ("importing", None, None)
    upload_id: str | None = None
    while upload_id is None:
        upload_id = (await pair.bring(method="pull", wait_s=0.01))["upload_id"]
    assert (await pair.call("upload-lora-chunked-status", upload_id=upload_id))["status"] == "receiving"
    assert [each["upload_id"] for each in (await pair.call("list-uploads"))["uploads"]] == [upload_id]
    going_on.set()
    last = await pair.bring(method="pull")
    assert (last["status"], last["upload_id"], len(pair.road.asked)) == ("completed", upload_id, 1)
    assert (pair.loras / "cat.safetensors").read_bytes() == LORA


async def test_two_models_under_one_name_at_once_are_refused(pair: Pair) -> None:
    save_model(pair.outputs, lora_bytes(1000, seed=2), "dog")
    going_on = threading.Event()

    async def hold(sent: int) -> None:
        await asyncio.to_thread(going_on.wait)

    pair.road.at_piece = hold
    while (await pair.bring(method="pull", wait_s=0.01))["filename"] is None:
        pass
    with pytest.raises(Conflict, match="is being imported as") as caught:
        await pair.bring(model_path="dog", filename="cat.safetensors")
    assert caught.value.details["model_path"] == "cat"
    going_on.set()
    assert (await pair.bring(method="pull"))["status"] == "completed"


@pytest.mark.parametrize(
    ("filename", "words"),
    [
        ("../up.safetensors", "begins with a dot"),
        ("/abs.safetensors", "absolute"),
        ("a.pt", "can run code"),
        ("a.txt", "ends in"),
    ],
)
async def test_a_name_that_cannot_be_is_refused_before_anybody_is_asked(pair: Pair, filename: str, words: str) -> None:
    with pytest.raises(InvalidArguments, match=words) as caught:
        await pair.bring(filename=filename, model_path="no such model")
    assert caught.value.details["field"] == "filename"


async def test_a_model_that_is_not_there_is_named_with_the_closest(pair: Pair) -> None:
    with pytest.raises(NotFound, match="no model `catt`") as caught:
        await pair.bring(model_path="catt")
    assert caught.value.details["closest_matches"] == ["cat/cat.safetensors"]
    assert pair.leftovers() == []


@pytest.mark.parametrize("arguments", [{}, {"model_path": "cat", "url": "https://example.org/a.safetensors"}])
async def test_one_source_is_wanted(pair: Pair, arguments: dict[str, str]) -> None:
    with pytest.raises(InvalidArguments, match="`model_path` or `url`"):
        await pair.call("import-lora", **arguments)


async def test_a_file_that_is_no_lora_is_refused_and_leaves_nothing(pair: Pair) -> None:
    for method in ("auto", "copy", "pull"):
        save_model(pair.outputs, b"\x80\x02}q\0X\x05\0\0\0" + os.urandom(100_000), "pickle")
        with pytest.raises(InvalidArguments, match="no usable safetensors"):
            await pair.bring(model_path="pickle", method=method)
    assert [path.name for path in pair.loras.glob("*.safetensors")] == []


async def test_no_peer_and_a_stranger_are_told_apart(tmp_path: Path, serve: Serve, pair: Pair) -> None:
    async with importing(tmp_path / "loras", "http://127.0.0.1:9", tmp_path / "none.sqlite") as tools:
        with pytest.raises(BackendUnavailable, match="cannot be reached") as silent:
            await Pair(pair.outputs, pair.loras, pair.road, pair.url, tools).bring()
    assert silent.value.details["setting"] == "COMFY_MCP_AITK_URL"

    for stranger in (lora_server(tmp_path / "loras", tmp_path / "cache.sqlite"), Starlette()):
        async with importing(tmp_path / "loras", serve(stranger), tmp_path / "other.sqlite") as tools:
            with pytest.raises(BackendRejected, match="is no aitk_mcp"):
                await Pair(pair.outputs, pair.loras, pair.road, pair.url, tools).bring()


async def test_a_peer_with_a_token_wants_it(tmp_path: Path, serve: Serve, pair: Pair) -> None:
    closed = serve(create_app(settings_in(tmp_path / "aitk", token="a secret of sixteen")))
    async with importing(pair.loras, closed, tmp_path / "other.sqlite") as tools:
        with pytest.raises(BackendRejected, match="wants another token") as caught:
            await Pair(pair.outputs, pair.loras, pair.road, closed, tools).bring()
    assert caught.value.details["setting"] == "COMFY_MCP_AITK_TOKEN"
    async with importing(pair.loras, closed, tmp_path / "other.sqlite", token="a secret of sixteen") as tools:
        told = await Pair(pair.outputs, pair.loras, pair.road, closed, tools).bring(method="pull")
    assert told["status"] == "completed"


async def test_only_the_state_that_is_meant_comes_in(pair: Pair) -> None:
    with pytest.raises(Conflict, match="and not 00") as caught:
        await pair.bring(sha256="00" * 32)
    assert (caught.value.details["field"], caught.value.details["actual_sha256"]) == ("sha256", sha256(LORA))
    assert pair.leftovers() == []
    assert not (pair.loras / "cat.safetensors").exists()
    assert (await pair.bring(sha256=sha256(LORA).upper()))["checksum_verified"] is True
