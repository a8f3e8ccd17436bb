"""What goes in and comes out: uploads, /view, and the listings of models and node classes."""

import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.contract.comfyui.conftest import strong_lora
from tests.contract.comfyui.talk import Comfy

LIMIT_BYTES = 104_857_600


def _png(colour: tuple[int, ...], size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


async def _upload(comfy: Comfy, name: str, content: bytes, path: str = "/upload/image", **form: str) -> httpx.Response:
    return await comfy.http.post(path, files={"image": (name, content, "image/png")}, data=form)


async def test_upload_keeps_both_files_of_one_name(comfy: Comfy) -> None:
    name, red, blue = f"{comfy.client_id}.png", _png((255, 0, 0)), _png((0, 0, 255))
    renamed = f"{comfy.client_id} (1).png"
    for content, form, expected in (
        (red, {}, name),
        (red, {}, name),
        (blue, {}, renamed),
        (blue, {}, renamed),
        (blue, {"overwrite": "True"}, renamed),
        (blue, {"overwrite": "true"}, name),
        (red, {"overwrite": "1"}, name),
    ):
        answer = (await _upload(comfy, name, content, **form)).json()
        assert answer == {"name": expected, "subfolder": "", "type": "input"}
    shown = await comfy.picture({"filename": name, "subfolder": "", "type": "input"})
    assert shown == red
    classes = await comfy.get("/object_info/LoadImage")
    assert {name, renamed} <= set(classes["LoadImage"]["input"]["required"]["image"][0])


@pytest.mark.parametrize("folder_type", ["input", "output", "temp"])
async def test_upload_into_a_folder_is_loaded_from_there(comfy: Comfy, folder_type: str) -> None:
    name, subfolder = f"{comfy.client_id}.png", "mcp/x"
    answer = (await _upload(comfy, name, _png((9, 8, 7)), subfolder=subfolder, type=folder_type)).json()
    assert answer == {"name": name, "subfolder": subfolder, "type": folder_type}
    graph = _image_to_image(comfy, f"{subfolder}/{name} [{folder_type}]")
    assert (await comfy.run(graph)).history["status"]["completed"] is True


@pytest.mark.parametrize(
    ("name", "form", "status"),
    [
        ("a.png", {"subfolder": "../.."}, 400),
        ("a.png", {"type": "bogus"}, 500),
        ("", {}, 500),
    ],
)
async def test_upload_refuses(comfy: Comfy, name: str, form: dict[str, str], status: int) -> None:
    assert (await _upload(comfy, name, b"x", **form)).status_code == status


async def test_upload_refuses_another_field(comfy: Comfy) -> None:
    response = await comfy.http.post("/upload/image", files={"picture": ("a.png", b"x", "image/png")})
    assert (response.status_code, response.text) == (400, "")


async def test_upload_has_a_limit(comfy: Comfy) -> None:
    response = await _upload(comfy, "big.bin", bytes(LIMIT_BYTES))
    assert (response.status_code, response.text) == (413, f"Maximum request body size {LIMIT_BYTES} exceeded.")
    features = await comfy.get("/features")
    assert features["max_upload_size"] == LIMIT_BYTES


async def test_upload_mask_puts_its_transparency_on_the_original(comfy: Comfy) -> None:
    name = f"{comfy.client_id}.png"
    await _upload(comfy, name, _png((255, 0, 0)))
    reference = json.dumps({"filename": name, "subfolder": "", "type": "input"})
    mask = _png((0, 0, 0, 0))
    form = {"original_ref": reference, "subfolder": "clipspace"}
    answer = (await _upload(comfy, name, mask, "/upload/mask", **form)).json()
    assert answer == {"name": name, "subfolder": "clipspace", "type": "input"}
    with Image.open(
        io.BytesIO(await comfy.picture({"filename": name, "subfolder": "clipspace", "type": "input"}))
    ) as out:
        assert out.convert("RGBA").getpixel((5, 5)) == (255, 0, 0, 0)


def _image_to_image(comfy: Comfy, image: str) -> dict[str, Any]:
    graph = comfy.graph(denoise=0.5, latent_image=["11", 0])
    graph["10"] = {"class_type": "LoadImage", "inputs": {"image": image}}
    graph["11"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["30", 2]}}
    return graph


@pytest.mark.parametrize("image", ["missing.png", "../output/x.png"])
async def test_a_graph_with_a_missing_picture_is_refused(comfy: Comfy, image: str) -> None:
    response = await comfy.post("/prompt", {"prompt": _image_to_image(comfy, image)})
    assert response.status_code == 400
    assert response.json()["node_errors"]["10"] == {
        "errors": [
            {
                "type": "custom_validation_failed",
                "message": "Custom validation failed for node",
                "details": f"image - Invalid image file: {image}",
                "extra_info": {"input_name": "image"},
            }
        ],
        "dependent_outputs": ["9"],
        "class_type": "LoadImage",
    }


async def test_a_file_that_is_no_picture_fails_when_it_is_loaded(comfy: Comfy) -> None:
    name = f"{comfy.client_id}.txt"
    await _upload(comfy, name, b"no picture")
    ended = await comfy.run(_image_to_image(comfy, name))
    assert ended.message("execution_error")["node_type"] == "LoadImage"


