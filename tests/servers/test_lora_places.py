"""Where LoRAs go: a folder here, the routes of a ComfyUI elsewhere, or a folder that ComfyUI does not read."""

import base64
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.types import ASGIApp

from comfy_mcp.app import build, create_app
from comfy_mcp.settings import ComfySettings
from mcp_toolserver.errors import Conflict, Forbidden, InvalidArguments, NotFound, TooLarge
from tests.contract.comfyui.conftest import strong_lora, write_lora
from tests.fakes.comfyui_elsewhere import Elsewhere
from tests.servers.comfy_tools import Tools, comfy_tools, engine_process

Serve = Callable[[ASGIApp], str]
NAME = "people/anna ü.safetensors"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    """Return a ComfyUI on another machine, with one LoRA."""
    machine = Elsewhere(tmp_path / "elsewhere")
    old = machine.folder / "models" / "loras" / "old.safetensors"
    old.parent.mkdir(parents=True)
    old.write_bytes(strong_lora(7, {"ss_base_model_version": "flux1", "trigger_word": "zwx"}))
    (old.parent / ".hidden.safetensors").write_bytes(b"")
    (old.parent / "bad.ckpt").write_bytes(b"\x80\x02")
    return machine


def settings(url: str, data_dir: Path, comfyui_dir: Path | None = None) -> ComfySettings:
    """Return settings for a server in front of the ComfyUI at `url`."""
    return ComfySettings.model_validate(
        {"port": 0, "data_dir": data_dir, "comfyui_api_url": url, "comfyui_dir": comfyui_dir}
    )


@asynccontextmanager
async def in_front_of(machine: Elsewhere, serve: Serve, tmp_path: Path) -> AsyncGenerator[Tools]:
    """Give the tools of a server without COMFYUI_DIR."""
    async with comfy_tools(settings(serve(machine.app()), tmp_path / "data")) as tools:
        yield tools


def pixels(path: Path) -> bytes:
    """Return the pixels of a picture, without what is written beside them."""
    with Image.open(path) as image:
        return image.tobytes()


async def send(tools: Tools, name: str, content: bytes, **more: Any) -> dict[str, Any]:
    """Upload a LoRA in one call."""
    return await tools("upload-lora", filename=name, content=base64.b64encode(content).decode(), **more)


async def test_a_lora_goes_to_another_machine_by_the_upload_route(
    elsewhere: Elsewhere, serve: Serve, tmp_path: Path
) -> None:
    content = strong_lora(1)
    digest = hashlib.sha256(content).hexdigest()
    async with in_front_of(elsewhere, serve, tmp_path) as tools:
        sent = await send(tools, NAME, content, metadata={"note": "mine"})
        info = await tools("get-lora-info", lora_name=NAME)
    assert (elsewhere.folder / "output" / "loras" / NAME).read_bytes() == content
    assert elsewhere.forms == [
        ("/upload/image", {"type": ["output"], "subfolder": ["loras/people"], "overwrite": ["false"]})
    ]
    assert (sent["listed"], sent["warnings"], sent["sha256"]) == (True, [], digest)
    # What went through this server is known as well as on its own disk.
    assert (info["name"], info["sha256"], info["network"]["rank"]) == (NAME, digest, 4)
    assert info["supplied_metadata"] == {"note": "mine"}
    assert info["warnings"] == sent["lora"]["warnings"]
    assert not list((tmp_path / "data").rglob("*.part"))


async def test_of_other_loras_elsewhere_only_the_metadata_is_known_and_that_is_said(
    elsewhere: Elsewhere, serve: Serve, tmp_path: Path
) -> None:
    async with in_front_of(elsewhere, serve, tmp_path) as tools:
        everything = await tools("list-loras")
        flux = await tools("list-loras", architecture="flux", query="ZWX")
        info = await tools("get-lora-info", lora_name="old.safetensors")
        with pytest.raises(NotFound) as absent:
            await tools("get-lora-info", lora_name="odl.safetensors")
    names = [lora["name"] for lora in everything["loras"]]
    assert names == ["bad.ckpt", "old.safetensors"]
    assert "run code" in everything["loras"][0]["problem"]
    assert (everything["loras"][1]["rank"], everything["loras"][1]["trigger_words"]) == (None, ["zwx"])
    assert "COMFYUI_DIR" in everything["warnings"][0]
    assert [lora["name"] for lora in flux["loras"]] == ["old.safetensors"]
    assert (info["architecture"], info["network"], info["sha256"], info["loader"]) == ("flux", None, None, None)
    assert "sha256 are not known" in info["warnings"][0]
    assert info["size_bytes"] == (elsewhere.folder / "models" / "loras" / "old.safetensors").stat().st_size
    assert absent.value.details["closest_matches"] == ["old.safetensors"]


