"""The tools over LoRAs: what they list, describe, download and check, over real folders and the embedded ComfyUI."""

import base64
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from comfy_mcp.embedded.process import embedded_comfyui
from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_http import fixed
from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.loras.routes import lora_routes
from comfy_mcp.tools.loras import lora_tools
from mcp_toolserver.app import BackendState, ServerIdentity, ToolServer, create_server_app
from mcp_toolserver.auth import DoorPolicy
from mcp_toolserver.errors import InvalidArguments, NotFound, TooLarge
from mcp_toolserver.tools import Call, Toolbox
from tests.servers.loras import SD15, TINY, call, checks_over, flux, library_over, toolbox
from tests.unit.lora_files.files import AI_TOOLKIT_METADATA, FLUX_AI_TOOLKIT, KOHYA, pairs, write

Serve = Callable[[ASGIApp], str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty loras folder."""
    loras = tmp_path / "comfyui" / "models" / "loras"
    loras.mkdir(parents=True)
    return loras


@pytest.fixture
def library(folder: Path, tmp_path: Path) -> LoraLibrary:
    """Return a library over the folder, with a cache."""
    return library_over([folder], tmp_path / "loras.sqlite")


async def test_lists_names_as_the_loader_takes_them(library: LoraLibrary, folder: Path) -> None:
    flux(folder / "pixel cat ü.safetensors")
    write(folder / "people" / "anna.SAFETENSORS", pairs(SD15, suffixes=KOHYA))
    (folder / "old.pt").write_bytes(b"\x80\x02}q\0.")
    (folder / "page.safetensors").write_text("<html>Sign in</html>")
    for hidden in (".hidden.safetensors", ".uploads/x/data.safetensors", "half.safetensors.part", "notes.txt"):
        (folder / hidden).parent.mkdir(parents=True, exist_ok=True)
        (folder / hidden).write_bytes(b"")
    (folder / "broken.safetensors").symlink_to(folder / "nowhere")

    answer = await call(library, "list-loras")
    assert [lora["name"] for lora in answer["loras"]] == [
        "old.pt",
        "page.safetensors",
        "people/anna.SAFETENSORS",
        "pixel cat ü.safetensors",
    ]
    assert answer["total"] == 4
    by_name = {lora["name"]: lora for lora in answer["loras"]}
    cat = by_name["pixel cat ü.safetensors"]
    assert (cat["architecture"], cat["rank"], cat["trigger_words"], cat["problem"]) == ("flux", 16, ["p1xcat"], None)
    assert cat["size_bytes"] == (folder / "pixel cat ü.safetensors").stat().st_size
    assert by_name["people/anna.SAFETENSORS"]["architecture"] == "sd15"
    assert "run code" in by_name["old.pt"]["problem"]
    assert "web page" in by_name["page.safetensors"]["problem"]


async def test_a_file_without_a_readable_header_has_no_digest_of_its_tensors(
    library: LoraLibrary, folder: Path
) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "old.pt").write_bytes(b"\x80\x02}q\0.")
    (folder / "empty.safetensors").write_bytes(b"")
    flux(folder / "good.safetensors")
    infos = {
        name: await call(library, "get-lora-info", lora_name=name, include_hashes=True)
        for name in ("old.pt", "empty.safetensors", "good.safetensors")
    }
    assert all(info["sha256"] for info in infos.values())
    assert {name for name, info in infos.items() if info["autov3"]} == {"good.safetensors"}


async def test_follows_links_but_not_in_a_circle(library: LoraLibrary, folder: Path, tmp_path: Path) -> None:
    flux(tmp_path / "elsewhere" / "e.safetensors")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    (folder / "l.safetensors").symlink_to(tmp_path / "elsewhere" / "e.safetensors")
    names = [lora["name"] for lora in (await call(library, "list-loras"))["loras"]]
    assert names == ["l.safetensors", "linked/e.safetensors"]
    assert (await call(library, "get-lora-info", lora_name="linked/e.safetensors"))["architecture"] == "flux"


async def test_filters_sorts_and_pages(library: LoraLibrary, folder: Path) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(7):
        path = flux(folder / f"cat_{number}.safetensors")
        moment = (start + timedelta(days=number // 2)).timestamp()
        os.utime(path, (moment, moment))
    write(folder / "style" / "ink.safetensors", pairs(SD15, suffixes=KOHYA))

    assert (await call(library, "list-loras", query="P1XCAT cat_3"))["total"] == 1
    assert (await call(library, "list-loras", query="style\\ink"))["total"] == 1
    assert (await call(library, "list-loras", query="nothing"))["loras"] == []
    only = await call(library, "list-loras", architecture="sd15")
    assert [lora["name"] for lora in only["loras"]] == ["style/ink.safetensors"]

    for sort in ("name", "modified", "size"):
        whole = (await call(library, "list-loras", sort=sort))["loras"]
        paged: list[Any] = []
        cursor = None
        while True:
            page = await call(library, "list-loras", sort=sort, limit=3, cursor=cursor)
            assert page["total"] == 8
            paged += page["loras"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert paged == whole
    newest = (await call(library, "list-loras", sort="modified", limit=2))["loras"]
    assert [lora["name"] for lora in newest] == ["style/ink.safetensors", "cat_6.safetensors"]


async def test_refuses_a_cursor_of_another_list(library: LoraLibrary, folder: Path) -> None:
    flux(folder / "a.safetensors")
    flux(folder / "b.safetensors")
    page = await call(library, "list-loras", limit=1)
    for cursor, sort in ((page["next_cursor"], "size"), ("nonsense!", "name"), ("W10", "name"), ("ü", "name")):
        with pytest.raises(InvalidArguments, match="cursor"):
            await call(library, "list-loras", cursor=cursor, sort=sort)


async def test_tells_everything_that_the_file_tells(library: LoraLibrary, folder: Path) -> None:
    path = flux(folder / "cats" / "p1xcat.safetensors")
    answer = await call(library, "get-lora-info", lora_name="cats/p1xcat.safetensors")
    assert answer["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert answer["autov2"] == answer["sha256"][:10]
    assert len(answer["autov3"]) == 12
    assert answer["network"] == {
        "kind": "LoRA",
        "rank": 16,
        "alpha": 16.0,
        "alpha_stored": False,
        "dtype": "F16",
        "modules": len(FLUX_AI_TOOLKIT),
        "text_encoder": False,
    }
    assert (answer["architecture"], answer["base_model"], answer["key_format"]) == ("flux", "flux.1", "diffusers")
    assert (answer["training"]["software"], answer["training"]["steps"]) == ("ai-toolkit 0.12.26", 1500)
    assert (answer["loader"], answer["suggested_strength"]) == ("LoraLoaderModelOnly", 1.0)
    assert answer["metadata"] == AI_TOOLKIT_METADATA
    quick = await call(library, "get-lora-info", lora_name="cats/p1xcat.safetensors", include_hashes=False)
    assert quick == answer, "digests that are known are given in any case"


async def test_describes_what_cannot_be_used(library: LoraLibrary, folder: Path) -> None:
    (folder / "cut.safetensors").write_bytes(flux(folder / "whole.safetensors").read_bytes()[:-10])
    (folder / "bomb.ckpt").write_bytes(b"\x80\x02}q\0.")
    cut = await call(library, "get-lora-info", lora_name="cut.safetensors")
    assert (cut["architecture"], cut["network"], cut["loader"]) == ("unknown", None, None)
    assert "10 missing" in cut["warnings"][0]
    assert "run code" in (await call(library, "get-lora-info", lora_name="bomb.ckpt"))["warnings"][0]


@pytest.mark.parametrize(
    ("name", "offered", "hint"),
    [
        ("cats\\p1xcat.safetensors", "cats/p1xcat.safetensors", "written with `/`"),
        ("p1xcat.safetensors", "cats/p1xcat.safetensors", "sub-folder belongs"),
        ("cats/p1xcat", "cats/p1xcat.safetensors", "extension belongs"),
        ("cats/P1XCAT.safetensors", "cats/p1xcat.safetensors", "case differ"),
        ("cats/p1xcta.safetensors", "cats/p1xcat.safetensors", "Did you mean"),
        ("../../secrets.safetensors", None, "list-loras"),
        ("/etc/passwd", None, "list-loras"),
        ("cats/../cats/p1xcat.safetensors", "cats/p1xcat.safetensors", "Names are exact"),
        (".uploads/x/data.safetensors", None, "list-loras"),
        ("", None, "list-loras"),
        ("a\0.safetensors", None, "list-loras"),
    ],
)
async def test_offers_the_closest_name(
    name: str, offered: str | None, hint: str, library: LoraLibrary, folder: Path, tmp_path: Path
) -> None:
    flux(folder / "cats" / "p1xcat.safetensors")
    flux(folder / ".uploads" / "x" / "data.safetensors")
    flux(tmp_path / "comfyui" / "secrets.safetensors")
    for tool in ("get-lora-info", "download-lora", "delete-lora"):
        with pytest.raises(NotFound) as caught:
            await call(library, tool, lora_name=name)
        assert caught.value.details["closest_matches"][:1] == ([offered] if offered else [])
        assert hint in (caught.value.hint or "")


async def test_takes_words_from_side_cars(library: LoraLibrary, folder: Path) -> None:
    write(folder / "a.safetensors", pairs(TINY))
    (folder / "a.civitai.info").write_text(json.dumps({"trainedWords": ["ohwx, a cat"], "baseModel": "Flux.1 D"}))
    (folder / "a.json").write_text(json.dumps({"activation text": "other", "preferred weight": 0.7}))
    answer = await call(library, "get-lora-info", lora_name="a.safetensors")
    assert (answer["trigger_words"], answer["suggested_strength"]) == (["ohwx", "a cat"], 0.7)
    (folder / "a.metadata.json").write_text("{broken")
    (folder / "a.civitai.info").write_text(json.dumps({"trainedWords": ["new"]}))
    assert (await call(library, "get-lora-info", lora_name="a.safetensors"))["trigger_words"] == ["new"]


async def test_an_answer_stays_short_however_long_the_metadata_is(library: LoraLibrary, folder: Path) -> None:
    counts = {f"word {number}": number for number in range(100_000)}
    write(folder / "a.safetensors", pairs(TINY), {"ss_tag_frequency": json.dumps({"1_cat": counts}), "author": "anna"})
    supplied = {"training_config": {"prompts": ["a cat"] * 100_000}, "source": "anna"}
    (folder / "a.safetensors.metadata.json").write_text(json.dumps(supplied))
    answer = await call(library, "get-lora-info", lora_name="a.safetensors")
    assert len(json.dumps(answer)) < 100_000
    assert (answer["metadata"]["author"], len(answer["metadata"]["ss_tag_frequency"])) == ("anna", 4096)
    assert answer["supplied_metadata"] == {"source": "anna"}
    assert any(f"ss_tag_frequency ({len(json.dumps({'1_cat': counts}))} characters)" in w for w in answer["warnings"])
    assert any("`supplied_metadata`: training_config" in warning for warning in answer["warnings"])


async def test_downloads_as_base64_within_the_bound(library: LoraLibrary, folder: Path) -> None:
    path = flux(folder / "my cats" / "a b.safetensors")
    by_url = await call(library, "download-lora", lora_name="my cats/a b.safetensors")
    assert (by_url["url"], by_url["content"]) == ("http://host:8189/loras/my%20cats/a%20b.safetensors", None)
    inline = await call(library, "download-lora", lora_name="my cats/a b.safetensors", format="base64")
    assert base64.b64decode(inline["content"]) == path.read_bytes()
    assert inline["sha256"] == by_url["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert inline["filename"] == "a b.safetensors"
    with pytest.raises(TooLarge) as caught:
        await toolbox(library, max_base64_bytes=100).call(
            "download-lora",
            {"lora_name": "my cats/a b.safetensors", "format": "base64"},
            Call(base_url="http://host:8189"),
        )
    assert caught.value.details["url"] == by_url["url"]
    over_stdio = await toolbox(library).call("download-lora", {"lora_name": "my cats/a b.safetensors"}, Call())
    assert over_stdio["url"] == path.as_uri()


async def test_serves_ranges_of_a_lora(library: LoraLibrary, folder: Path, serve: Serve) -> None:
    path = flux(folder / "my cats" / "a b.safetensors")

    async def backend() -> BackendState:
        return BackendState(state="ok", engine="embedded")

    server = ToolServer(
        identity=ServerIdentity(name="comfy_mcp", title="t", version="1", instructions=""),
        toolbox=toolbox(library),
        backend=backend,
        routes=lora_routes(library),
    )
    url = serve(create_server_app(server, DoorPolicy()))
    async with httpx.AsyncClient() as client:
        body = {"tool": "download-lora", "arguments": {"lora_name": "my cats/a b.safetensors"}}
        found = (await client.post(f"{url}/mcp/tool", json=body)).json()["result"]
        whole = await client.get(found["url"])
        assert whole.content == path.read_bytes()
        digest = base64.b64encode(bytes.fromhex(found["sha256"])).decode()
        assert whole.headers["Repr-Digest"] == f"sha-256=:{digest}:"
        part = await client.get(found["url"], headers={"Range": "bytes=8-15"})
        assert (part.status_code, part.content) == (206, path.read_bytes()[8:16])
        head = await client.head(found["url"])
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(found["size_bytes"]))
        missing = await client.get(f"{url}/loras/my%20cats/ab.safetensors")
        assert missing.status_code == 404
        assert missing.json()["error"]["details"]["closest_matches"] == ["my cats/a b.safetensors"]
        assert (await client.get(f"{url}/loras/..%2f..%2fetc%2fpasswd")).status_code == 404


@asynccontextmanager
async def checking(data_dir: Path) -> AsyncGenerator[tuple[Toolbox, Path]]:
    """Yield the tools over the embedded ComfyUI, and its loras folder."""
    async with embedded_comfyui(data_dir) as url:
        folder = data_dir / "models" / "loras"
        library = library_over([folder])
        comfyui = ComfyUI(fixed(url))
        async with comfyui.running():
            yield Toolbox(lora_tools(library, checks_over(library, comfyui, data_dir))), folder


async def test_predicts_whether_a_lora_fits_a_checkpoint(tmp_path: Path) -> None:
    async with checking(tmp_path / "comfyui") as (tools, folder):
        write(folder / "tiny.safetensors", pairs(TINY))
        flux(folder / "flux.safetensors")
        write(folder / "sd15.safetensors", pairs(SD15, suffixes=KOHYA))

        async def check(lora: str, checkpoint: str = "tinyflux-base.safetensors") -> dict[str, Any]:
            return await tools.call("check-lora", {"lora_name": lora, "checkpoint": checkpoint}, Call())

        fits = await check("tiny.safetensors", "tinyflux-base")
        assert (fits["fits"], fits["verdict"], fits["checkpoint"]) == (True, "fits", "tinyflux-base.safetensors")
        assert (fits["layers"], fits["matched_layers"]) == (1, 1)

        wide = await check("flux.safetensors")
        assert (wide["fits"], wide["verdict"]) == (False, "does_not_fit")
        assert "3072" in wide["shape_mismatches"][0]
        assert "no effect" in wide["message"]
        assert "says `lora key not loaded` and `ERROR lora … shape`." in wide["message"]

        other = await check("sd15.safetensors")
        assert (other["verdict"], other["keys_not_loaded"]) == ("does_not_fit", list(SD15))
        assert "says `lora key not loaded`. It is for sd15, the checkpoint is flux" in other["message"]

        with pytest.raises(NotFound):
            await check("tiny.safetensors", "nowhere.safetensors")
        with pytest.raises(NotFound):
            await check("nowhere.safetensors")
        (folder / "page.safetensors").write_text("<html>")
        with pytest.raises(InvalidArguments, match="web page"):
            await check("page.safetensors")
