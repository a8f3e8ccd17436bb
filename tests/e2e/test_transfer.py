"""The transfer script between two live servers: what it chooses, what it says, and what is refused."""

import hashlib
import json
import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp

from mcp_toolserver.app import create_server_app
from mcp_toolserver.auth import DoorPolicy
from mcp_toolserver.errors import BackendUnavailable, Conflict
from tests.e2e.transferring import NOWHERE, Heard, Pair, running_pair
from tests.fakes.toy_server import SERVER
from tests.unit.lora_files.files import FLUX_AI_TOOLKIT, pairs, write
from transfers.transfer import transfer


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Generator[Pair]:
    """Run both servers."""
    with running_pair(tmp_path_factory.mktemp("pair")) as running:
        yield running


def test_without_flags_the_newest_finished_model_arrives_verified(tmp_path: Path) -> None:
    with running_pair(tmp_path) as pair:
        nothing = pair.run(cwd=tmp_path)
        assert nothing.returncode == 3
        assert "no finished model" in nothing.stderr
        older, newest = pair.trained("older"), pair.trained("newest", rank=8)
        os.utime(pair.outputs / "older" / "older.safetensors", (1, 1))
        checkpoint = pair.outputs / "newest" / "newest_000000250.safetensors"
        checkpoint.write_bytes(older)
        ended = pair.run(cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert pair.arrived("newest.safetensors") == newest
        digest = hashlib.sha256(newest).hexdigest()
        assert f"newest.safetensors, sha256 {digest} (verified)." in ended.stdout
        assert "ComfyUI has it: flux" in ended.stdout
        assert pair.leftovers() == []
        # The next run takes what ComfyUI still lacks, and one more finds nothing to do.
        assert pair.run(cwd=tmp_path).returncode == 0
        assert pair.arrived("older.safetensors") == older
        again = pair.run(cwd=tmp_path)
        assert again.returncode == 0
        assert "newest.safetensors is in ComfyUI already, with the same sha256." in again.stdout
        # What bears another name there is there; the name of an older file says nothing of a newer one.
        assert pair.run("--model", "newest", "--as", "people/anna.safetensors").returncode == 0
        (pair.loras / "newest.safetensors").unlink()
        assert "people/anna.safetensors is in ComfyUI already" in pair.run().stdout
        listed = pair.run("--list")
        assert listed.stdout.splitlines()[1].strip() == "in ComfyUI as people/anna.safetensors"
        assert listed.stdout.splitlines()[3].strip() == "in ComfyUI"


def test_a_retrained_model_is_newer_than_its_namesake(pair: Pair) -> None:
    pair.trained("neglected")
    os.utime(pair.outputs / "neglected" / "neglected.safetensors", (1, 1))
    pair.trained("retrained")
    assert pair.run("--model", "retrained").returncode == 0
    pair.trained("retrained", rank=8)
    listed = {model["model_path"]: model for model in json.loads(pair.run("--list", "--json").stdout)["models"]}
    retrained = listed["retrained/retrained.safetensors"]
    assert (retrained["in_comfyui"], retrained["comfyui_name"], retrained["name_taken"]) == (False, None, True)
    assert "not in ComfyUI, which has another LoRA of this name" in pair.run("--list").stdout
    ended = pair.run()
    assert ended.returncode == 5
    assert "--overwrite" in ended.stderr
    assert not (pair.loras / "neglected.safetensors").exists()
    assert pair.run("--overwrite").returncode == 0


def test_programs_follow_it_by_events(pair: Pair) -> None:
    data = pair.trained("followed")
    planned = pair.events("--model", "followed", "--dry-run")
    assert (planned[-1]["method"], planned[-1]["dry_run"]) == ("none", True)
    assert not (pair.loras / "followed.safetensors").exists()
    flags = ("--model", "followed", "--as", "people/anna.safetensors")
    events = pair.events(*flags, "--method", "chunked", "--chunk-size", "40000")
    assert [each["event"] for each in events if each["event"] != "progress"] == ["model", "moved", "verified", "done"]
    assert {event["phase"] for event in events if event["event"] == "progress"} == {"chunked"}
    done = events[-1]
    assert (done["method"], done["name"], done["size_bytes"]) == ("chunked", "people/anna.safetensors", len(data))
    assert (done["checksum_verified"], done["listed"], done["sha256"]) == (True, True, hashlib.sha256(data).hexdigest())
    assert done["mb_per_s"] > 0
    assert done["seconds"] > 0
    assert pair.arrived("people/anna.safetensors") == data
    same = pair.events(*flags)
    assert (same[-1]["method"], same[-1]["already_there"], same[-1]["mb_per_s"]) == ("none", True, None)


def test_a_name_that_is_taken_is_kept_unless_told_otherwise(pair: Pair) -> None:
    data = pair.trained("taken")
    other = write(pair.loras / "taken.safetensors", pairs(FLUX_AI_TOOLKIT, rank=2)).read_bytes()
    for method in ("auto", "link", "pull", "tus", "chunked"):
        refused = pair.run("--model", "taken", "--method", method)
        assert refused.returncode == 5
        assert "--overwrite" in refused.stderr
        assert pair.arrived("taken.safetensors") == other
    assert pair.run("--model", "taken", "--overwrite", "--quiet").stdout == ""
    assert pair.arrived("taken.safetensors") == data


def test_a_failure_says_what_it_is_by_text_and_exit_code(pair: Pair) -> None:
    pair.trained("present")
    unknown = pair.run("--model", "present/presemt.safetensors")
    assert unknown.returncode == 3
    assert "Did you mean `present/present.safetensors`?" in unknown.stderr
    silent = pair.run("--model", "present", "--retries", "0", COMFY_MCP_URL=NOWHERE)
    assert silent.returncode == 4
    assert f"{NOWHERE} does not answer" in silent.stderr
    for ended in (unknown, silent):
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("method", ["auto", "link", "pull", "tus", "chunked"])
def test_a_name_that_cannot_be_is_refused_with_a_better_one(pair: Pair, method: str) -> None:
    pair.trained("misnamed")
    ended = pair.run("--model", "misnamed", "--as", "misnamed.gguf", "--json", "--method", method)
    assert ended.returncode == 5
    assert json.loads(ended.stdout.splitlines()[-1])["error"]["code"] == "invalid_arguments"
    assert "misnamed.gguf.safetensors" in ended.stderr
    assert pair.leftovers() == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--colour"], "--colour"),
        (["--chunk-size", "0"], "'0' is no whole number from 1 to 4194304"),
        (["--chunk-size", "4194305"], "'4194305' is no whole number from 1 to 4194304"),
        (["--retries", "-1"], "'-1' is no whole number from 0 to 1000"),
        (["--method", "copy"], "invalid choice: 'copy'"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_asked(pair: Pair, flags: list[str], said: str) -> None:
    ended = pair.run(*flags, AITK_MCP_URL=NOWHERE)
    assert ended.returncode == 2
    assert said in ended.stderr


async def test_only_what_may_succeed_is_tried_again(pair: Pair) -> None:
    heard = Heard()
    with pytest.raises(BackendUnavailable, match="does not answer"):
        await transfer(pair.options(aitk_url=NOWHERE, retries=3), heard)
    assert heard.events == ["retry"] * 3
    pair.trained("refused")
    write(pair.loras / "refused.safetensors", pairs(FLUX_AI_TOOLKIT, rank=2))
    heard = Heard()
    with pytest.raises(Conflict, match="another LoRA"):
        await transfer(pair.options(model="refused"), heard)
    assert heard.events == []


@pytest.mark.parametrize("method", ["auto", "pull", "tus", "chunked"])
def test_a_file_that_is_no_lora_is_refused_and_leaves_nothing(pair: Pair, method: str) -> None:
    broken = pair.outputs / "broken" / "broken.safetensors"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"<!DOCTYPE html>" + bytes(600_000))
    ended = pair.run("--model", "broken", "--method", method)
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
        assert let_in.returncode == 2
        assert f"What answers at {guarded} is toy, and no aitk_mcp." in let_in.stderr