async def test_what_comfyui_has_no_route_for_is_refused_with_what_to_do(
    elsewhere: Elsewhere, serve: Serve, tmp_path: Path
) -> None:
    async with in_front_of(elsewhere, serve, tmp_path) as tools:
        for tool, arguments in (
            ("delete-lora", {}),
            ("download-lora", {}),
            ("check-lora", {"checkpoint": "any.safetensors"}),
        ):
            with pytest.raises(Forbidden) as refused:
                await tools(tool, lora_name="old.safetensors", **arguments)
            assert "COMFYUI_DIR" in (refused.value.hint or "")
    assert (elsewhere.folder / "models" / "loras" / "old.safetensors").exists()
    server = serve(create_app(settings(serve(elsewhere.app()), tmp_path / "other")))
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{server}/loras/old.safetensors")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_an_older_comfyui_without_sizes_lists_names(elsewhere: Elsewhere, serve: Serve, tmp_path: Path) -> None:
    elsewhere.detailed = False
    async with in_front_of(elsewhere, serve, tmp_path) as tools:
        sent = await send(tools, "new.safetensors", strong_lora(2))
        loras = (await tools("list-loras", sort="modified"))["loras"]
    assert sent["listed"]
    assert {(lora["name"], lora["size_bytes"], lora["modified"]) for lora in loras} == {
        ("bad.ckpt", None, None),
        ("new.safetensors", None, None),
        ("old.safetensors", None, None),
    }


async def test_a_taken_name_is_refused_and_an_overwrite_frees_the_old_weights(
    elsewhere: Elsewhere, serve: Serve, tmp_path: Path
) -> None:
    async with in_front_of(elsewhere, serve, tmp_path) as tools:
        await send(tools, "new.safetensors", strong_lora(1))
        with pytest.raises(Conflict, match="exists already"):
            await send(tools, "new.safetensors", strong_lora(2))
        assert (len(elsewhere.forms), elsewhere.freed) == (1, 0)
        again = await send(tools, "new.safetensors", strong_lora(2), overwrite=True)
    assert (elsewhere.folder / "output" / "loras" / "new.safetensors").read_bytes() == strong_lora(2)
    assert (again["lora"]["sha256"], elsewhere.freed) == (hashlib.sha256(strong_lora(2)).hexdigest(), 1)
    assert elsewhere.forms[-1][1]["overwrite"] == ["true"]


async def test_an_overwrite_that_loaders_would_not_see_is_no_success(
    elsewhere: Elsewhere, serve: Serve, tmp_path: Path
) -> None:
    async with in_front_of(elsewhere, serve, tmp_path) as tools:
        with pytest.raises(Conflict, match="goes on loading the older file") as refused:
            await send(tools, "old.safetensors", strong_lora(1), overwrite=True)
    assert "another `filename`" in (refused.value.hint or "")


async def test_a_file_over_the_limit_is_refused_before_it_is_sent(
    elsewhere: Elsewhere, serve: Serve, tmp_path: Path
) -> None:
    content = strong_lora(1)
    elsewhere.limit_bytes = len(content)
    async with in_front_of(elsewhere, serve, tmp_path) as tools:
        for tool, arguments in (
            ("upload-lora", {"content": base64.b64encode(content).decode()}),
            ("upload-lora-chunked-start", {"total_size": len(content)}),
        ):
            with pytest.raises(TooLarge) as refused:
                await tools(tool, filename="new.safetensors", **arguments)
            assert refused.value.details["limit_bytes"] == len(content)
            assert "--max-upload-size" in (refused.value.hint or "")
    assert elsewhere.forms == []


async def test_assets_take_any_size_and_choose_the_name(elsewhere: Elsewhere, serve: Serve, tmp_path: Path) -> None:
    content = strong_lora(1)
    digest = hashlib.sha256(content).hexdigest()
    elsewhere.assets, elsewhere.limit_bytes = True, 10
    async with in_front_of(elsewhere, serve, tmp_path) as tools:
        started = await tools("upload-lora-chunked-start", filename="new.safetensors", total_size=len(content))
        upload_id, size = started["upload_id"], started["chunk_size"]
        for index in range(started["total_chunks"]):
            chunk = base64.b64encode(content[index * size : (index + 1) * size]).decode()
            await tools("upload-lora-chunked-append", upload_id=upload_id, chunk=chunk, chunk_index=index)
        finished = await tools("upload-lora-chunked-finish", upload_id=upload_id, sha256=digest)
        again = await tools("upload-lora-chunked-finish", upload_id=upload_id)
    stored = f"{digest}.safetensors"
    assert elsewhere.forms == [("/api/assets", {"tags": ["models", "model_type:loras"]})]
    assert (finished["lora"]["name"], finished["listed"], finished["checksum_verified"]) == (stored, True, True)
    assert stored in finished["warnings"][0]
    assert (again["lora"]["name"], again["listed"], again["sha256"]) == (stored, True, digest)


