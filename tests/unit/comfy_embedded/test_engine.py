"""What only the embedded engine promises: honesty about itself, and files read anew when they change."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from tests.contract.comfyui.conftest import write_lora
from tests.contract.comfyui.talk import Comfy, Ended, Graph


async def _picture(comfy: Comfy, ended: Ended) -> Image.Image:
    picture = Image.open(io.BytesIO(await comfy.picture(ended.images[0])))
    picture.load()
    return picture


async def test_the_server_says_what_it_is(comfy: Comfy) -> None:
    system = (await comfy.get("/system_stats"))["system"]
    assert (system["engine"], system["embedded"]) == ("embedded", True)
    assert system["comfyui_version"].startswith("0.30")


async def test_a_picture_says_how_it_was_made(comfy: Comfy) -> None:
    ended = await comfy.run(comfy.graph(seed=1))
    note = "rendered by tinyflux at 32 x 32 pixels, scaled to 64 x 64"
    output = ended.history["outputs"]["9"]
    assert (output["engine"], output["note"]) == (["embedded"], [note])
    picture = await _picture(comfy, ended)
    assert (picture.info["engine"], picture.info["note"]) == ("embedded", note)


async def test_a_picture_that_was_only_loaded_is_not_claimed(comfy: Comfy, data_dir: Path) -> None:
    Image.new("RGB", (40, 30), (1, 2, 3)).save(data_dir / "input" / "loaded.png")
    graph: Graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "loaded.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "loaded"}},
    }
    ended = await comfy.run(graph)
    assert "engine" not in ended.history["outputs"]["2"]
    picture = await _picture(comfy, ended)
    assert "engine" not in picture.info
    assert picture.getpixel((0, 0)) == (1, 2, 3)


async def test_pixels_are_repeated_and_stay_square(comfy: Comfy) -> None:
    graph = comfy.graph(seed=2)
    graph["27"]["inputs"] |= {"width": 256, "height": 128}
    pixels = np.asarray(await _picture(comfy, await comfy.run(graph)))
    assert pixels.shape == (128, 256, 3)
    blocks = pixels.reshape(16, 8, 32, 8, 3)
    assert np.array_equal(blocks, np.broadcast_to(blocks[:, :1, :, :1], blocks.shape))


async def test_a_graph_may_load_its_parts_one_by_one(comfy: Comfy) -> None:
    whole = comfy.graph(seed=3)
    parts = comfy.graph(seed=3)
    del parts["30"]
    parts |= {
        "50": {
            "class_type": "UNETLoader",
            "inputs": {"unet_name": "tinyflux-base.safetensors", "weight_dtype": "default"},
        },
        "51": {
            "class_type": "DualCLIPLoader",
            "inputs": {
                "clip_name1": "tinyflux-t5xxl.safetensors",
                "clip_name2": "tinyflux-clip_l.safetensors",
                "type": "flux",
            },
        },
        "52": {"class_type": "VAELoader", "inputs": {"vae_name": "tinyflux-ae.safetensors"}},
    }
    parts["40"]["inputs"] |= {"model": ["50", 0], "clip": ["51", 0]}
    parts["8"]["inputs"]["vae"] = ["52", 0]
    pictures = [(await _picture(comfy, await comfy.run(graph))).tobytes() for graph in (whole, parts)]
    assert pictures[0] == pictures[1]


async def test_an_overwritten_lora_is_read_anew(comfy: Comfy, data_dir: Path) -> None:
    path = data_dir / "models" / "loras" / "changing.safetensors"
    graph = comfy.graph(seed=4)
    graph["40"]["inputs"]["lora_name"] = path.name
    pictures: list[bytes] = []
    for seed in (1, 2):
        write_lora(path, seed)
        ended = await comfy.run(graph)
        pictures.append((await _picture(comfy, ended)).tobytes())
    assert pictures[0] != pictures[1]


async def test_a_lora_of_another_model_changes_nothing(comfy: Comfy, data_dir: Path) -> None:
    big = {f"transformer.single_transformer_blocks.0.attn.to_q.lora_{half}.weight": (16, 3072) for half in "AB"}
    loras = {
        "stable-diffusion.safetensors": {"lora_unet_mid_block.lora_down.weight": (4, 320)},
        "real-flux.safetensors": big,
    }
    plain = comfy.graph(seed=5)
    plain["40"]["inputs"]["strength_model"] = 0.0
    expected = (await _picture(comfy, await comfy.run(plain))).tobytes()
    for name, shapes in loras.items():
        tensors = {key: np.ones(shape, np.float16) for key, shape in shapes.items()}
        (data_dir / "models" / "loras" / name).write_bytes(save(tensors))
        graph = comfy.graph(seed=5)
        graph["40"]["inputs"]["lora_name"] = name
        assert (await _picture(comfy, await comfy.run(graph))).tobytes() == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sdxl.safetensors", "renders only tinyflux-1 weights, and this file does not say what it is"),
        ("old.ckpt", "no readable safetensors file"),
    ],
)
async def test_a_checkpoint_of_another_model_fails_in_clear_words(
    comfy: Comfy, data_dir: Path, name: str, words: str
) -> None:
    path = data_dir / "models" / "checkpoints" / name
    if path.suffix == ".safetensors":
        path.write_bytes(save({"model.weight": np.zeros((4, 4), np.float16)}))
    else:
        path.write_bytes(b"\x80\x02}q\x00.")
    graph = comfy.graph(seed=6)
    graph["30"]["inputs"]["ckpt_name"] = name
    failure = (await comfy.run(graph)).message("execution_error")
    assert (failure["node_type"], failure["exception_type"]) == ("CheckpointLoaderSimple", "RuntimeError")
    assert name in failure["exception_message"]
    assert words in failure["exception_message"]


async def test_a_request_under_another_name_for_this_machine_is_refused(comfy: Comfy) -> None:
    response = await comfy.http.get("/queue", headers={"Host": "rebound.example"})
    assert (response.status_code, response.text) == (403, "")
