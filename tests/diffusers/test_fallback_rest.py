"""generate-image over REST while ComfyUI is away: a server process, and diffusers in it."""

import base64
import json
from collections.abc import Generator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image, PngImagePlugin

from tests.conftest import server_process
from tests.contract.comfyui.conftest import strong_lora
from tests.diffusers.conftest import TinyModel
from tests.diffusers.tiny_models import make_lora
from tests.servers.comfy_tools import png

NOWHERE = "http://127.0.0.1:9"
SMALL = {"prompt": "a red cat", "width": 64, "height": 64, "steps": 2, "seed": 5}


@dataclass(frozen=True)
class Server:
    """A comfy_mcp, as scripts call it."""

    url: str

    def answer(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool and return the whole envelope."""
        return httpx.post(f"{self.url}/mcp/tool", json={"tool": tool, "arguments": arguments}, timeout=120).json()

    def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must succeed."""
        answer = self.answer(tool, **arguments)
        assert answer["success"], answer
        return answer["result"]

    def error(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must refuse."""
        answer = self.answer(tool, **arguments)
        assert not answer["success"], answer
        return answer["error"]

    def picture(self, result: dict[str, Any], index: int = 0) -> bytes:
        """Fetch a picture of a result."""
        response = httpx.get(result["images"][index]["url"])
        assert response.status_code == 200
        assert response.headers["content-type"] == "image/png"
        return response.content


def pixels(content: bytes) -> bytes:
    """Return what is to be seen of a picture."""
    with Image.open(BytesIO(content)) as image:
        return image.convert("RGB").tobytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: TinyModel) -> Generator[Server]:
    comfyui = tmp_path_factory.mktemp("ComfyUI")
    (comfyui / "models").mkdir()
    (comfyui / "models" / "diffusers").symlink_to(tiny_model("sdxl").path.parent)
    make_lora("sdxl", comfyui / "models" / "loras" / "people" / "anna.safetensors")
    (comfyui / "models" / "loras" / "for-flux.safetensors").write_bytes(strong_lora(1))
    data_dir = tmp_path_factory.mktemp("data")
    arguments = ("--data-dir", str(data_dir), "--comfyui-dir", str(comfyui), "--comfyui-api-url", NOWHERE)
    with server_process("comfy_mcp", *arguments) as (_, url):
        yield Server(url)


def test_generation_goes_on_without_comfyui(server: Server) -> None:
    result = server("generate-image", **SMALL)
    assert result["status"] == "completed"
    assert result["engine"] == "diffusers"
    assert result["workflow_name"] == "diffusers-sdxl-txt2img"
    assert result["seed"] == 5
    assert any(NOWHERE in warning for warning in result["warnings"])
    [image] = result["images"]
    assert (image["width"], image["height"]) == (64, 64)
    content = server.picture(result)
    with Image.open(BytesIO(content)) as opened:
        assert isinstance(opened, PngImagePlugin.PngImageFile)
        assert opened.size == (64, 64)
        assert "Seed: 5" in opened.text["parameters"]
        assert json.loads(opened.text["prompt"])["1"]["class_type"] == "DiffusersSampler"
    assert pixels(server.picture(server("generate-image", **SMALL))) == pixels(content)
    assert pixels(server.picture(server("generate-image", **{**SMALL, "seed": 6}))) != pixels(content)


def test_a_job_is_told_as_any_other(server: Server) -> None:
    made = server("generate-image", **SMALL)
    job = server("get-job", job_id=made["job_id"])
    assert (job["status"], job["engine"], job["seed"]) == ("completed", "diffusers", 5)
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    assert job["images"] == made["images"]
    assert made["job_id"] in [job["job_id"] for job in server("list-jobs")["jobs"]]
    recovered = server("get-image-workflow", image_id=made["images"][0]["id"])["workflow"]
    assert recovered["1"]["inputs"]["prompt"] == "a red cat"
    assert recovered["1"]["inputs"]["seed"] == 5
    assert server.error("cancel-job", job_id=made["job_id"])["code"] == "conflict"


def test_a_lora_works_by_its_strength(server: Server) -> None:
    plain = pixels(server.picture(server("generate-image", **SMALL)))
    none, full = (
        pixels(server.picture(server("generate-image", **SMALL, loras=[{"name": "anna", "strength": strength}])))
        for strength in (0.0, 1.0)
    )
    assert plain == none
    assert plain != full


def test_a_picture_is_begun_with_and_masked(server: Server) -> None:
    mask = Image.new("RGB", (64, 64))
    mask.paste((255, 255, 255), (0, 0, 32, 64))
    buffer = BytesIO()
    mask.save(buffer, "PNG")
    names = [
        server("upload-image", filename=name, content=base64.b64encode(content).decode())["name"]
        for name, content in (("cat.png", png(64, 64)), ("mask.png", buffer.getvalue()))
    ]
    begun = server("generate-image", **SMALL, input_image=names[0], denoise=0.5)
    masked = server("generate-image", **SMALL, input_image=names[0], mask=names[1])
    assert [begun["workflow_name"], masked["workflow_name"]] == ["diffusers-sdxl-img2img", "diffusers-sdxl-inpaint"]
    assert pixels(server.picture(begun)) != pixels(server.picture(masked))


def test_one_side_is_enough_beside_a_picture(server: Server) -> None:
    name = server("upload-image", filename="wide.png", content=base64.b64encode(png(128, 64)).decode())["name"]
    result = server("generate-image", prompt="a red cat", steps=2, denoise=0.5, input_image=name, width=256)
    assert (result["images"][0]["width"], result["images"][0]["height"]) == (256, 128)
    error = server.error("generate-image", prompt="a red cat", input_image=name, mask="cat.png")
    assert error["details"] == {"field": "mask", "value": [64, 64], "closest": [128, 64]}


def test_several_pictures_at_once(server: Server) -> None:
    result = server("generate-image", **SMALL, batch_size=2)
    first, second = (pixels(server.picture(result, index)) for index in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"controlnet": {"name": "canny", "image": "cat.png"}}, "controlnet"),
        ({"hires": {"scale": 2.0}}, "hires"),
        ({"upscale_model": "4x"}, "upscale_model"),
        ({"input_image": "no-such.png"}, "input_image"),
        ({"loras": [{"name": "ana"}]}, "loras.0.name"),
        ({"loras": [{"name": "anna"}, {"name": "for-flux"}]}, "loras.1.name"),
        ({"steps": 0}, "steps"),
        ({"width": -8}, "width"),
    ],
)
def test_what_cannot_be_is_refused_by_name(server: Server, arguments: dict[str, Any], field: str) -> None:
    error = server.error("generate-image", **{**SMALL, **arguments})
    assert error["details"]["field"] == field
    assert f"`{field}`" in error["message"]
    assert error["hint"]


def test_comfyui_is_not_replaced_where_it_is_asked_for(server: Server) -> None:
    error = server.error("generate-image", **SMALL, engine="comfyui")
    assert error["code"] == "backend_unavailable"
    assert NOWHERE in error["message"]


def test_what_only_comfyui_does_says_so(server: Server) -> None:
    assert server.error("generate-video", prompt="a cat")["code"] == "backend_unavailable"
    assert server.error("execute-workflow", workflow={"1": {}})["code"] == "backend_unavailable"


def test_the_system_names_the_fallback(server: Server) -> None:
    health = httpx.get(f"{server.url}/health").json()["backend"]
    assert health["state"] == "unavailable"
    assert "`tiny-sdxl`" in health["detail"]
    assert "`tiny-sdxl`" in server.error("get-system-info")["hint"]
