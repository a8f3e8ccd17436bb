"""What graphs render: LoRAs, guidance, loaders, sizes, and pictures that say how they were made."""

import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.contract.comfyui.talk import Comfy, Ended, Graph


async def _pixels(comfy: Comfy, ended: Ended, number: int = 0) -> NDArray[np.int16]:
    assert ended.history["status"]["completed"] is True, ended.history["status"]
    with Image.open(io.BytesIO(await comfy.picture(ended.images[number]))) as picture:
        return np.asarray(picture.convert("RGB")).astype(np.int16)


async def _rendered(comfy: Comfy, graph: Graph) -> NDArray[np.int16]:
    return await _pixels(comfy, await comfy.run(graph))


async def test_strength_0_is_no_lora_and_strength_1_is_another_picture(comfy: Comfy) -> None:
    without = comfy.graph(seed=401)
    without["31"]["inputs"]["model"] = ["30", 0]
    for node_id in ("6", "33"):
        without[node_id]["inputs"]["clip"] = ["30", 1]
    del without["40"]
    off, on = comfy.graph(seed=401), comfy.graph(seed=401)
    off["40"]["inputs"] |= {"strength_model": 0.0, "strength_clip": 0.0}
    base = await _rendered(comfy, without)
    assert np.array_equal(base, await _rendered(comfy, off))
    assert np.abs(base - await _rendered(comfy, on)).mean() > 1.0


async def test_a_lora_may_be_put_on_the_model_alone_and_twice(comfy: Comfy) -> None:
    twice = comfy.graph(seed=402)
    inputs = {"lora_name": comfy.names.lora, "strength_model": 0.5, "model": ["40", 0]}
    twice["41"] = {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
    twice["40"]["inputs"]["strength_model"] = 0.5
    twice["31"]["inputs"]["model"] = ["41", 0]
    once = await _rendered(comfy, comfy.graph(seed=402))
    assert np.abs(once - await _rendered(comfy, twice)).max() <= 8


async def test_seeds_differ_and_repeat(comfy: Comfy) -> None:
    first = await _rendered(comfy, comfy.graph(seed=403))
    other = await _rendered(comfy, comfy.graph(seed=2**64 - 1))
    again = await _rendered(comfy, comfy.graph(seed=403))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


async def test_negative_counts_when_cfg_is_not_1(comfy: Comfy) -> None:
    plain = await _rendered(comfy, comfy.graph(seed=404))
    assert not np.array_equal(plain, await _rendered(comfy, comfy.graph(seed=404, cfg=3.0)))
    zeroed = comfy.graph(seed=404, negative=["34", 0])
    zeroed["34"] = {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["6", 0]}}
    assert np.array_equal(plain, await _rendered(comfy, zeroed))


async def test_guidance_counts_in_one_pass(comfy: Comfy) -> None:
    strong = comfy.graph(seed=405)
    strong["35"]["inputs"]["guidance"] = 1.0
    assert not np.array_equal(await _rendered(comfy, comfy.graph(seed=405)), await _rendered(comfy, strong))


async def test_every_listed_sampler_and_scheduler_renders(comfy: Comfy) -> None:
    required = (await comfy.get("/object_info/KSampler"))["KSampler"]["input"]["required"]
    for sampler in ("euler", "euler_ancestral", "heun", "heunpp2", "dpmpp_2m"):
        ended = await comfy.run(comfy.graph(seed=406, steps=3, sampler_name=sampler))
        assert ended.history["status"]["completed"] is True, sampler
    for scheduler in required["scheduler"][0]:
        ended = await comfy.run(comfy.graph(seed=406, steps=3, scheduler=scheduler))
        assert ended.history["status"]["completed"] is True, scheduler


@pytest.mark.parametrize("class_type", ["EmptyLatentImage", "EmptySD3LatentImage"])
@pytest.mark.parametrize(("size", "saved"), [((96, 64), (96, 64)), ((64, 112), (64, 112)), ((72, 65), (72, 64))])
async def test_a_picture_has_the_size_that_was_asked_for(
    comfy: Comfy, class_type: str, size: tuple[int, int], saved: tuple[int, int]
) -> None:
    graph = comfy.graph(seed=407)
    graph["27"] = {"class_type": class_type, "inputs": {"width": size[0], "height": size[1], "batch_size": 2}}
    ended = await comfy.run(graph)
    assert len(ended.images) == 2
    first, second = [await _pixels(comfy, ended, number) for number in (0, 1)]
    assert first.shape == (saved[1], saved[0], 3)
    assert not np.array_equal(first, second)


async def test_a_picture_carries_its_graph_and_workflow(comfy: Comfy) -> None:
    workflow: dict[str, Any] = {"nodes": [], "version": 0.4}
    graph = comfy.graph(seed=408)
    ended = await comfy.run(graph, extra_data={"extra_pnginfo": {"workflow": workflow}})
    with Image.open(io.BytesIO(await comfy.picture(ended.images[0]))) as picture:
        assert json.loads(picture.info["prompt"]) == graph
        assert json.loads(picture.info["workflow"]) == workflow


async def test_file_names_count_on_within_their_subfolder(comfy: Comfy) -> None:
    names: list[str] = []
    for seed in (409, 410):
        graph = comfy.graph(seed=seed)
        graph["9"]["inputs"]["filename_prefix"] = f"{comfy.client_id}/cat"
        image = (await comfy.run(graph)).images[0]
        assert (image["subfolder"], image["type"]) == (comfy.client_id, "output")
        names.append(image["filename"])
    assert names == ["cat_00001_.png", "cat_00002_.png"]


async def test_a_preview_goes_to_the_temp_folder(comfy: Comfy) -> None:
    graph = comfy.graph(seed=411)
    graph["9"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
    ended = await comfy.run(graph)
    image = ended.images[0]
    assert image["type"] == "temp"
    assert image["filename"].startswith("ComfyUI_temp_")
    assert (await _pixels(comfy, ended)).shape == (64, 64, 3)


async def test_tiles_and_scaling_change_the_size_alone(comfy: Comfy) -> None:
    graph = comfy.graph(seed=412)
    tiles = {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
    graph["8"] = {"class_type": "VAEDecodeTiled", "inputs": {"samples": ["31", 0], "vae": ["30", 2], **tiles}}
    scale = {"upscale_method": "nearest-exact", "width": 128, "height": 64, "crop": "center"}
    graph["12"] = {"class_type": "ImageScale", "inputs": {"image": ["8", 0], **scale}}
    graph["9"]["inputs"]["images"] = ["12", 0]
    assert (await _rendered(comfy, graph)).shape == (64, 128, 3)


async def test_a_little_denoise_keeps_the_picture_that_it_begins_with(comfy: Comfy) -> None:
    begun = await comfy.run(comfy.graph(seed=413, steps=8))
    first = await _pixels(comfy, begun)
    changes: list[float] = []
    for denoise in (0.2, 1.0):
        graph = comfy.graph(seed=414, steps=8, denoise=denoise, latent_image=["11", 0])
        graph["10"] = {"class_type": "LoadImage", "inputs": {"image": f"{begun.images[0]['filename']} [output]"}}
        graph["11"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["30", 2]}}
        changes.append(float(np.abs(first - await _rendered(comfy, graph)).mean()))
    assert changes[0] < changes[1]
