"""The Python API: pictures and slide shows without a server."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

import comfy_mcp
from comfy_mcp import GenerationService
from comfy_mcp.settings import ComfySettings
from mcp_toolserver.errors import BackendUnavailable, InvalidArguments, NotFound


def embedded(data_dir: Path) -> GenerationService:
    return GenerationService(backend="embedded", data_dir=data_dir)


def size_of(content: bytes) -> tuple[int, int]:
    with Image.open(BytesIO(content)) as image:
        image.load()
        return image.size


async def test_a_picture_by_the_words_of_diffusers(tmp_path: Path) -> None:
    heard: list[float] = []

    async def report(done: float, /, total: float | None = None, message: str | None = None) -> None:
        heard.append(done)

    async with embedded(tmp_path) as service:
        result = await service.generate_image(
            prompt="A serene mountain landscape at sunrise",
            width=128,
            height=64,
            num_inference_steps=3,
            guidance_scale=2.5,
            seed=42,
            report=report,
        )
        assert result.get("status") == "success"
        assert result.get("workflow") == "embedded"
        assert result.get("model") == "tinyflux-base.safetensors"
        assert result["seed"] == 42
        assert not any("`cfg_scale`" in warning for warning in result["warnings"])
        [image] = result["images"]
        assert size_of(image["content"]) == (image["width"], image["height"]) == (128, 64)
        assert image["filename"].endswith(".png")
        assert heard
        again = await service.generate_image("A serene mountain landscape at sunrise", width=128, height=64, steps=3)
        assert again["seed"] != 42


async def test_a_video_of_a_frame_for_each_prompt(tmp_path: Path) -> None:
    async with embedded(tmp_path) as service:
        result = await service.generate_video(
            prompt=["A serene mountain landscape at sunrise", "A bustling city skyline at night"],
            video_type="multi_frame",
            quality="high",
            use_ai_generation=True,
            frame_duration_s=0.5,
            width=64,
            height=64,
            num_inference_steps=3,
        )
        assert result["status"] == "success"
        assert result["workflow"] == "embedded"
        assert result["duration_s"] == 1.0
        assert len(result["frames"]) == 2
        with Image.open(BytesIO(result["content"])) as video:
            assert (video.format, video.size, getattr(video, "n_frames", 1)) == ("WEBP", (64, 64), 2)


IMPOSSIBLE_VIDEOS: dict[str, list[dict[str, Any]]] = {
    "prompt": [{"prompt": []}, {"prompt": ["a"] * 201}],
    "video_type": [{"video_type": "multiframe"}],
    "quality": [{"quality": "hi"}],
    "use_ai_generation": [{"use_ai_generation": False}],
    "frame_duration_s": [{"frame_duration_s": value} for value in (0.0, float("nan"), "61", "long")],
    "batch_size": [{"batch_size": 2}],
}


async def test_what_cannot_be_is_refused_as_by_the_tool(tmp_path: Path) -> None:
    async with embedded(tmp_path) as service:
        for field, cases in IMPOSSIBLE_VIDEOS.items():
            for arguments in cases:
                a_cat: dict[str, Any] = {} if field == "prompt" else {"prompt": ["a cat"]}
                with pytest.raises(InvalidArguments, match=f"`{field}`") as caught:
                    await service.generate_video(**a_cat, **arguments)
                assert caught.value.details["field"] == field
        with pytest.raises(InvalidArguments, match="cfg_scale"):
            await service.generate_image("a cat", cfg=7)
        much: Any = "much"
        with pytest.raises(InvalidArguments, match="`guidance_scale` is 'much'"):
            await service.generate_image("a cat", guidance_scale=much)
        with pytest.raises(InvalidArguments, match="both"):
            await service.generate_image("a cat", guidance_scale=3.5, guidance=3.0)
        with pytest.raises(InvalidArguments, match="both"):
            await service.generate_image("a cat", num_inference_steps=20, steps=30)
        with pytest.raises(InvalidArguments, match="`guidance` is 99"):
            await service.generate_image("a cat", guidance_scale=99)
        with pytest.raises(NotFound, match="no-such"):
            await service.generate_image("a cat", checkpoint="no-such.safetensors")


@pytest.mark.parametrize("words", ["", None, 5])
async def test_a_frame_without_a_text_is_refused_before_any_is_rendered(tmp_path: Path, words: Any) -> None:
    told: list[str | None] = []

    async def report(done: float, /, total: float | None = None, message: str | None = None) -> None:
        told.append(message)

    async with embedded(tmp_path) as service:
        with pytest.raises(InvalidArguments, match=r"`prompt\.1`"):
            await service.generate_video(["a cat", words], report=report)
    assert told == []


async def test_a_comfyui_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    async with GenerationService(data_dir=tmp_path, comfyui_api_url="http://127.0.0.1:9") as service:
        with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9"):
            await service.generate_image("a cat")


def test_settings_are_given_once(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        GenerationService(ComfySettings(data_dir=tmp_path), backend="embedded")


def test_a_setting_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"`comfyui_url`.*`comfyui_api_url`"):
        GenerationService(data_dir=tmp_path, comfyui_url="http://127.0.0.1:8188")
    with pytest.raises(TypeError, match="`foo`"):
        GenerationService(foo=1)


async def test_outside_of_its_block_it_says_so_at_once(tmp_path: Path) -> None:
    service = embedded(tmp_path)
    with anyio.fail_after(5):
        with pytest.raises(RuntimeError, match="async with"):
            await service.generate_image("a cat")
        with pytest.raises(RuntimeError, match="async with"):
            await service.generate_video(["a cat"])
    async with service:
        pass
    with pytest.raises(RuntimeError, match="async with"):
        await service.generate_image("a cat")


async def test_numbers_as_text_are_numbers(tmp_path: Path) -> None:
    texts: dict[str, Any] = {"guidance_scale": "3.5", "num_inference_steps": "1", "frame_duration_s": "0.5"}
    async with embedded(tmp_path) as service:
        result = await service.generate_video(["a cat", "a dog"], width=64, height=64, **texts)
    assert result["duration_s"] == 1.0


def test_the_package_stays_light() -> None:
    code = "import sys, comfy_mcp; print(*{'httpx', 'pydantic', 'torch'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b""
    absent = "NoSuchThing"
    with pytest.raises(AttributeError, match=absent):
        getattr(comfy_mcp, absent)
