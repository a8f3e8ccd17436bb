"""Every way that a transfer can take: what arrives, what is said of it, and what happens where it leads nowhere."""

import json
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from tests.conftest import server_process
from tests.e2e.transferring import NOWHERE, SERVED, Heard, Pair, running_pair
from tests.fakes.comfyui_elsewhere import Elsewhere
from tests.fakes.relay import relay_before
from tests.unit.lora_files.files import FLUX_AI_TOOLKIT, pairs, write
from transfers.options import NoWay
from transfers.transfer import transfer

CONFIG = "job: extension\nconfig:\n  name: told\n  process:\n  - type: diffusion_trainer\n    trigger_word: tok\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Generator[Pair]:
    """Run both servers."""
    with running_pair(tmp_path_factory.mktemp("pair")) as running:
        yield running


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """Make the folder of a ComfyUI that does not run."""
    (tmp_path / "comfyui" / "models" / "loras").mkdir(parents=True)
    return tmp_path / "comfyui"


@pytest.mark.parametrize("method", SERVED)
async def test_a_lora_arrives_with_what_is_known_of_it(pair: Pair, method: str) -> None:
    data = pair.trained("told", rank=8)
    (pair.outputs / "told" / "config.yaml").write_text(CONFIG)
    name = f"{method}/told.safetensors"
    report = await transfer(pair.options(model="told", name=name, method=method))
    assert (report.method, report.name, report.checksum_verified, report.listed) == (method, name, True, True)
    assert report.how in {"link": ("reflink", "link"), "pull": ("pull",)}.get(method, (None,))
    assert (report.mb_per_s is None) == (method == "link")
    assert pair.arrived(name) == data
    beside = json.loads(pair.arrived(f"{name}.metadata.json"))
    assert beside["source"] == {"server": pair.aitk_url, "model_path": "told/told.safetensors"}
    assert beside["training_config"]["config"]["process"][0]["trigger_word"] == "tok"
    assert pair.leftovers() == []


async def test_the_fastest_way_is_found_and_named(pair: Pair) -> None:
    pair.trained("fastest")
    heard = Heard()
    report = await transfer(pair.options(model="fastest"), heard)
    assert report.method == "link"
    assert heard.events == ["model", "moved", "verified"]


async def test_a_server_that_does_not_know_the_trainer_is_sent_the_bytes(pair: Pair, tmp_path: Path) -> None:
    data = pair.trained("unknown")
    arguments = ("--backend", "embedded", "--data-dir", str(tmp_path), "--aitk-url", NOWHERE)
    with server_process("comfy_mcp", *arguments) as (_, url):
        alone = pair.options(model="unknown", comfy_url=url)
        heard = Heard()
        report = await transfer(alone, heard)
        assert report.method == "tus"
        assert heard.events == ["model", "skipped", "moved", "verified"]
        assert NOWHERE in str(heard.values[1]["error"])
        for method in ("link", "pull"):
            ended = pair.run("--model", "unknown", "--as", "b.safetensors", "--method", method, "--comfy-url", url)
            assert ended.returncode == 8
            assert f"`{method}` cannot be used here." in ended.stderr
    assert (tmp_path / "comfyui" / "models" / "loras" / "unknown.safetensors").read_bytes() == data


async def test_the_model_of_another_trainer_is_not_taken_for_this_one(pair: Pair, tmp_path: Path) -> None:
    data = pair.trained("namesake", rank=8)
    with running_pair(tmp_path) as other:
        other.trained("namesake", rank=4)
        for method in ("link", "pull"):
            with pytest.raises(NoWay, match="and not"):
                await transfer(other.options(model="namesake", aitk_url=pair.aitk_url, method=method))
        assert not (other.loras / "namesake.safetensors").exists()
        report = await transfer(other.options(model="namesake", aitk_url=pair.aitk_url))
        assert report.method == "tus"
        assert other.arrived("namesake.safetensors") == data


