"""Transfers that others interfere with: who damages what is kept, who brings the same LoRA, and who aborts."""

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from mcp_toolserver.terminal import Silence
from tests.e2e.transferring import SCRIPT, Heard, Pair, running_pair
from tests.servers.importing import lora_bytes, save_model
from transfers.transfer import transfer

LORA = lora_bytes(6_000_000)
ABORT = """
import json, pathlib, sys, httpx
[kept] = pathlib.Path(sys.argv[1]).rglob("*.json")
call = {"tool": "upload-lora-chunked-abort", "arguments": json.loads(kept.read_bytes())}
httpx.post(sys.argv[2], json=call).raise_for_status()
"""
THROUGH_HERE = ("tus", "chunked")


@pytest.fixture
def pair(tmp_path: Path) -> Generator[Pair]:
    """Run both servers, with a trained model on one."""
    with running_pair(tmp_path) as running:
        save_model(running.outputs, LORA)
        yield running


class _Stop(Exception):
    pass


class Stops(Silence):
    """End the transfer as soon as something has arrived."""

    def progress(self, phase: str, done: float, total: float) -> None:
        """End it."""
        raise _Stop


class Interfered(Heard):
    """Let another program run to its end: before the first byte, or in the middle."""

    def __init__(self, *command: str, before: bool = False) -> None:
        super().__init__()
        self._command = command
        self._before = before
        self.ended_with: int | None = None

    def say(self, event: str, text: str, **values: object) -> None:
        """Remember, and let it run."""
        super().say(event, text, **values)
        if event == "model" and self._before:
            self._run()

    def progress(self, phase: str, done: float, total: float) -> None:
        """Let it run."""
        if self.ended_with is None and done > 1_000_000:
            self._run()

    def _run(self) -> None:
        process = os.posix_spawnp(self._command[0], self._command, os.environ)
        self.ended_with = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


async def stopped(pair: Pair) -> Path:
    """Begin a transfer, end it in the middle, and return the file that it is resumed by."""
    with pytest.raises(_Stop):
        await transfer(pair.options(state_dir=pair.home / "loraloop" / "transfers", method="chunked"), Stops())
    [kept] = pair.leftovers()
    return kept


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[]", b"\xff", b'{"upload_id":"zz"}', b'{"upload_id":7}'])
async def test_damaged_state_is_passed_over(pair: Pair, damaged: bytes) -> None:
    (await stopped(pair)).write_bytes(damaged)
    ended = pair.run("--method", "chunked")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert pair.arrived("cat.safetensors") == LORA
    assert pair.leftovers() == []


async def test_another_spelling_of_the_addresses_resumes_too(pair: Pair) -> None:
    await stopped(pair)
    flags = ("--aitk-url", f"{pair.aitk_url}/", "--comfy-url", f"{pair.comfy_url}/mcp")
    events = [event["event"] for event in pair.events("--method", "chunked", *flags)]
    assert "resumed" in events
    assert pair.leftovers() == []


@pytest.mark.parametrize("method", THROUGH_HERE)
@pytest.mark.parametrize("before", [True, False])
async def test_who_is_overtaken_by_another_run_finds_it_there(pair: Pair, method: str, before: bool) -> None:
    flags = ("--aitk-url", pair.aitk_url, "--comfy-url", pair.comfy_url, "--method", method, "--model", "cat")
    command = ("env", f"XDG_STATE_HOME={pair.home}", sys.executable, str(SCRIPT), *flags)
    heard = Interfered(*command, before=before)
    options = pair.options(model="cat", method=method, state_dir=pair.home / "loraloop" / "transfers")
    report = await transfer(options, heard)
    assert heard.ended_with == 0
    assert (report.checksum_verified, report.listed) == (True, True)
    assert report.already_there == before
    assert pair.arrived("cat.safetensors") == LORA
    assert pair.leftovers() == []
    assert list((pair.loras / ".uploads").rglob("*.part")) == []


@pytest.mark.parametrize("method", THROUGH_HERE)
async def test_an_upload_that_somebody_aborted_begins_anew(pair: Pair, method: str) -> None:
    heard = Interfered(sys.executable, "-c", ABORT, str(pair.home), f"{pair.comfy_url}/mcp/tool")
    report = await transfer(pair.options(model="cat", method=method), heard)
    assert heard.ended_with == 0
    assert "retry" in heard.events
    assert report.method == method
    assert pair.arrived("cat.safetensors") == LORA
