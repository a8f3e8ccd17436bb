"""The adapter against a server: submit, follow, read refusals, files, listings."""

from collections.abc import Generator
from io import BytesIO
from uuid import UUID, uuid4

import pytest
from PIL import Image

from comfy_mcp.engines.comfyui_events import Cached, Executing, Preview, Started, Step
from comfy_mcp.image_sizes import size_of
from comfy_mcp.workflows import Graph
from mcp_toolserver.errors import InvalidArguments
from tests.conftest import server_process
from tests.contract.engine_room import REAL_URL, Story, connected, data_dir, picture, run


@pytest.fixture(scope="module", params=["embedded", *(["real"] if REAL_URL else [])])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    if request.param == "real" and REAL_URL:
        yield REAL_URL.rstrip("/")
        return
    with server_process("comfy_mcp.embedded", *data_dir(tmp_path_factory.mktemp("engine"))) as (_, address):
        yield address


def node_id_of(graph: Graph, class_type: str) -> str:
    return next(node_id for node_id, node in graph.items() if node["class_type"] == class_type)


async def test_a_prompt_is_heard_from_start_to_end(url: str) -> None:
    async with connected(url) as comfyui:
        graph = await picture(comfyui, seed=1, steps=3)
        story = Story()
        ending = await run(comfyui, graph, story)
        assert ending.status == "completed"
        assert not ending.cached
        assert isinstance(story.events[0], Started)
        steps = [event for event in story.events if isinstance(event, Step)]
        assert (steps[-1].value, steps[-1].maximum) == (3, 3)
        ran = {event.node for event in story.events if isinstance(event, Executing)}
        # A server that has run before may have the checkpoint loaded.
        cached = {node for event in story.events if isinstance(event, Cached) for node in event.nodes}
        assert ran | cached == set(graph)
        assert node_id_of(graph, "KSampler") in ran
        assert await size_of(comfyui, ending.outputs[0]) == (64, 64)


async def test_previews_are_pictures(url: str) -> None:
    async with connected(url) as comfyui:
        story = Story()
        await run(comfyui, await picture(comfyui, seed=2, steps=4), story)
        previews = [event for event in story.events if isinstance(event, Preview)]
        assert previews
        with Image.open(BytesIO(previews[-1].image)) as shown:
            assert f"image/{(shown.format or '').lower()}" == previews[-1].mime_type


async def test_two_prompts_at_once_hear_only_their_own(url: str) -> None:
    async with connected(url) as comfyui:
        ids = [str(uuid4()), str(uuid4())]
        stories = [Story(), Story()]
        with comfyui.watch(ids[0]) as first, comfyui.watch(ids[1]) as second:
            for index, prompt_id in enumerate(ids):
                await comfyui.submit(await picture(comfyui, seed=10 + index), prompt_id)
            endings = [await first.ended(stories[0]), await second.ended(stories[1])]
        assert [ending.status for ending in endings] == ["completed", "completed"]
        assert endings[0].outputs != endings[1].outputs
        for prompt_id, story in zip(ids, stories, strict=True):
            assert {event.prompt_id for event in story.events} == {prompt_id}


async def test_an_identical_run_is_told_from_a_new_one(url: str) -> None:
    async with connected(url) as comfyui:
        graph = await picture(comfyui, seed=3)
        first = await run(comfyui, graph)
        story = Story()
        again = await run(comfyui, graph, story)
        assert not first.cached
        assert again.cached
        assert again.outputs == first.outputs
        assert any(isinstance(event, Cached) and event.nodes for event in story.events)
        graph[node_id_of(graph, "SaveImage")]["inputs"]["filename_prefix"] = f"other_{uuid4()}"
        saved_anew = await run(comfyui, graph)
        assert saved_anew.cached
        assert saved_anew.outputs != first.outputs
        graph[node_id_of(graph, "KSampler")]["inputs"]["seed"] = 4
        assert not (await run(comfyui, graph)).cached


async def test_a_value_that_is_not_in_a_list_is_refused_with_the_closest(url: str) -> None:
    async with connected(url) as comfyui:
        graph = await picture(comfyui, seed=5, sampler_name="eulr")
        with pytest.raises(InvalidArguments) as refused:
            await comfyui.submit(graph, str(uuid4()))
        problem = refused.value.details["problems"][0]
        assert problem["code"] == "value_not_in_list"
        assert problem["input"] == "sampler_name"
        assert problem["class_type"] == "KSampler"
        assert "euler" in problem["closest_matches"]
        assert "`eulr`" in refused.value.message or "'eulr'" in refused.value.message