async def test_where_tus_does_not_pass_chunks_do(pair: Pair, tmp_path: Path) -> None:
    data = pair.trained("walled")
    arguments = ("--backend", "embedded", "--data-dir", str(tmp_path), "--aitk-url", NOWHERE)
    with server_process("comfy_mcp", *arguments) as (_, url):
        async with relay_before(url) as relay:
            relay.not_found = "HEAD /uploads"
            walled = pair.options(model="walled", comfy_url=relay.url)
            with pytest.raises(NoWay, match="`tus` cannot be used here"):
                await transfer(pair.options(model="walled", comfy_url=relay.url, method="tus"))
            heard = Heard()
            report = await transfer(walled, heard)
    assert report.method == "chunked"
    assert heard.events == ["model", "skipped", "skipped", "moved", "verified"]
    assert (tmp_path / "comfyui" / "models" / "loras" / "walled.safetensors").read_bytes() == data


def test_without_comfy_mcp_it_goes_into_the_folder_itself(pair: Pair, comfyui: Path) -> None:
    data = pair.trained("direct")
    flags = ("--model", "direct", "--method", "direct", "--comfy-url", NOWHERE, "--comfyui-url", NOWHERE)
    planned = pair.run(*flags, "--dry-run", COMFYUI_DIR=str(comfyui))
    assert planned.returncode == 0, planned.stderr
    assert list((comfyui / "models" / "loras").iterdir()) == []
    done = pair.events(*flags, "--comfyui-dir", str(comfyui))[-1]
    assert (done["method"], done["name"], done["checksum_verified"]) == ("direct", "direct.safetensors", True)
    assert (comfyui / "models" / "loras" / "direct.safetensors").read_bytes() == data
    again = pair.run(*flags, "--comfyui-dir", str(comfyui))
    assert "direct.safetensors is in ComfyUI already" in again.stdout
    listed = pair.run("--list", *flags[2:], "--comfyui-dir", str(comfyui))
    lines = [line.strip() for line in listed.stdout.splitlines()]
    assert lines[[line.endswith("direct/direct.safetensors") for line in lines].index(True) + 1] == "in ComfyUI"
    # It may be a further name of the trainer's file.
    (comfyui / "models" / "loras" / "direct.safetensors").unlink()
    write(comfyui / "models" / "loras" / "direct.safetensors", pairs(FLUX_AI_TOOLKIT, rank=2))
    refused = pair.run(*flags, "--comfyui-dir", str(comfyui))
    assert refused.returncode == 5
    assert pair.run(*flags, "--comfyui-dir", str(comfyui), "--overwrite").returncode == 0
    assert (comfyui / "models" / "loras" / "direct.safetensors").read_bytes() == data
    for ended in (planned, again, listed, refused):
        assert "Traceback" not in ended.stderr


def test_a_folder_that_is_no_comfyui_is_not_filled(pair: Pair, tmp_path: Path) -> None:
    pair.trained("nowhere")
    flags = ("--model", "nowhere", "--method", "direct", "--comfyui-url", NOWHERE)
    ended = pair.run(*flags, "--comfyui-dir", str(tmp_path / "none"))
    assert ended.returncode == 7
    assert str(tmp_path / "none" / "models" / "loras") in ended.stderr
    assert not (tmp_path / "none").exists()
    misspelled = pair.run("--model", "nowhere", "--method", "direct", "--comfyui-url", "ftp://here")
    assert misspelled.returncode == 2
    assert "--comfyui-url" in misspelled.stderr


@pytest.mark.parametrize("assets", [True, False])
async def test_a_comfyui_elsewhere_takes_it_by_its_own_routes(
    pair: Pair, tmp_path: Path, serve: Callable[[ASGIApp], str], assets: bool
) -> None:
    data = pair.trained("elsewhere")
    elsewhere = Elsewhere(tmp_path / "there", assets=assets)
    options = pair.options(model="elsewhere", method="direct", comfyui_url=serve(elsewhere.app()))
    report = await transfer(options)
    assert (report.method, report.checksum_verified) == ("direct", True)
    [stored] = (tmp_path / "there").rglob(Path(report.name).name)
    assert stored.read_bytes() == data
