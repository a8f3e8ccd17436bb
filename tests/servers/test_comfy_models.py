"""list-models, get-object-info, get-system-info, free-memory and upload-image."""

import base64
import shutil
from collections.abc import Generator
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_http import fixed
from comfy_mcp.engines.selection import Selected
from comfy_mcp.models.folders import ModelFolders
from mcp_toolserver.errors import InvalidArguments, NotFound
from tests.contract.comfyui.conftest import write_lora
from tests.servers.comfy_tools import EngineUnderTest, comfy_tools, engine_process, graph, png

CHECKPOINT = "tinyflux-base.safetensors"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineUnderTest]:
    with engine_process(tmp_path_factory.mktemp("comfyui")) as running:
        write_lora(running.folder / "models" / "loras" / "one.safetensors")
        yield running


async def test_a_model_whose_name_says_nothing_is_listed_by_its_layers(engine: EngineUnderTest, tmp_path: Path) -> None:
    name = "nothing_said.safetensors"
    folder = engine.folder / "models" / "checkpoints"
    layer = "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"
    (folder / name).write_bytes(save({layer: np.ones((12, 4), np.float16)}))
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        listed = await tools("list-models", type="checkpoint")
    (folder / name).unlink()
    assert {model["name"]: model["family"] for model in listed["models"]} == {name: "sd3", CHECKPOINT: "flux"}


