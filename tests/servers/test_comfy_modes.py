"""What generate-image makes beyond a prompt: within a mask, in a second pass, and what it refuses by name."""

import base64
from collections.abc import Generator
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mcp_toolserver.errors import InvalidArguments, NotFound
from tests.servers.comfy_tools import EngineUnderTest, Tools, comfy_tools, engine_process, graph

SIDE = 256
BOX = (128, 0, 256, 256)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineUnderTest]:
    with engine_process(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


def encoded(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


async def uploaded(tools: Tools, image: Image.Image) -> str:
    stored = await tools("upload-image", filename=f"{uuid4().hex}.png", content=encoded(image))
    return stored["name"]


def striped() -> Image.Image:
    """Return a picture whose every part is told from what a model would draw there."""
    image = Image.new("RGB", (SIDE, SIDE), "teal")
    for row in range(0, SIDE, 32):
        ImageDraw.Draw(image).rectangle((0, row, SIDE, row + 15), "orange")
    return image


def right_half() -> Image.Image:
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).rectangle(BOX, 255)
    return mask


def saved(engine: EngineUnderTest, result: dict[str, Any]) -> NDArray[np.int16]:
    [file] = (engine.folder / "output").glob(f"loraloop_{result['job_id'][:8]}*")
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB")).astype(np.int16)


async def test_only_what_the_mask_leaves_open_is_drawn_anew(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        picture, mask = await uploaded(tools, striped()), await uploaded(tools, right_half())
        for sampler in ("euler_ancestral", "heunpp2"):
            result = await tools(
                "generate-image", prompt="a red cat", input_image=picture, mask=mask, sampler=sampler, seed=5
            )
            assert result["workflow_name"] == "flux-inpaint"
            assert result["status"] == "completed"
            change = np.abs(saved(engine, result) - np.asarray(striped()).astype(np.int16))
            assert change[:, :128].max() <= 1
            assert change[:, 128:].mean() > 20


async def test_without_the_mask_everything_changes(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        picture = await uploaded(tools, striped())
        result = await tools("generate-image", prompt="a red cat", input_image=picture, denoise=0.9, seed=5)
    change = np.abs(saved(engine, result) - np.asarray(striped()).astype(np.int16))
    assert change[:, :128].mean() > 20


async def test_a_mask_fits_a_picture_that_is_fitted_to_a_size(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        picture, mask = await uploaded(tools, striped()), await uploaded(tools, right_half())
        result = await tools(
            "generate-image", prompt="a red cat", input_image=picture, mask=mask, width=128, height=128, seed=5
        )
    fitted = np.asarray(striped().resize((128, 128), Image.Resampling.LANCZOS)).astype(np.int16)
    change = np.abs(saved(engine, result) - fitted)
    assert result["images"][0]["width"] == 128
    assert change[:, :60].mean() < change[:, 68:].mean() / 4


async def test_a_second_pass_enlarges_the_picture(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        asked: dict[str, Any] = {"prompt": "a red cat", "width": 256, "height": 128, "seed": 5}
        first = await tools("generate-image", **asked)
        result = await tools("generate-image", **asked, hires={"scale": 2.0, "denoise": 0.6, "steps": 20})
        job = await tools("get-job", job_id=result["job_id"])
    assert result["workflow_name"] == "flux-txt2img-hires"
    assert (result["images"][0]["width"], result["images"][0]["height"]) == (512, 256)
    assert job["status"] == "completed"
    enlarged = Image.fromarray(saved(engine, first).astype(np.uint8)).resize((512, 256), Image.Resampling.NEAREST)
    difference = np.abs(saved(engine, result) - np.asarray(enlarged).astype(np.int16)).mean()
    # The second pass kept the picture and drew over it.
    assert 0.5 < difference < 60


async def test_a_second_pass_stays_within_the_mask(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        picture, mask = await uploaded(tools, striped()), await uploaded(tools, right_half())
        result = await tools(
            "generate-image", prompt="a red cat", input_image=picture, mask=mask, hires={"scale": 1.5}, seed=5
        )
    drawn = saved(engine, result)
    kept = np.asarray(striped().resize((384, 384), Image.Resampling.NEAREST)).astype(np.int16)
    assert drawn.shape == (384, 384, 3)
    assert np.abs(drawn - kept)[:, :192].max() <= 1


async def test_a_callers_own_graph_can_hide_what_the_mask_leaves_open(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        own = graph(steps=8, prefix="hidden")
        own["11"] = {"class_type": "LoadImage", "inputs": {"image": await uploaded(tools, striped())}}
        own["12"] = {"class_type": "LoadImage", "inputs": {"image": await uploaded(tools, right_half())}}
        own["13"] = {"class_type": "ImageToMask", "inputs": {"image": ["12", 0], "channel": "red"}}
        own["14"] = {
            "class_type": "VAEEncodeForInpaint",
            "inputs": {"pixels": ["11", 0], "vae": ["1", 2], "mask": ["13", 0], "grow_mask_by": 8},
        }
        own["15"] = {"class_type": "RepeatLatentBatch", "inputs": {"samples": ["14", 0], "amount": 2}}
        own["6"]["inputs"]["latent_image"] = ["15", 0]
        result = await tools("execute-workflow", workflow=own)
    assert len(result["images"]) == 2
    for file in (engine.folder / "output").glob("hidden*"):
        with Image.open(file) as picture:
            change = np.abs(np.asarray(picture).astype(np.int16) - np.asarray(striped()).astype(np.int16))
        # The mask grew by four pixels on either side of its edge.
        assert change[:, :112].max() <= 1
        assert change[:, 144:].mean() > 20


def turned() -> str:
    """Return a JPEG of 64 x 128 pixels that its EXIF lays on its side, as base64."""
    exif, buffer = Image.Exif(), BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (64, 128), "teal").save(buffer, "JPEG", exif=exif)
    return base64.b64encode(buffer.getvalue()).decode()


async def test_one_side_is_enough_beside_a_picture(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        name = (await tools("upload-image", filename="turned.jpg", content=turned()))["name"]
        for sides in ({"width": 256}, {"height": 128}):
            made = await tools("generate-image", prompt="a cat", steps=2, input_image=name, **sides)
            assert saved(engine, made).shape[:2] == (128, 256)
        with pytest.raises(InvalidArguments, match="`height` is left out"):
            await tools("generate-image", prompt="a cat", input_image="absent.png", width=256)


async def test_a_mask_has_the_shape_of_its_picture(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        picture = await uploaded(tools, striped())
        small, thin = (
            await uploaded(tools, right_half().resize((64, 64))),
            await uploaded(tools, Image.new("L", (400, 1))),
        )
        made = await tools("generate-image", prompt="a cat", steps=2, input_image=picture, mask=small)
        assert any("`mask` is a picture of 64 x 64" in warning for warning in made["warnings"])
        with pytest.raises(InvalidArguments, match="400 x 1"):
            await tools("generate-image", prompt="a cat", input_image=picture, mask=thin)


async def test_files_that_are_not_there_are_refused_with_their_folder(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(NotFound, match="`upscale_model`") as enlarging:
            await tools("generate-image", prompt="a cat", upscale_model="4x-sharp.pth")
        with pytest.raises(NotFound, match=r"`controlnet\.name`") as control:
            await tools("generate-image", prompt="a cat", controlnet={"name": "canny", "image": "x.png"})
        with pytest.raises(InvalidArguments, match=r"no_mask\.png"):
            picture = await uploaded(tools, striped())
            await tools("generate-image", prompt="a cat", input_image=picture, mask="no_mask.png")
        with pytest.raises(NotFound, match="no model that makes videos") as video:
            await tools("generate-video", prompt="a cat walks")
        with pytest.raises(InvalidArguments, match="`generate-image`"):
            await tools("generate-video", prompt="a cat walks", video_model="tinyflux-base.safetensors")
        assert (await tools("list-jobs"))["jobs"] == []
    assert "models/upscale_models" in (enlarging.value.hint or "")
    assert "models/controlnet" in (control.value.hint or "")
    assert "Wan 2.2" in (video.value.hint or "")


async def test_what_belongs_together_is_asked_for(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        for arguments, field in (
            ({"mask": "mask.png"}, "mask"),
            ({"reference_images": ["a.png"]}, "reference_images"),
            ({"input_image": "a.png", "reference_images": ["b.png"]}, "reference_images"),
            ({"hires": {"scale": 9.0}}, "hires.scale"),
            ({"hires": {"denoise": 2.0}}, "hires.denoise"),
            ({"width": 4096, "height": 4096, "hires": {"scale": 4.0}}, "hires.scale"),
        ):
            with pytest.raises(InvalidArguments) as refused:
                await tools("generate-image", prompt="a cat", **arguments)
            assert refused.value.details["field"] == field