async def test_view_shows_what_was_saved(comfy: Comfy) -> None:
    image = (await comfy.run(comfy.graph(seed=301))).images[0]
    name = image["filename"]
    whole = await comfy.http.get("/view", params={"filename": name})
    assert whole.headers["content-type"] == "image/png"
    assert f'filename="{name}"' in whole.headers["content-disposition"]
    small = await comfy.http.get("/view", params={"filename": name, "preview": "webp;50"})
    assert (small.headers["content-type"], small.content[8:12]) == ("image/webp", b"WEBP")
    plain = await comfy.http.get("/view", params={"filename": name, "channel": "rgb"})
    with Image.open(io.BytesIO(plain.content)) as picture:
        assert (picture.mode, picture.info) == ("RGB", {})


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 404),
        ({"filename": "nope.png"}, 404),
        ({"filename": "../x.png"}, 400),
        ({"filename": "x.png", "type": "bogus"}, 400),
        ({"filename": "x.png", "subfolder": "../.."}, 403),
    ],
)
async def test_view_refuses(comfy: Comfy, query: dict[str, str], status: int) -> None:
    response = await comfy.http.get("/view", params=query)
    assert (response.status_code, response.text) == (status, "")


async def test_an_uploaded_lora_is_listed_described_and_runs(comfy: Comfy) -> None:
    name = f"{comfy.client_id}.safetensors"
    content = strong_lora(1, {"ss_output_name": "uploaded"})
    answer = await _upload(comfy, name, content, type="output", subfolder="loras")
    assert answer.json() == {"name": name, "subfolder": "loras", "type": "output"}
    assert name in await comfy.get("/models/loras")
    assert name in await comfy.get("/api/models/loras")
    paths = (await comfy.get("/internal/folder_paths"))["loras"]
    sized = next(entry for entry in await comfy.get("/experiment/models/loras") if entry["name"] == name)
    assert sized["size"] == len(content)
    assert paths[sized["pathIndex"]].endswith("output/loras")
    classes = await comfy.get("/object_info")
    assert name in classes["LoraLoader"]["input"]["required"]["lora_name"][0]
    assert await comfy.get("/view_metadata/loras", filename=name) == {"ss_output_name": "uploaded"}
    graph = comfy.graph(seed=302)
    graph["40"]["inputs"]["lora_name"] = name
    assert (await comfy.run(graph)).history["status"]["completed"] is True


@pytest.mark.parametrize(
    ("content", "type_end"),
    [
        (b"", "SafetensorError"),
        (b"<!doctype html><html><body>Not found</body></html>", "SafetensorError"),
        (strong_lora(2)[:5000], "SafetensorError"),
    ],
)
async def test_a_broken_lora_is_listed_and_fails_when_it_is_loaded(comfy: Comfy, content: bytes, type_end: str) -> None:
    name = f"{comfy.client_id}.safetensors"
    await _upload(comfy, name, content, type="output", subfolder="loras")
    graph = comfy.graph(seed=303)
    graph["40"]["inputs"]["lora_name"] = name
    failure = (await comfy.run(graph)).message("execution_error")
    assert failure["node_type"] == "LoraLoader"
    assert failure["exception_type"].endswith(type_end)


@pytest.mark.parametrize(
    "path",
    [
        "/models/nonexistent",
        "/models/unet",
        "/experiment/models/nonexistent",
        "/view_metadata/loras?filename=nope.safetensors",
        "/view_metadata/loras?filename=../checkpoints/x.safetensors",
        "/view_metadata/loras",
        "/view_metadata/nosuchfolder?filename=a.safetensors",
    ],
)
async def test_listings_do_not_know(comfy: Comfy, path: str) -> None:
    response = await comfy.http.get(path)
    assert (response.status_code, response.text) == (404, "")


async def test_listings_have_their_forms(comfy: Comfy) -> None:
    assert {"checkpoints", "loras", "vae", "text_encoders", "diffusion_models"} <= set(await comfy.get("/models"))
    assert await comfy.get("/object_info/NoSuchNode") == {}
    assert await comfy.get("/api/queue") == {"queue_running": [], "queue_pending": []}
    system = await comfy.get("/system_stats")
    assert system["system"]["comfyui_version"]
    assert system["devices"][0]["vram_total"] >= 0
    sampler = (await comfy.get("/object_info/KSampler"))["KSampler"]
    required = sampler["input"]["required"]
    assert sampler["input_order"]["required"] == list(required)
    assert required["seed"][1]["max"] == 2**64 - 1
    assert {"euler", "euler_ancestral", "heun", "heunpp2", "dpmpp_2m"} <= set(required["sampler_name"][0])
    assert {"simple", "normal", "karras", "beta", "sgm_uniform"} <= set(required["scheduler"][0])
    assert (sampler["output"], sampler["output_node"]) == (["LATENT"], False)
    saver = (await comfy.get("/object_info/SaveImage"))["SaveImage"]
    assert saver["output_node"] is True
    assert saver["input"]["hidden"] == {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
