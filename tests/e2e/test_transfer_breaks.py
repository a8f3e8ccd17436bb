"""Transfers that break: the script, either server or the network dies in the middle, or the bytes are not the right
ones."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from mcp_toolserver.errors import BackendUnavailable, Conflict
from mcp_toolserver.terminal import Silence, Teller
from tests.conftest import server_process
from tests.e2e.transferring import SCRIPT, Heard, Pair
from tests.fakes.model_road import ModelRoad
from tests.fakes.relay import relay_before
from tests.fakes.rough_road import Break, rough_road_to
from tests.servers.aitk import settings_in
from tests.servers.importing import lora_bytes, save_model
from transfers.options import TransferReport, WrongBytes
from transfers.transfer import transfer

LORA = lora_bytes(12_000_000)
THROUGH_HERE = ("tus", "chunked")
PROGRAM = """
import os, pathlib, signal, sys
import anyio
from mcp_toolserver.terminal import Silence
from transfers.options import TransferOptions
from transfers.transfer import transfer
PosixPath = pathlib.PosixPath

class Dies(Silence):
    def progress(self, phase, done, total):
        if done > total * DIES_AT:
            os.kill(os.getpid(), signal.SIGKILL)

anyio.run(transfer, OPTIONS, Dies())
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@dataclass(frozen=True)
class Broken:
    """A trainer behind a road that a test breaks, and a comfy_mcp that can be killed and started again."""

    pair: Pair
    road: ModelRoad
    restart_comfy: Callable[[], None]

    async def move(self, method: str, teller: Teller | None = None, **given: Any) -> TransferReport:
        """Move the model `cat` patiently."""
        options = {"model": "cat", "retries": 12, "first_wait_s": 0.02, "chunk_bytes": 100_000, **given}
        return await transfer(self.pair.options(method=method, **options), teller)

    def starts(self) -> list[int]:
        """Return where each request for bytes began."""
        return [int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0 for asked in self.road.asked]


@pytest.fixture
def broken(tmp_path: Path, serve: Callable[[ASGIApp], str]) -> Generator[Broken]:
    """Run both sides, with a trained model on one."""
    settings = settings_in(tmp_path / "aitk")
    road = ModelRoad(create_app(settings))
    aitk_url = serve(road)
    outputs = settings.data_dir / "output"
    save_model(outputs, LORA)
    arguments = ("--backend", "embedded", "--data-dir", str(tmp_path / "comfy"), "--aitk-url", aitk_url)
    with ExitStack() as stack:
        process, comfy_url = stack.enter_context(server_process("comfy_mcp", *arguments))
        running = [process]

        def restart() -> None:
            running[-1].kill()
            running[-1].wait()
            port = ("--port", str(urlsplit(comfy_url).port))
            running.append(stack.enter_context(server_process("comfy_mcp", *arguments, *port))[0])

        pair = Pair(aitk_url, comfy_url, outputs, tmp_path / "comfy" / "comfyui", tmp_path / "home")
        yield Broken(pair, road, restart)


def run_program(pair: Pair, dies_at: float, **given: Any) -> subprocess.CompletedProcess[str]:
    """Run a transfer in a process that kills itself at a part of the way; else it prints its peak memory in KiB."""
    options = pair.options(**given)
    program = "import pathlib; from transfers.options import TransferOptions\nPosixPath = pathlib.PosixPath\n"
    program = f"{program}DIES_AT = {dies_at}\nOPTIONS = {options!r}\n{PROGRAM}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("method", THROUGH_HERE)
async def test_a_killed_script_goes_on_where_it_was(broken: Broken, method: str) -> None:
    given = {"model": "cat", "method": method, "chunk_bytes": 100_000}
    killed = await asyncio.to_thread(run_program, broken.pair, 0.4, **given)
    assert killed.returncode == -9, killed.stderr
    assert list(broken.pair.loras.glob("*.safetensors")) == []
    assert len(broken.pair.leftovers()) == 1
    heard = Heard()
    report = await transfer(broken.pair.options(**given), heard)
    assert "resumed" in heard.events
    # What was on its way through sockets when it died may not have arrived.
    assert report.resumed_at_bytes > 1_000_000
    assert broken.starts()[-1] >= 1_000_000
    assert report.checksum_verified
    assert broken.pair.arrived("cat.safetensors") == LORA
    assert broken.pair.leftovers() == []