async def test_a_node_that_is_not_installed_is_refused_with_the_closest(url: str) -> None:
    async with connected(url) as comfyui:
        graph = await picture(comfyui, seed=5)
        graph[node_id_of(graph, "KSampler")]["class_type"] = "KSamplr"
        with pytest.raises(InvalidArguments) as refused:
            await comfyui.submit(graph, str(uuid4()))
        problem = refused.value.details["problems"][0]
        assert problem["code"] == "missing_node_type"
        assert problem["closest_matches"][0] == "KSampler"


async def test_a_graph_without_output_is_refused_with_the_cure(url: str) -> None:
    async with connected(url) as comfyui:
        graph = await picture(comfyui, seed=5)
        del graph[node_id_of(graph, "SaveImage")]
        with pytest.raises(InvalidArguments) as refused:
            await comfyui.submit(graph, str(uuid4()))
        assert refused.value.details["backend_error"] == "prompt_no_outputs"
        assert "SaveImage" in (refused.value.hint or "")


async def test_a_dropped_output_is_a_warning(url: str) -> None:
    async with connected(url) as comfyui:
        graph = await picture(comfyui, seed=6)
        graph["97"] = {"class_type": "VAELoader", "inputs": {"vae_name": "nope.safetensors"}}
        decoder = graph[node_id_of(graph, "VAEDecode")]["inputs"]
        graph["98"] = {"class_type": "VAEDecode", "inputs": {**decoder, "vae": ["97", 0]}}
        graph["99"] = {"class_type": "SaveImage", "inputs": {"images": ["98", 0], "filename_prefix": "bad"}}
        prompt_id = str(uuid4())
        with comfyui.watch(prompt_id) as watch:
            warnings = await comfyui.submit(graph, prompt_id)
            ending = await watch.ended(Story())
        assert ending.status == "completed"
        assert len(warnings) == 1
        assert "99" in warnings[0]
        assert "nope.safetensors" in warnings[0]


async def test_a_failure_names_its_node_in_one_sentence(url: str) -> None:
    async with connected(url) as comfyui:
        ending = await run(comfyui, await picture(comfyui, seed=7, negative=None))
        assert ending.status == "failed"
        assert ending.error is not None
        assert ending.error.startswith("KSampler (node ")
        assert "\n" not in ending.error
        assert ending.details is not None
        assert ending.details["node_type"] == "KSampler"


async def test_an_unknown_prompt_is_nowhere(url: str) -> None:
    async with connected(url) as comfyui:
        assert await comfyui.locate(str(uuid4())) is None


async def test_an_uploaded_image_keeps_its_bytes_and_gets_a_name(url: str) -> None:
    async with connected(url) as comfyui:
        buffers = [BytesIO(), BytesIO()]
        Image.new("RGB", (16, 8), "red").save(buffers[0], "PNG")
        Image.new("RGB", (16, 8), "blue").save(buffers[1], "PNG")
        name = f"engine_{uuid4().hex}.png"
        first = await comfyui.upload_image(name, buffers[0].getvalue())
        second = await comfyui.upload_image(name, buffers[1].getvalue())
        assert first.reference == name
        assert second.reference != name
        replaced = await comfyui.upload_image(name, buffers[1].getvalue(), overwrite=True)
        assert replaced.reference == name


async def test_listings_are_typed(url: str) -> None:
    async with connected(url) as comfyui:
        assert {"checkpoints", "loras"} <= set(await comfyui.model_folders())
        assert await comfyui.models("nonexistent") is None
        checkpoints = await comfyui.models("checkpoints")
        assert checkpoints
        sizes = await comfyui.model_sizes("checkpoints")
        assert sizes[checkpoints[0]] > 1000
        assert (await comfyui.folder_paths())["loras"]
        UUID(comfyui.client_id)


async def test_node_classes_are_read_once_and_again_when_asked(url: str) -> None:
    async with connected(url) as comfyui:
        known = await comfyui.object_info()
        assert await comfyui.object_info() is known
        assert await comfyui.object_info(refresh=True) is not known


async def test_freeing_memory_makes_the_next_run_whole(url: str) -> None:
    async with connected(url) as comfyui:
        graph = await picture(comfyui, seed=8)
        await run(comfyui, graph)
        await comfyui.free()
        assert (await comfyui.system_stats())["system"]["comfyui_version"]
        assert not (await run(comfyui, graph)).cached
