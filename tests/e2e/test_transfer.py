"""The transfer script between two live servers: as a person runs it, through interruptions, and when it is refused."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp

from mcp_toolserver.app import create_server_app
from mcp_toolserver.auth import DoorPolicy
from mcp_toolserver.client import ToolClient
from mcp_toolserver.errors import BackendUnavailable, Conflict
from mcp_toolserver.terminal import Silence
from tests.conftest import ROOT, server_process
from tests.fakes.relay import relay_before
from tests.fakes.toy_server import SERVER
from tests.unit.lora_files.files import AI_TOOLKIT_METADATA, FLUX_AI_TOOLKIT, pairs, write
from transfer_lora_between_services import TransferOptions, transfer

SCRIPT = ROOT / "scripts" / "transfer_lora_between_services.py"
NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Pair:
    """Both servers on their embedded engines, and the folders that they keep."""

    aitk_url: str
    comfy_url: str
    outputs: Path
    loras: Path
    home: Path

    def trained(self, job: str, rank: int = 4) -> bytes:
        """Put a finished LoRA into the trainer's outputs folder."""
        path = write(self.outputs / job / f"{job}.safetensors", pairs(FLUX_AI_TOOLKIT, rank), AI_TOOLKIT_METADATA)
        return path.read_bytes()

    def run(self, *flags: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script, which finds the servers through its environment."""
        servers = {"AITK_MCP_URL": self.aitk_url, "COMFY_MCP_URL": self.comfy_url, "XDG_STATE_HOME": str(self.home)}
        return subprocess.run(
            [sys.executable, str(SCRIPT), *flags],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=cwd,
            env=os.environ | servers | environment,
            check=False,
        )

    def events(self, *flags: str) -> list[dict[str, Any]]:
        """Run the script with --json and return what it said."""
        ended = self.run("--json", *flags)
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    def options(self, **given: Any) -> TransferOptions:
        """Return options for the script as a function."""
        found = TransferOptions(
            aitk_url=self.aitk_url, comfy_url=self.comfy_url, first_wait_s=0.01, state_dir=self.home
        )
        return replace(found, **given)

    def leftovers(self) -> list[Path]:
        """Return what transfers have left in the state folder."""
        return [path for path in self.home.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Generator[Pair]:
    """Run both servers."""
    folder = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        trainer = server_process("aitk_mcp", "--trainer", "embedded", "--data-dir", str(folder / "aitk"))
        painter = server_process("comfy_mcp", "--backend", "embedded", "--data-dir", str(folder / "comfy"))
        _, aitk_url = stack.enter_context(trainer)
        _, comfy_url = stack.enter_context(painter)
        loras = folder / "comfy" / "comfyui" / "models" / "loras"
        yield Pair(aitk_url, comfy_url, folder / "aitk" / "output", loras, folder / "home")


def test_without_flags_the_newest_finished_model_arrives_verified(pair: Pair, tmp_path: Path) -> None:
    older, newest = pair.trained("older"), pair.trained("newest", rank=8)
    os.utime(pair.outputs / "older" / "older.safetensors", (1, 1))
    checkpoint = pair.outputs / "newest" / "newest_000000250.safetensors"
    checkpoint.write_bytes(older)
    ended = pair.run(cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (pair.loras / "newest.safetensors").read_bytes() == newest
    digest = hashlib.sha256(newest).hexdigest()
    assert f"newest.safetensors, sha256 {digest} (verified)." in ended.stdout
    assert "ComfyUI has it: flux" in ended.stdout
    assert pair.leftovers() == []
    # The next run takes what ComfyUI still lacks, and one more finds nothing to do.
    assert pair.run(cwd=tmp_path).returncode == 0
    assert (pair.loras / "older.safetensors").read_bytes() == older
    again = pair.run(cwd=tmp_path)
    assert again.returncode == 0
    assert "newest.safetensors is in ComfyUI already, with the same sha256." in again.stdout


def test_a_retrained_model_is_newer_than_its_namesake(pair: Pair) -> None:
    pair.trained("neglected")
    os.utime(pair.outputs / "neglected" / "neglected.safetensors", (1, 1))
    pair.trained("retrained")
    assert pair.run("--model", "retrained").returncode == 0
    pair.trained("retrained", rank=8)
    ended = pair.run()
    assert ended.returncode == 5
    assert "--overwrite" in ended.stderr
    assert not (pair.loras / "neglected.safetensors").exists()


def test_programs_follow_it_by_events(pair: Pair) -> None:
    data = pair.trained("followed")
    planned = pair.events("--model", "followed", "--dry-run")
    assert (planned[-1]["method"], planned[-1]["dry_run"]) == ("none", True)
    assert not (pair.loras / "followed.safetensors").exists()
    events = pair.events("--model", "followed", "--as", "people/anna.safetensors", "--chunk-size", "40000")
    assert [event["event"] for event in events if event["event"] != "progress"] == ["model", "verified", "done"]
    assert {event["phase"] for event in events if event["event"] == "progress"} == {"download", "upload"}
    done = events[-1]
    assert (done["method"], done["name"], done["size_bytes"]) == ("chunked", "people/anna.safetensors", len(data))
    assert done["checksum_verified"] is True
    assert (pair.loras / "people" / "anna.safetensors").read_bytes() == data
    same = pair.events("--model", "followed", "--as", "people/anna.safetensors")
    assert (same[-1]["method"], same[-1]["already_there"]) == ("none", True)
    listed = json.loads(pair.run("--list", "--json").stdout)["models"]
    assert {model["model_path"]: model["in_comfyui"] for model in listed}["followed/followed.safetensors"] is False


def test_a_name_that_is_taken_is_kept_unless_told_otherwise(pair: Pair) -> None:
    data = pair.trained("taken")
    write(pair.loras / "taken.safetensors", pairs(FLUX_AI_TOOLKIT, rank=2))
    refused = pair.run("--model", "taken")
    assert refused.returncode == 5
    assert "--overwrite" in refused.stderr
    assert pair.run("--model", "taken", "--overwrite", "--quiet").stdout == ""
    assert (pair.loras / "taken.safetensors").read_bytes() == data


def test_a_failure_says_what_it_is_by_text_and_exit_code(pair: Pair) -> None:
    pair.trained("present")
    unknown = pair.run("--model", "present/presemt.safetensors")
    assert unknown.returncode == 3
    assert "Did you mean `present/present.safetensors`?" in unknown.stderr
    silent = pair.run("--model", "present", "--retries", "0", COMFY_MCP_URL=NOWHERE)
    assert silent.returncode == 4
    assert f"{NOWHERE} does not answer" in silent.stderr
    misnamed = pair.run("--model", "present", "--as", "present.ckpt", "--json")
    assert misnamed.returncode == 5
    assert json.loads(misnamed.stdout.splitlines()[-1])["error"]["code"] == "invalid_arguments"
    assert pair.run("--colour").returncode == 2
    for ended in (unknown, silent, misnamed):
        assert "Traceback" not in ended.stderr


async def test_a_lost_answer_is_asked_for_again(pair: Pair) -> None:
    data = pair.trained("lost")
    async with relay_before(pair.comfy_url) as relay:
        relay.swallow_answer_to = "POST /mcp/tool"
        report = await transfer(pair.options(model="lost", comfy_url=relay.url))
    assert (report.checksum_verified, report.sha256) == (True, hashlib.sha256(data).hexdigest())


async def test_both_halves_are_resumed_after_the_script_was_killed(pair: Pair) -> None:
    data = pair.trained("resumed", rank=12)
    script = (
        "import os, signal, anyio, transfer_lora_between_services as script\n"
        "class Dies(script.Silence):\n"
        "    def progress(self, phase, done, total):\n"
        "        if phase == PHASE and done > total / 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "anyio.run(script.transfer, OPTIONS, Dies())\n"
    )
    options = pair.options(model="resumed", chunk_bytes=20_000)
    for phase in ("download", "upload"):
        values = f"import pathlib; PosixPath = pathlib.PosixPath\nPHASE = {phase!r}\n"
        given = f"OPTIONS = script.{options!r}\n"
        program = script.replace("class Dies", values + given + "class Dies")
        ended = subprocess.run([sys.executable, "-c", program], timeout=120, check=False)
        assert ended.returncode == -9
        assert not (pair.loras / "resumed.safetensors").exists()
    report = await transfer(options)
    assert report.resumed_at_bytes > len(data) / 4
    assert report.checksum_verified
    assert (pair.loras / "resumed.safetensors").read_bytes() == data
    assert pair.leftovers() == []


async def test_a_transfer_with_other_options_begins_anew(pair: Pair, tmp_path: Path) -> None:
    data = pair.trained("anew", rank=12)

    class Gone(Exception):
        pass

    class Leaves(Silence):
        def progress(self, phase: str, done: float, total: float) -> None:
            if phase == "upload":
                raise Gone

    with pytest.raises(Gone):
        await transfer(pair.options(model="anew", chunk_bytes=20_000), Leaves())
    report = await transfer(pair.options(model="anew", chunk_bytes=30_000))
    assert report.resumed_at_bytes == 0
    assert (pair.loras / "anew.safetensors").read_bytes() == data


class Counts(Silence):
    """Remember the events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def say(self, event: str, text: str, **values: object) -> None:
        """Remember."""
        self.events.append(event)


async def test_only_what_may_succeed_is_tried_again(pair: Pair) -> None:
    counts = Counts()
    with pytest.raises(BackendUnavailable, match="does not answer"):
        await transfer(pair.options(aitk_url=NOWHERE, retries=3), counts)
    assert counts.events == ["retry"] * 3
    pair.trained("refused")
    write(pair.loras / "refused.safetensors", pairs(FLUX_AI_TOOLKIT, rank=2))
    counts = Counts()
    with pytest.raises(Conflict, match="another LoRA"):
        await transfer(pair.options(model="refused"), counts)
    assert counts.events == ["model"]


def test_a_file_that_is_no_lora_is_refused_and_leaves_nothing(pair: Pair) -> None:
    broken = pair.outputs / "broken" / "broken.safetensors"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"<!DOCTYPE html>" + bytes(600_000))
    ended = pair.run("--model", "broken")
    assert ended.returncode == 5
    assert "no usable safetensors file" in ended.stderr
    assert pair.leftovers() == []
    assert not any("broken" in path.name for path in pair.loras.rglob("*"))