@pytest.fixture
def children_hear_interrupts() -> Generator[None]:
    """A shell that runs these tests in the background has SIGINT ignored, which children would inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("children_hear_interrupts")
async def test_an_interrupted_script_says_how_to_go_on(broken: Broken) -> None:
    let_go = threading.Event()

    async def hold(sent: int) -> None:
        if sent > 2_000_000:
            await asyncio.to_thread(let_go.wait, 60)

    broken.road.at_piece = hold
    command = [sys.executable, str(SCRIPT), "--model", "cat", "--method", "tus", "--json"]
    servers = {"AITK_MCP_URL": broken.pair.aitk_url, "COMFY_MCP_URL": broken.pair.comfy_url}
    state = {"XDG_STATE_HOME": str(broken.pair.home)}

    def interrupt() -> tuple[int, str]:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | servers | state
        ) as script:
            assert script.stdout is not None
            assert any('"progress"' in line for line in script.stdout)
            script.send_signal(signal.SIGINT)
            let_go.set()
            return script.wait(60), script.communicate()[1]

    returncode, said = await asyncio.to_thread(interrupt)
    assert (returncode, said) == (130, "transfer: Interrupted; run again to resume.\n")
    assert (await asyncio.to_thread(broken.pair.run, "--model", "cat", "--method", "tus")).returncode == 0
    assert broken.pair.arrived("cat.safetensors") == LORA


async def test_a_pull_goes_on_without_the_script_that_began_it(broken: Broken) -> None:
    let_go = threading.Event()

    async def hold(sent: int) -> None:
        if sent > 1_000_000:
            await asyncio.to_thread(let_go.wait, 60)

    broken.road.at_piece = hold
    killed = await asyncio.to_thread(run_program, broken.pair, -1, model="cat", method="pull")
    assert killed.returncode == -9, killed.stderr
    let_go.set()
    report = await broken.move("pull")
    assert report.checksum_verified
    assert broken.pair.arrived("cat.safetensors") == LORA
    assert broken.starts() == [0]


async def test_what_one_way_began_another_goes_on_with(broken: Broken) -> None:
    given = {"model": "cat", "chunk_bytes": 100_000}
    for way, other in (THROUGH_HERE, THROUGH_HERE[::-1]):
        name = f"{way}.safetensors"
        killed = await asyncio.to_thread(run_program, broken.pair, 0.4, **given, method=way, name=name)
        assert killed.returncode == -9, killed.stderr
        report = await broken.move(other, name=name)
        assert report.resumed_at_bytes > 1_000_000
        assert broken.pair.arrived(name) == LORA
    # What is on its disk needs nothing of what had been sent.
    killed = await asyncio.to_thread(run_program, broken.pair, 0.4, **given, method="tus")
    assert (await broken.move("auto")).method == "link"
    assert broken.pair.leftovers() == []
    assert list((broken.pair.loras / ".uploads").rglob("*.part")) == []


@pytest.mark.parametrize("method", ["pull", *THROUGH_HERE])
async def test_a_killed_comfy_mcp_is_waited_for(broken: Broken, method: str) -> None:
    large = lora_bytes(80_000_000)
    save_model(broken.pair.outputs, large)

    async def kill(sent: int) -> None:
        if sent > 70_000_000:
            broken.road.at_piece = None
            await asyncio.to_thread(broken.restart_comfy)

    broken.road.at_piece = kill
    report = await broken.move(method, chunk_bytes=1_000_000)
    assert (report.method, report.checksum_verified) == (method, True)
    assert broken.pair.arrived("cat.safetensors") == large
    # What was safe on its disk was not fetched again; of chunks, each is.
    assert broken.starts()[-1] >= 30_000_000 or broken.starts() == [0]


@pytest.mark.parametrize("method", THROUGH_HERE)
async def test_a_killed_aitk_mcp_is_waited_for(broken: Broken, tmp_path: Path, method: str) -> None:
    arguments = ("--trainer", "embedded", "--data-dir", str(tmp_path / "other"))
    large = lora_bytes(40_000_000)
    save_model(tmp_path / "other" / "output", large)
    with ExitStack() as stack:
        process, url = stack.enter_context(server_process("aitk_mcp", *arguments))

        def start_again() -> None:
            port = ("--port", str(urlsplit(url).port))
            stack.enter_context(server_process("aitk_mcp", *arguments, *port))

        again = threading.Thread(target=start_again)

        class Kills(Heard):
            def progress(self, phase: str, done: float, total: float) -> None:
                if done > total / 4 and process.poll() is None:
                    process.kill()
                    process.wait()
                    again.start()

        heard = Kills()
        try:
            report = await broken.move(method, aitk_url=url, teller=heard)
        finally:
            await asyncio.to_thread(again.join)
    assert "retry" in heard.events
    assert report.checksum_verified
    assert broken.pair.arrived("cat.safetensors") == large


@pytest.mark.parametrize("method", ["pull", *THROUGH_HERE])
async def test_a_trainer_whose_connections_break_is_asked_for_the_rest(broken: Broken, method: str) -> None:
    broken.road.cuts = [3_000_000, 0, 2_000_000]
    assert (await broken.move(method)).checksum_verified
    assert broken.pair.arrived("cat.safetensors") == LORA
    starts = broken.starts()
    # One more after each break where comfy_mcp still writes what came when it is asked how much that is.
    assert 4 <= len(starts) <= 7
    assert starts == sorted(starts)
    assert starts[3] > 0
    assert starts[-1] > 4_000_000


@pytest.mark.parametrize("method", THROUGH_HERE)
@pytest.mark.parametrize("how", ["cut", "half-close", "lose-answer"])
async def test_a_road_that_breaks_is_travelled_again(broken: Broken, method: str, how: Break) -> None:
    async with rough_road_to(broken.pair.comfy_url) as road:
        heals = 3

        class Mends(Silence):
            def say(self, event: str, text: str, **values: object) -> None:
                nonlocal heals
                heals -= event == "retry"
                if not heals:
                    road.breaks_after = None

        road.how, road.breaks_after = how, 2_500_000
        report = await broken.move(method, comfy_url=road.url, teller=Mends())
    assert heals <= 0
    assert report.checksum_verified
    assert broken.pair.arrived("cat.safetensors") == LORA


@pytest.mark.parametrize("request_line", ["POST /mcp/tool", "PATCH /uploads"])
async def test_a_lost_answer_is_asked_for_again(broken: Broken, request_line: str) -> None:
    async with relay_before(broken.pair.comfy_url) as relay:
        relay.swallow_answer_to = request_line
        report = await broken.move("tus", comfy_url=relay.url)
    assert relay.swallow_answer_to is None
    assert report.checksum_verified
    assert broken.pair.arrived("cat.safetensors") == LORA


async def test_a_server_that_stays_away_is_told_and_nothing_is_lost(broken: Broken) -> None:
    broken.road.cuts = [2_000_000, 0, 0]
    with pytest.raises(BackendUnavailable, match="cannot be reached") as caught:
        await broken.move("tus", retries=1)
    assert "run again" in (caught.value.hint or "")
    assert (await broken.move("tus")).resumed_at_bytes >= 1_900_000
    assert broken.pair.arrived("cat.safetensors") == LORA


@pytest.mark.parametrize("method", ["pull", *THROUGH_HERE])
async def test_a_model_that_changes_meanwhile_comes_in_its_new_state(broken: Broken, method: str) -> None:
    newer = lora_bytes(5_000_000)

    async def retrain(sent: int) -> None:
        if sent > 2_000_000:
            broken.road.at_piece, broken.road.cuts = None, []
            await asyncio.to_thread(save_model, broken.pair.outputs, newer)

    broken.road.at_piece, broken.road.cuts = retrain, [3_000_000]
    heard = Heard()
    report = await broken.move(method, teller=heard)
    assert heard.events.count("changed") == 1
    assert report.size_bytes == len(newer)
    assert broken.pair.arrived("cat.safetensors") == newer
    assert broken.pair.leftovers() == []
    assert list((broken.pair.loras / ".uploads").rglob("*.part")) == []


async def test_a_model_that_never_stands_still_is_given_up(broken: Broken) -> None:
    async def retrain(sent: int) -> None:
        if sent == 0:
            await asyncio.to_thread(save_model, broken.pair.outputs, lora_bytes(1_000_000))

    broken.road.at_piece, broken.road.cuts = retrain, [500_000] * 20
    with pytest.raises(Conflict, match="changed each time"):
        await broken.move("tus")
    assert list(broken.pair.loras.glob("*.safetensors")) == []
    assert broken.pair.leftovers() == []


@pytest.mark.parametrize("method", ["pull", *THROUGH_HERE])
async def test_bytes_that_were_damaged_on_the_way_do_not_come_in(broken: Broken, method: str) -> None:
    broken.road.damage = lambda piece: piece[:-1] + bytes([piece[-1] ^ 1])
    with pytest.raises(WrongBytes, match="Run again"):
        await broken.move(method)
    assert list(broken.pair.loras.glob("*.safetensors")) == []
    assert broken.pair.leftovers() == []
    broken.road.damage = bytes
    assert (await broken.move(method)).resumed_at_bytes == 0
    assert broken.pair.arrived("cat.safetensors") == LORA


async def test_a_transfer_by_other_chunks_begins_anew(broken: Broken) -> None:
    given = {"model": "cat", "method": "chunked"}
    killed = await asyncio.to_thread(run_program, broken.pair, 0.4, **given, chunk_bytes=100_000)
    assert killed.returncode == -9
    report = await broken.move("chunked", chunk_bytes=130_000)
    assert report.resumed_at_bytes == 0
    assert broken.pair.arrived("cat.safetensors") == LORA


async def test_two_scripts_at_once_bring_one_lora(broken: Broken) -> None:
    both = await asyncio.gather(
        broken.move("tus"), broken.move("tus", state_dir=broken.pair.home / "other"), return_exceptions=True
    )
    moved = [each for each in both if isinstance(each, TransferReport)]
    assert moved
    assert all(isinstance(each, TransferReport | Conflict) for each in both)
    assert broken.pair.arrived("cat.safetensors") == LORA


@pytest.mark.parametrize("method", THROUGH_HERE)
async def test_memory_does_not_grow_with_the_file(broken: Broken, method: str) -> None:
    # Several chunks long, so that even the smaller one fills every buffer there is.
    save_model(broken.pair.outputs, lora_bytes(32_000_000), "small")
    save_model(broken.pair.outputs, lora_bytes(160_000_000), "large")
    peak_kib: dict[str, int] = {}
    for model in ("small", "large"):
        given = {"model": model, "method": method}
        ended = await asyncio.to_thread(run_program, broken.pair, 2, **given)
        assert ended.returncode == 0, ended.stderr
        peak_kib[model] = int(ended.stdout)
    assert peak_kib["large"] - peak_kib["small"] < 48 * 1024