async def test_models_are_listed_by_kind(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        everything = await tools("list-models")
        checkpoints = await tools("list-models", type="checkpoint")
        loras = await tools("list-models", type="loras")
    [checkpoint] = checkpoints["models"]
    assert checkpoint["name"] == CHECKPOINT
    assert checkpoint["type"] == "checkpoints"
    assert checkpoint["family"] == "flux"
    assert checkpoint["size_bytes"] == (engine.folder / "models" / "checkpoints" / CHECKPOINT).stat().st_size
    assert [lora["name"] for lora in loras["models"]] == ["one.safetensors"]
    assert everything["total"] == len(everything["models"]) >= 2


async def test_an_unknown_kind_is_refused_with_the_closest(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(InvalidArguments) as refused:
            await tools("list-models", type="checkpints")
    assert refused.value.details["closest_matches"] == ["checkpoints"]


async def test_node_classes_are_listed_and_described(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        names = await tools("get-object-info")
        sampler = await tools("get-object-info", node_class="KSampler")
        with pytest.raises(NotFound) as refused:
            await tools("get-object-info", class_type="KSamplr")
    assert {"KSampler", "LoraLoader", "FluxGuidance"} <= set(names["node_classes"])
    assert sampler["info"]["input"]["required"]["steps"][0] == "INT"
    assert refused.value.details["closest_matches"][0] == "KSampler"


async def test_the_system_tells_devices_and_queue(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        info = await tools("get-system-info")
    assert info["engine"] == "comfyui"
    assert info["url"] == engine.url
    assert info["ram_total_bytes"] > info["ram_free_bytes"] > 0
    assert info["devices"][0]["type"] == "cpu"
    assert (info["queue_running"], info["queue_pending"]) == (0, 0)


async def test_freed_memory_forgets_what_was_rendered(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        await tools("execute-workflow", workflow=graph(seed=21))
        freed = await tools("free-memory")
        again = await tools("execute-workflow", workflow=graph(seed=21))
    assert freed["ram_free_after_bytes"] > 0
    assert not again["cached"]


async def test_an_uploaded_picture_is_named_as_it_was_stored(engine: EngineUnderTest, tmp_path: Path) -> None:
    name = f"{uuid4().hex}.png"
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        first = await tools("upload-image", filename=name, data=base64.b64encode(png()).decode())
        other = await tools("upload-image", filename=name, content=base64.b64encode(png(8, 8)).decode())
        same = await tools("upload-image", filename=name, content=base64.b64encode(png(9, 9)).decode(), overwrite=True)
    assert first == {"name": name, "width": 48, "height": 32, "size_bytes": len(png()), "warnings": []}
    assert other["name"] != name
    assert same["name"] == name


async def test_a_transparent_mask_is_warned_of(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        for lightest, warnings in ((0, 1), (255, 0)):
            picture = BytesIO()
            Image.new("RGBA", (8, 8), (255, 255, 255, lightest)).save(picture, "PNG")
            stored = await tools(
                "upload-image", filename=f"{lightest}.png", content=base64.b64encode(picture.getvalue()).decode()
            )
            assert len(stored["warnings"]) == warnings
            assert all("transparent" in warning for warning in stored["warnings"])


async def test_a_picture_that_its_exif_turns_has_the_sides_that_are_rendered(
    engine: EngineUnderTest, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        for suffix, kind in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF")):
            picture = BytesIO()
            Image.new("RGB", (64, 128)).save(picture, kind, exif=exif)
            content = base64.b64encode(picture.getvalue()).decode()
            stored = await tools("upload-image", filename=f"turned.{suffix}", content=content)
            assert (stored["width"], stored["height"]) == (128, 64), kind
            assert stored["warnings"] == []


@pytest.mark.parametrize(("suffix", "kind"), [("gif", "GIF"), ("webp", "WEBP"), ("png", "PNG"), ("tif", "TIFF")])
async def test_an_animation_is_warned_of(engine: EngineUnderTest, tmp_path: Path, suffix: str, kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue", "white", "black")]
    picture = BytesIO()
    frames[0].save(picture, kind, save_all=True, append_images=frames[1:])
    content = base64.b64encode(picture.getvalue()).decode()
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        stored = await tools("upload-image", filename=f"moving.{suffix}", content=content)
    [warning] = stored["warnings"]
    assert "5 frames" in warning


@pytest.mark.parametrize(
    ("filename", "content", "named"),
    [
        ("../x.png", png(), "filename"),
        ("sub/x.png", png(), "filename"),
        ("x.png", b"<html>no picture</html>", "content"),
        ("x.png", png()[:40], "content"),
        ("x.txt", png(), "filename"),
        ("x", png(), "filename"),
        ("x.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "content"),
    ],
)
async def test_what_is_no_picture_is_refused(
    engine: EngineUnderTest, tmp_path: Path, filename: str, content: bytes, named: str
) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(InvalidArguments) as refused:
            await tools("upload-image", filename=filename, content=base64.b64encode(content).decode())
    assert named in refused.value.message
    assert "object at" not in refused.value.message


async def folders_of(url: str, tmp_path: Path) -> tuple[Path, ...]:
    """Return the loras folders that a server without COMFYUI_DIR finds for the ComfyUI at `url`."""

    async def selected() -> Selected:
        return Selected(engine="comfyui", url=url)

    comfyui = ComfyUI(fixed(url))
    async with comfyui.running():
        return await ModelFolders(comfyui, selected, comfyui_dir=None, embedded_dir=tmp_path).of("loras")


async def test_a_comfyui_on_this_disk_tells_where_its_loras_lie(engine: EngineUnderTest, tmp_path: Path) -> None:
    assert (await folders_of(engine.url, tmp_path))[0] == engine.folder / "models" / "loras"


async def test_a_folder_that_lacks_what_comfyui_lists_is_another_machines(tmp_path: Path) -> None:
    with engine_process(tmp_path / "comfyui") as running:
        loras = running.folder / "models" / "loras"
        write_lora(tmp_path / "elsewhere.safetensors")
        (loras / "one.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
        assert await folders_of(running.url, tmp_path)
        # A link that leads nowhere is listed by ComfyUI and cannot be seen from here, as in a container's folder.
        (tmp_path / "elsewhere.safetensors").unlink()
        assert await folders_of(running.url, tmp_path) == ()
        shutil.rmtree(loras)