async def test_what_is_no_lora_is_not_sent(elsewhere: Elsewhere, serve: Serve, tmp_path: Path) -> None:
    async with in_front_of(elsewhere, serve, tmp_path) as tools:
        for content in (b"<html>Sign in</html>", strong_lora(1)[:-1]):
            with pytest.raises(InvalidArguments):
                await send(tools, "new.safetensors", content)
    assert elsewhere.forms == []


async def test_the_embedded_server_takes_a_lora_by_its_routes_and_renders_with_it(tmp_path: Path) -> None:
    with engine_process(tmp_path / "comfyui") as running:
        # A link that leads nowhere is listed and not here, as in a container's folder.
        (running.folder / "models" / "loras" / "gone.safetensors").symlink_to(tmp_path / "nowhere.safetensors")
        async with comfy_tools(settings(running.url, tmp_path / "data")) as tools:
            sent = await send(tools, NAME, strong_lora(3))
            picture = await tools(
                "generate-image", prompt="a cat", loras=[{"name": NAME}], width=64, height=64, steps=2, wait_s=60
            )
        async with httpx.AsyncClient(base_url=running.url, trust_env=False) as http:
            loader = (await http.get("/object_info/LoraLoader")).json()["LoraLoader"]
            assert (await http.post("/api/assets")).status_code == 503
    assert (sent["listed"], picture["status"]) == (True, "completed")
    assert NAME in loader["input"]["required"]["lora_name"][0]


async def test_a_folder_that_comfyui_does_not_read_is_told_everywhere(tmp_path: Path) -> None:
    mistaken = tmp_path / "mistaken"
    (mistaken / "models" / "loras").mkdir(parents=True)
    with engine_process(tmp_path / "comfyui") as running:
        write_lora(running.folder / "models" / "loras" / "its_own.safetensors")
        wanted = settings(running.url, tmp_path / "data", mistaken)
        async with comfy_tools(wanted) as tools:
            sent = await send(tools, "new.safetensors", strong_lora(1))
            listed = await tools("list-loras")
            system = await tools("get-system-info")
        server = build(wanted)
        async with server.lifespan():
            health = await server.backend()
    assert sent["listed"] is False
    for said in (sent["warnings"], listed["warnings"], system["warnings"], [health.detail or ""]):
        assert f"does not read COMFYUI_DIR ({mistaken})" in said[0]
        assert "its_own.safetensors" in said[0]
    assert "no workflow can use it" in sent["warnings"][-1]


async def test_a_folder_that_comfyui_reads_is_no_cause_for_warnings(tmp_path: Path) -> None:
    with engine_process(tmp_path / "comfyui") as running:
        async with comfy_tools(running.settings(tmp_path / "data")) as tools:
            sent = await send(tools, "new.safetensors", strong_lora(1))
            assert (sent["listed"], sent["warnings"]) == (True, [])
            assert (await tools("list-loras"))["warnings"] == []
    assert (running.folder / "models" / "loras" / "new.safetensors").exists()


async def test_an_overwritten_lora_renders_with_its_new_weights(tmp_path: Path) -> None:
    request = {"prompt": "a cat", "loras": [{"name": "cat"}], "width": 64, "height": 64, "steps": 2, "seed": 9}
    pictures: list[bytes] = []
    with engine_process(tmp_path / "comfyui") as running:
        async with comfy_tools(running.settings(tmp_path / "data")) as tools:
            for seed in (1, 2):
                await send(tools, "cat.safetensors", strong_lora(seed), overwrite=True)
                made = await tools("generate-image", **request, wait_s=60)
                assert not made["cached"]
                files = sorted((running.folder / "output").glob("*.png"), key=lambda path: path.stat().st_mtime_ns)
                pictures.append(pixels(files[-1]))
    assert pictures[0] != pictures[1]


async def test_without_a_running_comfyui_a_lora_is_installed_and_its_listing_unknown(tmp_path: Path) -> None:
    (tmp_path / "models" / "loras").mkdir(parents=True)
    async with comfy_tools(settings("http://127.0.0.1:9", tmp_path / "data", tmp_path)) as tools:
        sent = await send(tools, "new.safetensors", strong_lora(1))
    assert sent["listed"] is None
    assert "did not answer" in sent["warnings"][0]
    assert (tmp_path / "models" / "loras" / "new.safetensors").exists()