def test_tokens_come_by_flag_and_by_environment(pair: Pair, serve: Callable[[ASGIApp], str]) -> None:
    guarded = serve(create_server_app(SERVER, DoorPolicy(token=SecretStr("secret"))))
    assert pair.run(AITK_MCP_URL=guarded).returncode == 7
    assert pair.run("--token", "wrong", AITK_MCP_URL=guarded).returncode == 7
    for let_in in (
        pair.run("--token", "secret", AITK_MCP_URL=guarded),
        pair.run("--aitk-token", "secret", AITK_MCP_URL=guarded),
        pair.run(AITK_MCP_URL=guarded, AITK_MCP_TOKEN="secret"),
    ):
        assert let_in.returncode == 1
        assert "There is no tool `list-exported-models` here." in let_in.stderr


async def test_the_download_goes_on_where_it_broke_off(pair: Pair, tmp_path: Path) -> None:
    data = pair.trained("ranged", rank=12)
    async with ToolClient(pair.aitk_url) as client:
        told = await client.call("download-model", {"model_path": "ranged", "format": "url"})
        part = tmp_path / "part"
        whole = await client.fetch(told["url"], part)
        assert (whole.received_bytes, whole.sha256) == (len(data), told["sha256"])
        part.write_bytes(data[:1000])
        rest = await client.fetch(told["url"], part)
        assert (rest.received_bytes, rest.size_bytes) == (len(data) - 1000, len(data))
        assert part.read_bytes() == data
        assert (await client.fetch(told["url"], part)).received_bytes == 0
        changed = pair.trained("ranged", rank=6)
        fresh = await client.fetch(told["url"], part)
        assert fresh.received_bytes == len(changed)
        assert part.read_bytes() == changed
