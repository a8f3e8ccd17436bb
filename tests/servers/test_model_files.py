"""download-model, delete-model and get-model-tips, over the embedded engine and a site of files on this machine."""

import hashlib
import shutil
import struct
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_http import fixed
from comfy_mcp.engines.selection import Selected
from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.model_tips import TipBook
from comfy_mcp.models.downloads import Downloads
from comfy_mcp.models.folders import ModelFolders
from comfy_mcp.models.models import LORAS, Models
from comfy_mcp.models.shelf import ModelShelf
from comfy_mcp.tools.model_files import model_file_tools
from mcp_toolserver.errors import (
    Conflict,
    Forbidden,
    InsufficientStorage,
    InvalidArguments,
    NotFound,
    TooLarge,
    ToolError,
)
from mcp_toolserver.files import ranged_file_response
from mcp_toolserver.outbound import Outbound, OutboundPolicy
from mcp_toolserver.tools import Call, Toolbox
from tests.contract.comfyui.conftest import strong_lora
from tests.servers.comfy_tools import EngineUnderTest, Tools, comfy_tools, engine_process
from tests.unit.lora_files.files import write, zeros

Serve = Callable[[ASGIApp], str]
LORA = strong_lora(1, {"trigger_word": "zwx"})


@dataclass(slots=True)
class Site:
    """A site of files; `asked` holds the range of each request."""

    folder: Path
    asked: list[str | None] = field(default_factory=list[str | None])

    def app(self) -> Starlette:
        """Return the server."""
        return Starlette(routes=[Route("/huge.safetensors", self._huge), Route("/{name:path}", self._file)])

    async def _file(self, request: Request) -> Response:
        self.asked.append(request.headers.get("range"))
        return await ranged_file_response(self.folder / request.path_params["name"], request)

    def _huge(self, request: Request) -> Response:
        return Response(b"", headers={"content-length": str(2**60)})


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineUnderTest]:
    with engine_process(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a site with a LoRA, a checkpoint and things that are none."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "lora.safetensors").write_bytes(LORA)
    write(folder / "vae.safetensors", {"encoder.conv_in.weight": zeros(8, 3, 3, 3)})
    (folder / "page.safetensors").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    (folder / "pickle.safetensors").write_bytes(b"\x80\x02}q\0X\x05\0\0\0" + bytes(300))
    (folder / "zip.safetensors").write_bytes(b"PK\x03\x04" + bytes(300))
    (folder / "cut.safetensors").write_bytes(LORA[:-1])
    (folder / "long.safetensors").write_bytes(struct.pack("<Q", 200_000_000) + b"{" + bytes(300))
    return Site(folder)


@asynccontextmanager
async def tools_over(engine: EngineUnderTest, *urls: str, max_bytes: int = 2**40) -> AsyncGenerator[Tools]:
    """Give the tools, which may fetch from sites on this machine, as no server's settings allow."""

    async def selected() -> Selected:
        return Selected(engine="comfyui", url=engine.url)

    comfyui = ComfyUI(fixed(engine.url))
    models = Models(comfyui)
    folders = ModelFolders(comfyui, selected, comfyui_dir=engine.folder, embedded_dir=engine.folder)
    library = LoraLibrary(lambda: folders.place(LORAS))

    def shelf_of(kind: str) -> ModelShelf:
        async def listed() -> tuple[str, ...]:
            return await comfyui.models(kind) or ()

        return ModelShelf(kind, lambda: folders.place(kind), listed)

    policy = OutboundPolicy(
        hosts=tuple(urlsplit(url).netloc for url in urls),
        schemes=frozenset({"http"}),
        private_addresses=True,
        max_bytes=max_bytes,
    )
    downloads = Downloads(Outbound(policy), models, lambda kind: library if kind == LORAS else shelf_of(kind))
    tools = model_file_tools(TipBook(models, folders, library), downloads, models, library, shelf_of)
    async with comfyui.running(), downloads.running():
        yield Tools(Toolbox(tools), Call())


async def test_a_lora_is_downloaded_described_and_deleted(engine: EngineUnderTest, site: Site, serve: Serve) -> None:
    url = f"{serve(site.app())}/lora.safetensors?download=true"
    digest = hashlib.sha256(LORA).hexdigest()
    async with tools_over(engine, url) as tools:
        done = await tools("download-model", url=url, type="lora", filename="new/fox.safetensors", sha256=digest)
        again = await tools("download-model", url=url, type="loras", filename="new/fox.safetensors", sha256=digest)
        tips = await tools("get-model-tips", filename="fox")
        gone = await tools("delete-model", type="lora", filename="new/fox.safetensors")
    assert done == {
        "status": "completed",
        "name": "new/fox.safetensors",
        "type": "loras",
        "received_bytes": len(LORA),
        "total_bytes": len(LORA),
        "checksum_verified": True,
        "warnings": [],
    }
    assert again == done
    assert len(site.asked) == 1
    assert (tips["type"], tips["family"], tips["trigger_words"]) == ("loras", "flux", ["zwx"])
    assert (tips["guidance"], tips["cfg_scale"], tips["loader"]) == (3.5, 1.0, "LoraLoaderModelOnly")
    assert "zwx" in tips["example_prompt"]
    assert any("tinyflux" in warning for warning in tips["warnings"])
    assert gone == {"name": "new/fox.safetensors", "type": "loras", "freed_bytes": len(LORA)}
    assert not list((engine.folder / "models" / "loras").rglob("*.part*"))


async def test_a_model_goes_into_the_folder_of_its_kind(engine: EngineUnderTest, site: Site, serve: Serve) -> None:
    url = serve(site.app())
    folder = engine.folder / "models" / "vae"
    async with tools_over(engine, url) as tools:
        done = await tools("download-model", url=f"{url}/vae.safetensors", type="vae")
        with pytest.raises(Conflict, match="already"):
            await tools("download-model", url=f"{url}/vae.safetensors?again", type="vae")
        with pytest.raises(NotFound) as absent:
            await tools("delete-model", type="vae", filename="vea.safetensors")
        for outside in ("../checkpoints/tinyflux-base.safetensors", "/etc/passwd", ".downloads/x.safetensors"):
            with pytest.raises(InvalidArguments):
                await tools("delete-model", type="vae", filename=outside)
        gone = await tools("delete-model", type="vae", filename="vae.safetensors")
    assert (done["name"], done["warnings"]) == ("vae.safetensors", [])
    assert absent.value.details["closest_matches"][0] == "vae.safetensors"
    assert gone["freed_bytes"] == (site.folder / "vae.safetensors").stat().st_size
    assert not (folder / "vae.safetensors").exists()


async def test_no_empty_folder_stays_behind(engine: EngineUnderTest, site: Site) -> None:
    folder = engine.folder / "models" / "vae"
    (folder / "old" / "new").mkdir(parents=True)
    for name in ("old/a.safetensors", "old/new/b.safetensors"):
        shutil.copy(site.folder / "vae.safetensors", folder / name)
    async with tools_over(engine, "") as tools:
        await tools("delete-model", type="vae", filename="old/new/b.safetensors")
        assert [path.name for path in (folder / "old").iterdir()] == ["a.safetensors"]
        await tools("delete-model", type="vae", filename="old/a.safetensors")
    assert folder.is_dir()
    assert not (folder / "old").exists()


@pytest.mark.parametrize(
    ("file", "kind", "said"),
    [
        ("page", "checkpoints", "/resolve/"),
        ("pickle", "checkpoints", "pickle"),
        ("zip", "checkpoints", "zip"),
        ("cut", "loras", "cut"),
        ("long", "loras", "header"),
        ("lora", "checkpoints", "`loras`"),
        ("vae", "loras", "`checkpoints`"),
    ],
)
async def test_what_is_no_such_model_is_refused_and_dropped(
    file: str, kind: str, said: str, engine: EngineUnderTest, site: Site, serve: Serve
) -> None:
    url = serve(site.app())
    async with tools_over(engine, url) as tools:
        with pytest.raises(InvalidArguments) as refused:
            await tools("download-model", url=f"{url}/{file}.safetensors", type=kind)
    assert said in refused.value.as_text()
    assert not list(engine.folder.rglob("*.part*"))
    assert not list(engine.folder.rglob(f"{file}.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"url": "{url}/model.ckpt"}, InvalidArguments, ".safetensors"),
        ({"url": "{url}/lora.safetensors", "filename": "a.ckpt"}, InvalidArguments, "run code"),
        ({"url": "{url}/lora.safetensors", "filename": "../a.safetensors"}, InvalidArguments, "dot"),
        ({"url": "{url}/lora.safetensors", "type": "checkpints"}, InvalidArguments, "checkpoints"),
        ({"url": "{url}/lora.safetensors", "type": "loras", "sha256": "0" * 64}, Conflict, "another sha256"),
        ({"url": "https://example.org/a.safetensors"}, InvalidArguments, "only http"),
        ({"url": "http://example.org/a.safetensors"}, Forbidden, "example.org"),
    ],
)
async def test_a_refusal_names_the_cause_and_leaves_nothing(
    arguments: dict[str, Any], kind: type[ToolError], said: str, engine: EngineUnderTest, site: Site, serve: Serve
) -> None:
    url = serve(site.app())
    arguments = {name: value.replace("{url}", url) for name, value in arguments.items()}
    async with tools_over(engine, url) as tools:
        with pytest.raises(kind) as refused:
            await tools("download-model", **arguments)
    assert said in refused.value.as_text()
    assert not list(engine.folder.rglob("*.part"))
    assert not list((engine.folder / "models" / "loras").rglob("*.safetensors"))


async def test_settings_as_they_come_fetch_from_nowhere_and_never_from_this_machine(
    engine: EngineUnderTest, tmp_path: Path
) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(Forbidden) as refused:
            await tools("download-model", url="https://example.org/a.safetensors")
    assert "COMFY_MCP_DOWNLOAD_HOSTS" in (refused.value.hint or "")
    async with comfy_tools(engine.settings(tmp_path, download_hosts="localhost, example.org")) as tools:
        with pytest.raises(Forbidden, match="not of the open internet"):
            await tools("download-model", url="https://localhost/a.safetensors")


async def test_a_wait_that_runs_out_loses_nothing(engine: EngineUnderTest, site: Site, serve: Serve) -> None:
    url = f"{serve(site.app())}/lora.safetensors"
    async with tools_over(engine, url) as tools:
        first = await tools("download-model", url=url, type="loras", filename="slow.safetensors", wait_s=0)
        with pytest.raises(Conflict, match="Another file"):
            await tools("download-model", url=f"{url}?2", type="loras", filename="slow.safetensors", wait_s=0)
        done = await tools("download-model", url=url, type="loras", filename="slow.safetensors")
        await tools("delete-model", type="loras", filename="slow.safetensors")
    assert (first["status"], done["status"]) == ("downloading", "completed")
    assert len(site.asked) == 1


async def test_tips_come_from_the_header_or_say_that_they_are_a_guess(engine: EngineUnderTest) -> None:
    checkpoints = engine.folder / "models" / "checkpoints"
    write(checkpoints / "mystery.safetensors", {"some.weight": zeros(2, 2)})
    write(checkpoints / "myXL.safetensors", {"some.weight": zeros(2, 2)})
    write(checkpoints / "ltxv-13b-0.9.8-distilled-fp8.safetensors", {"some.weight": zeros(2, 2)})
    async with tools_over(engine) as tools:
        base = await tools("get-model-tips", filename="tinyflux-base.safetensors")
        guessed = await tools("get-model-tips", filename="mystery.safetensors")
        named = await tools("get-model-tips", filename="myXL.safetensors")
        video = await tools("get-model-tips", filename="ltxv-13b-0.9.8-distilled-fp8.safetensors")
        with pytest.raises(NotFound) as absent:
            await tools("get-model-tips", filename="tinyflux-bas.safetensors")
    assert (base["family"], base["found_by"], base["makes"]) == ("flux", "header", "images")
    assert (base["samplers"][0], base["steps"], base["advised_steps"]) == ("heunpp2", 20, [20, 30])
    assert (base["width"], base["height"], base["guidance_range"]) == (1024, 1024, [1.0, 10.0])
    assert any("negative prompt is never read" in warning for warning in base["warnings"])
    assert (guessed["family"], guessed["found_by"]) == ("sd15", "size")
    assert "rule of thumb" in guessed["warnings"][0]
    assert (named["family"], named["found_by"], named["cfg_scale"]) == ("sdxl", "name", 7.0)
    assert (video["makes"], video["vram_gb"], video["trained_frames"]) == ("videos", 14.0, 257)
    assert absent.value.details["closest_matches"][0] == "tinyflux-base.safetensors"


async def test_what_does_not_fit_on_the_disk_is_not_begun(engine: EngineUnderTest, site: Site, serve: Serve) -> None:
    url = serve(site.app())
    for max_bytes, kind in ((2**40, TooLarge), (2**61, InsufficientStorage)):
        async with tools_over(engine, url, max_bytes=max_bytes) as tools:
            with pytest.raises(kind) as refused:
                await tools("download-model", url=f"{url}/huge.safetensors")
        assert str(2**60) in refused.value.message
