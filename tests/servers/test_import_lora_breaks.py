"""import-lora when something breaks in the middle: connections, disks, either server, and the model itself."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from subprocess import Popen

import anyio
import httpx
import pytest

from comfy_mcp.imports.parallel import SEGMENT_BYTES
from mcp_toolserver.errors import BackendUnavailable, Conflict, InsufficientStorage
from mcp_toolserver.tools import Call
from mcp_toolserver.uploads.digests import DigestMismatch
from tests.conftest import server_process
from tests.fakes.disk_faults import largest_file
from tests.servers.importing import Pair, Serve, importing, in_one_task, lora_bytes, pair_of, save_model

LORA = lora_bytes(6_000_000)


@pytest.fixture
async def pair(tmp_path: Path, serve: Serve) -> AsyncGenerator[Pair]:
    """Run both sides, with a trained model on one."""
    async with in_one_task(pair_of(tmp_path, serve)) as running:
        save_model(running.outputs, LORA)
        yield running


def starts(pair: Pair) -> list[int]:
    """Return where each request for bytes began."""
    return [int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0 for asked in pair.road.asked]


async def test_a_broken_pull_goes_on_where_it_stopped(pair: Pair) -> None:
    pair.road.cuts = [1_000_000, 2_000_000]
    assert (await pair.bring(method="pull"))["status"] == "completed"
    assert (pair.loras / "cat.safetensors").read_bytes() == LORA
    assert starts(pair) == [0, 1_000_000, 3_000_000]


async def test_a_pull_that_was_given_up_goes_on_when_it_is_wanted_again(pair: Pair) -> None:
    pair.road.cuts = [1_000_000, 0, 0, 0]
    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        await pair.bring(method="pull")
    assert (await pair.bring(method="pull"))["status"] == "completed"
    assert (pair.loras / "cat.safetensors").read_bytes() == LORA
    assert starts(pair) == [0, 1_000_000, 1_000_000, 1_000_000, 1_000_000]


@pytest.mark.parametrize("status", [500, 503, 302, 403])
async def test_an_answer_without_the_bytes_is_told(pair: Pair, status: int) -> None:
    pair.road.status = status
    with pytest.raises(Exception, match=f"aitk_mcp answered {status}"):
        await pair.bring(method="pull")
    pair.road.status = None
    assert (await pair.bring(method="pull"))["status"] == "completed"


async def test_a_model_that_changes_in_between_comes_in_its_new_state(pair: Pair) -> None:
    newer = lora_bytes(5_000_000, seed=1)

    async def retrain(sent: int) -> None:
        if sent and pair.road.cuts == []:
            pair.road.at_piece = None
            await asyncio.to_thread(save_model, pair.outputs, newer)

    pair.road.cuts, pair.road.at_piece = [1_000_000], retrain
    assert (await pair.bring(method="pull"))["total_bytes"] == len(newer)
    assert (pair.loras / "cat.safetensors").read_bytes() == newer
    assert starts(pair) == [0, 1_000_000, 0]
    assert pair.leftovers() == []


async def test_a_model_that_is_written_in_place_comes_in_its_new_state(pair: Pair) -> None:
    newer = lora_bytes(6_000_000, seed=1)

    async def overwrite(sent: int) -> None:
        pair.road.at_piece = None
        await asyncio.to_thread((pair.outputs / "cat" / "cat.safetensors").write_bytes, newer)

    pair.road.at_piece = overwrite
    await pair.bring(method="pull")
    assert (pair.loras / "cat.safetensors").read_bytes() == newer
    assert pair.leftovers() == []


async def test_a_model_that_never_stands_still_is_given_up(pair: Pair) -> None:
    async def retrain(sent: int) -> None:
        if sent == 0:
            await asyncio.to_thread(save_model, pair.outputs, lora_bytes(1_000_000, seed=len(pair.road.asked)))

    pair.road.cuts, pair.road.at_piece = [500_000] * 20, retrain
    with pytest.raises(Conflict, match="changed each time") as caught:
        await pair.bring(method="pull")
    assert "export-model" in (caught.value.hint or "")
    assert list(pair.loras.glob("*.safetensors")) == []
    assert pair.leftovers() == []


async def test_bytes_that_were_damaged_on_the_way_are_refused(pair: Pair) -> None:
    pair.road.damage = lambda piece: piece[:-1] + bytes([piece[-1] ^ 1])
    with pytest.raises(DigestMismatch):
        await pair.bring(method="pull")
    assert list(pair.loras.glob("*.safetensors")) == []
    assert pair.leftovers() == []
    pair.road.damage = bytes
    assert (await pair.bring(method="pull"))["status"] == "completed"


@pytest.mark.parametrize("method", ["pull", "copy"])
async def test_a_full_disk_is_told_and_what_came_is_kept(pair: Pair, method: str) -> None:
    with largest_file(3_000_000), pytest.raises(InsufficientStorage) as caught:
        await pair.bring(method=method)
    assert "disk is full" in caught.value.message
    assert list(pair.loras.glob("*.safetensors")) == []
    assert (await pair.bring(method=method))["status"] == "completed"
    assert (pair.loras / "cat.safetensors").read_bytes() == LORA
    if method == "pull":
        assert starts(pair)[-1] >= 2_000_000


async def test_several_connections_bring_the_same_file(tmp_path: Path, serve: Serve) -> None:
    lora = lora_bytes(3 * SEGMENT_BYTES + 77)
    async with pair_of(tmp_path, serve, connections=3) as pair:
        save_model(pair.outputs, lora)
        await pair.bring(method="pull")
        assert (pair.loras / "cat.safetensors").read_bytes() == lora
        assert sorted(starts(pair)) == [0, SEGMENT_BYTES, 2 * SEGMENT_BYTES, 3 * SEGMENT_BYTES]
        pair.road.asked.clear()
        pair.road.cuts = [1_000_000, 1_000_000]
        await pair.bring(method="pull", filename="again.safetensors")
        assert (pair.loras / "again.safetensors").read_bytes() == lora
        newer = lora_bytes(2 * SEGMENT_BYTES, seed=1)
        retraining = asyncio.Lock()

        async def retrain(sent: int) -> None:
            async with retraining:
                # No segment comes whole before the model is another one.
                if pair.road.at_piece is not None:
                    await asyncio.to_thread(save_model, pair.outputs, newer)
                    pair.road.at_piece = None

        pair.road.at_piece = retrain
        await pair.bring(method="pull", filename="newer.safetensors")
        assert (pair.loras / "newer.safetensors").read_bytes() == newer
        assert pair.leftovers() == []


async def test_a_server_that_stops_does_not_wait_for_a_peer_that_is_silent(tmp_path: Path, serve: Serve) -> None:
    is_over = threading.Event()

    async def hold(sent: int) -> None:
        if sent > 3_000_000:
            await asyncio.to_thread(is_over.wait)

    with anyio.fail_after(30):
        async with pair_of(tmp_path, serve) as pair:
            save_model(pair.outputs, LORA)
            pair.road.at_piece = hold
            while not (await pair.bring(method="pull", wait_s=0.01))["received_bytes"]:
                pass
    is_over.set()


class Killing:
    """Kill a server once some bytes have come."""

    def __init__(self, process: Popen[str]) -> None:
        self._process = process

    async def __call__(self, done: float, /, total: float | None = None, message: str | None = None) -> None:
        if done:
            self._process.kill()


async def test_aitk_mcp_may_be_killed_in_the_middle(tmp_path: Path) -> None:
    lora = lora_bytes(48_000_000)
    loras = tmp_path / "loras"
    loras.mkdir()
    save_model(tmp_path / "aitk" / "output", lora)
    arguments = ["--data-dir", str(tmp_path / "aitk"), "--trainer", "embedded"]
    wanted = {"model_path": "cat", "method": "pull"}
    with server_process("aitk_mcp", *arguments) as (process, url):
        async with importing(loras, url, tmp_path / "cache.sqlite") as tools:
            with pytest.raises(BackendUnavailable, match="cannot be reached"):
                await tools.call("import-lora", wanted, Call(report=Killing(process)))
            [upload] = (await tools.call("list-uploads", {}, Call()))["uploads"]
            assert 0 < upload["received_bytes"] < len(lora)
            port = str(httpx.URL(url).port)
            with server_process("aitk_mcp", *arguments, "--port", port):
                result = await tools.call("import-lora", wanted, Call())
    assert (result["status"], result["upload_id"]) == ("completed", upload["upload_id"])
    assert (loras / "cat.safetensors").read_bytes() == lora


async def test_comfy_mcp_may_be_killed_in_the_middle(pair: Pair, tmp_path: Path) -> None:
    loras = tmp_path / "comfy" / "comfyui" / "models" / "loras"
    arguments = ["--data-dir", str(tmp_path / "comfy"), "--backend", "embedded", "--aitk-url", pair.url]
    wanted = {"tool": "import-lora", "arguments": {"model_path": "cat", "method": "pull"}}

    def kill_once_some_came(process: Popen[str]) -> None:
        while not any(part.stat().st_size for part in loras.glob(".uploads/*/data.part")):
            pass
        process.kill()
        process.wait()

    with server_process("comfy_mcp", *arguments) as (process, url):

        async def kill(sent: int) -> None:
            if sent > 5_000_000:
                await asyncio.to_thread(kill_once_some_came, process)

        pair.road.at_piece = kill
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            with pytest.raises(httpx.TransportError):
                await http.post("/mcp/tool", json=wanted)
    pair.road.at_piece = None
    assert list(loras.glob("*.safetensors")) == []
    with server_process("comfy_mcp", *arguments) as (_, url):
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            answer = (await http.post("/mcp/tool", json=wanted)).json()
    assert answer["success"], answer
    assert (loras / "cat.safetensors").read_bytes() == LORA
    assert starts(pair)[0] == 0
    assert starts(pair)[1] > 0
