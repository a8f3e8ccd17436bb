"""The transfer script where its surroundings are unkind: wrong addresses and tokens, other encodings, closed streams,
and state that cannot be kept."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp

from mcp_toolserver.app import create_server_app
from mcp_toolserver.auth import DoorPolicy
from tests.conftest import ROOT
from tests.e2e.transferring import NOWHERE, SCRIPT, Pair, running_pair
from tests.fakes.toy_server import SERVER


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Generator[Pair]:
    """Run both servers."""
    with running_pair(tmp_path_factory.mktemp("pair")) as running:
        yield running


@pytest.mark.parametrize("flag", ["--aitk-url", "--comfy-url", "--comfyui-url"])
def test_a_wrong_address_is_wrong_usage(pair: Pair, flag: str) -> None:
    ended = pair.run(flag, "http://127.0.0.1:99999", AITK_MCP_URL=NOWHERE)
    assert ended.returncode == 2
    assert flag in ended.stderr
    assert "`http://127.0.0.1:8189`" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("flags", "environment", "named"),
    [
        (["--token", "tökén"], {}, "--token"),
        (["--comfy-token", "two words"], {}, "--comfy-token"),
        ([], {"AITK_MCP_TOKEN": "broken\nline"}, "AITK_MCP_TOKEN"),
    ],
)
def test_a_token_that_none_can_be_is_said_before_anything_is_asked(
    pair: Pair, flags: list[str], environment: dict[str, Any], named: str
) -> None:
    ended = pair.run(*flags, AITK_MCP_URL=NOWHERE, **environment)
    assert ended.returncode == 7
    assert f"The token of {named} holds" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("flags", [[], ["--model", "swapped"]])
def test_swapped_addresses_are_said(pair: Pair, flags: list[str]) -> None:
    ended = pair.run(*flags, AITK_MCP_URL=pair.comfy_url, COMFY_MCP_URL=pair.aitk_url)
    assert ended.returncode == 2
    assert f"What answers at {pair.comfy_url} is comfy_mcp, and no aitk_mcp." in ended.stderr
    assert "swapped" in ended.stderr


@pytest.mark.parametrize(("server", "flag"), [("AITK_MCP_URL", "--aitk-token"), ("COMFY_MCP_URL", "--comfy-token")])
def test_a_refused_token_says_whose_it_is(pair: Pair, serve: Callable[[ASGIApp], str], server: str, flag: str) -> None:
    pair.trained("guarded")
    guarded = serve(create_server_app(SERVER, DoorPolicy(token=SecretStr("secret"))))
    environment: dict[str, Any] = {server: guarded}
    ended = pair.run("--model", "guarded", "--token", "wrong", **environment)
    assert ended.returncode == 7
    assert guarded in ended.stderr
    assert flag in ended.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_an_output_of_another_encoding_replaces_letters(pair: Pair, encoding: str) -> None:
    data = pair.trained("job ü")
    name = f"{encoding}.safetensors"
    ended = pair.run("--model", "job ü", "--as", name, "--method", "tus", PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert pair.arrived(name) == data
    assert pair.run("--list", PYTHONIOENCODING=encoding).returncode == 0


def test_a_name_is_understood_without_a_locale(pair: Pair) -> None:
    data = pair.trained("job ö")
    plain: dict[str, Any] = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = pair.run("--model", "job ö", "--as", "plain.safetensors", **plain)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert pair.arrived("plain.safetensors") == data


@pytest.mark.parametrize("method", ["link", "tus"])
def test_a_state_folder_that_cannot_be_hinders_no_transfer(pair: Pair, tmp_path: Path, method: str) -> None:
    data = pair.trained("stateless")
    (tmp_path / "file").touch()
    name = f"stateless_{method}.safetensors"
    flags = ("--model", "stateless", "--as", name, "--method", method)
    ended = pair.run(*flags, XDG_STATE_HOME=str(tmp_path / "file"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert pair.arrived(name) == data
    warned = f"Note: {tmp_path}/file/loraloop/transfers cannot be written" in ended.stdout
    assert warned == (method == "tus")
    assert ("XDG_STATE_HOME" in ended.stdout) == warned


@pytest.mark.parametrize("name", ["q.ckpt", "../q.safetensors", "q.gguf"])
def test_a_dry_run_promises_no_name_that_would_be_refused(pair: Pair, name: str) -> None:
    pair.trained("promised")
    ended = pair.run("--model", "promised", "--as", name, "--dry-run")
    assert ended.returncode == 5
    assert "would be sent" not in ended.stdout
    assert repr(name) in ended.stderr


def test_the_address_for_mcp_does_as_well(pair: Pair) -> None:
    data = pair.trained("by_mcp")
    ended = pair.run("--model", "by_mcp", AITK_MCP_URL=f"{pair.aitk_url}/mcp", COMFY_MCP_URL=f"{pair.comfy_url}/mcp/")
    assert ended.returncode == 0, ended.stderr
    assert pair.arrived("by_mcp.safetensors") == data


def test_an_address_below_the_servers_own_is_not_taken_for_an_empty_comfyui(pair: Pair) -> None:
    pair.trained("below")
    ended = pair.run("--model", "below", "--dry-run", COMFY_MCP_URL=f"{pair.comfy_url}/health")
    assert ended.returncode != 0
    assert "would be sent" not in ended.stdout


def script(pair: Pair) -> tuple[str, dict[str, str]]:
    """Return how a shell calls the script, and with which environment."""
    servers = {"AITK_MCP_URL": pair.aitk_url, "COMFY_MCP_URL": pair.comfy_url, "XDG_STATE_HOME": str(pair.home)}
    return f"{sys.executable} {SCRIPT}", os.environ | servers


@pytest.mark.parametrize("flags", ["--json", ""])
def test_a_transfer_that_nobody_listens_to_goes_on(pair: Pair, flags: str) -> None:
    name = f"unheard{flags}"
    data = pair.trained(name)
    command, environment = script(pair)
    flags += f" --model {name} --method chunked --chunk-size 10000"
    heard, deaf = os.pipe()
    os.close(heard)
    with subprocess.Popen(
        [*command.split(), *flags.split()], stdout=deaf, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        os.close(deaf)
        assert running.communicate(timeout=60)[1] == ""
    assert running.returncode == 0
    assert pair.arrived(f"{name}.safetensors") == data


@pytest.mark.parametrize("redirect", ["| true", ">&-", "2>&- | true", ">&- 2>&-"])
def test_a_list_into_a_closed_pipe_ends_quietly(pair: Pair, redirect: str) -> None:
    pair.trained("listed")
    command, environment = script(pair)
    shell = ["bash", "-c", f"set -o pipefail; {command} --list {redirect}"]
    ended = subprocess.run(shell, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("script_name", "loaded"), [("transfer_lora_between_services.py", "orjson"), ("loraloop.py", "httpx")]
)
def test_an_interrupt_during_the_start_is_quiet(tmp_path: Path, script_name: str, loaded: str) -> None:
    (tmp_path / f"{loaded}.py").write_text("import signal\n\nsignal.default_int_handler(2, None)\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])}
    command = [sys.executable, str(ROOT / "scripts" / script_name)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + signal.SIGINT, "", "")


def test_a_comfyui_that_nobody_named_is_asked_for_by_the_flags(pair: Pair) -> None:
    pair.trained("nameless")
    flags = ("--model", "nameless", "--method", "direct", "--retries", "0", "--json")
    ended = pair.run(*flags, COMFYUI_DIR="", COMFYUI_API_URL="")
    assert ended.returncode == 4, ended.stdout
    hint = json.loads(ended.stdout.splitlines()[-1])["error"]["hint"]
    assert "--comfyui-dir" in hint
    assert "--comfyui-url" in hint
