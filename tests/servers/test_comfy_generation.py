"""generate-image and execute-workflow, from the arguments to the finished job."""

import base64
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from PIL import Image

from mcp_toolserver.errors import BackendRejected, InvalidArguments, NotFound
from mcp_toolserver.tools import Call
from tests.contract.comfyui.conftest import strong_lora
from tests.servers.comfy_tools import ENDLESS_STEPS, EngineUnderTest, Tools, comfy_tools, engine_process, graph, png

CHECKPOINT = "tinyflux-base.safetensors"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineUnderTest]:
    with engine_process(tmp_path_factory.mktemp("comfyui")) as running:
        loras = running.folder / "models" / "loras"
        (loras / "people").mkdir(parents=True, exist_ok=True)
        tags = '{"cats": {"zxqtoken cat": 12}}'
        (loras / "people" / "Anna Style.safetensors").write_bytes(strong_lora(1, {"ss_tag_frequency": tags}))
        (loras / "half.pt").write_bytes(strong_lora(2)[:5000])
        yield running


async def small(tools: Tools, **arguments: Any) -> dict[str, Any]:
    return await tools("generate-image", **{"prompt": "a red cat", "width": 64, "height": 64, "seed": 5, **arguments})


async def test_a_prompt_is_enough(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        result = await tools("generate-image", prompt="a red cat")
    assert result["status"] == "completed"
    assert result["workflow_name"] == "flux-txt2img"
    assert 0 <= result["seed"] < 2**53
    assert result["engine"] == "comfyui"
    assert not result["cached"]
    assert str(UUID(result["job_id"])) == result["job_id"]
    [image] = result["images"]
    assert (image["width"], image["height"]) == (1024, 1024)
    assert image["url"] == f"http://test/images/{image['id']}"


async def test_the_embedded_engine_says_what_it_is(tmp_path: Path) -> None:
    settings = EngineUnderTest("", tmp_path).settings(tmp_path, backend="embedded", comfyui_dir=None)
    async with comfy_tools(settings) as tools:
        result = await small(tools, width=128)
        info = await tools("get-system-info")
        executed = await tools("execute-workflow", workflow=graph())
        refused = await tools("list-loras")
    assert result["engine"] == "embedded"
    assert any("32 x 32" in warning and "128 x 64" in warning for warning in result["warnings"])
    assert any("32 x 32" in warning for warning in executed["warnings"])
    assert info["engine"] == "embedded"
    assert refused["total"] == 0


async def test_habits_from_stable_diffusion_are_corrected_aloud(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        result = await small(tools, cfg_scale=7.0, sampler="euler", scheduler="normal", negative_prompt="blurry")
    told = " ".join(result["warnings"])
    assert result["status"] == "completed"
    for field in ("`cfg_scale`", "`sampler`", "`scheduler`", "`negative_prompt`"):
        assert field in told


async def test_a_lora_is_found_by_the_name_that_people_write(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        result = await small(tools, loras=[{"filename": "people\\anna style.safetensors", "strength": 0.8}])
        same = await small(tools, loras=[{"name": "Anna Style", "strength": 0.8}])
    told = " ".join(result["warnings"])
    assert "`people/Anna Style.safetensors`" in told
    assert "trigger word" in told
    assert "zxqtoken" in told
    assert result["workflow_name"] == "flux-txt2img"
    assert same["cached"]


async def test_a_prompt_with_the_trigger_word_is_not_warned_of(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        result = await small(
            tools, prompt="a Zxqtoken cat", loras=[{"name": "people/Anna Style.safetensors", "strength": 1.0}]
        )
    assert not any("trigger word" in warning for warning in result["warnings"])


async def test_a_lora_that_is_not_there_is_refused_with_the_closest(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(NotFound) as refused:
            await small(tools, loras=[{"name": "people/Ana Style.safetensors"}])
        jobs = await tools("list-jobs")
    assert refused.value.details["closest_matches"][0] == "people/Anna Style.safetensors"
    assert refused.value.details["field"] == "loras.0.name"
    assert jobs["jobs"] == []


async def test_a_checkpoint_that_is_not_there_is_refused_with_the_closest(
    engine: EngineUnderTest, tmp_path: Path
) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(NotFound) as refused:
            await small(tools, model="tinyflux-bse.safetensors")
        assert (await small(tools, checkpoint=CHECKPOINT))["status"] == "completed"
    assert refused.value.details["closest_matches"] == [CHECKPOINT]


async def test_a_diffusion_model_is_loaded_with_its_encoders_and_vae(tmp_path: Path) -> None:
    with engine_process(tmp_path / "comfyui") as engine:
        models = engine.folder / "models"
        weights = (models / "checkpoints" / CHECKPOINT).read_bytes()
        for shipped in models.rglob("tinyflux-*"):
            shipped.unlink()
        async with comfy_tools(engine.settings(tmp_path / "data")) as tools:
            with pytest.raises(NotFound, match="no checkpoint and no diffusion model"):
                await small(tools)
            (models / "diffusion_models" / "flux1-mini.safetensors").write_bytes(weights)
            with pytest.raises(NotFound, match="clip_l") as refused:
                await small(tools)
            assert refused.value.details["missing"] == ["clip_l", "t5xxl", "ae"]
            for kind, name in (("text_encoders", "clip_l"), ("text_encoders", "t5xxl_fp16"), ("vae", "ae")):
                (models / kind / f"{name}.safetensors").write_bytes(weights)
            result = await small(tools)
            assert result["status"] == "completed"
            assert result["workflow_name"] == "flux-txt2img"


async def test_values_out_of_range_are_refused_by_name(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        for field, value in (("width", 65), ("steps", 0), ("guidance", 99.0), ("batch_size", 21)):
            with pytest.raises(InvalidArguments) as refused:
                await small(tools, **{field: value})
            assert field in refused.value.message
        with pytest.raises(InvalidArguments, match="`cfg_scale`"):
            await tools("generate-image", prompt="a cat", cfg=1.0)


@pytest.mark.parametrize(
    ("field", "value", "closest"),
    [("sampler", "eular", "euler"), ("scheduler", "simpel", "simple"), ("input_image", "nothing.png", None)],
)
async def test_a_value_that_comfyui_lacks_is_told_by_the_callers_own_name(
    engine: EngineUnderTest, tmp_path: Path, field: str, value: str, closest: str | None
) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(InvalidArguments) as refused:
            await small(tools, **{field: value})
        jobs = await tools("list-jobs")
    assert refused.value.message.startswith(f"Argument `{field}` is '{value}'")
    assert "?." not in refused.value.message
    assert refused.value.details["field"] == field
    if closest is not None:
        assert refused.value.details["closest_matches"][0] == closest
    assert value not in str(jobs["jobs"])


@pytest.mark.parametrize("image", ["sub/room.png", "room.png [output]"])
async def test_a_picture_that_is_in_another_folder_is_named(
    engine: EngineUnderTest, tmp_path: Path, image: str
) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        await tools("upload-image", filename="room.png", content=base64.b64encode(png()).decode(), overwrite=True)
        with pytest.raises(InvalidArguments) as refused:
            await tools("generate-image", prompt="x", input_image=image)
        workflow: dict[str, Any] = {
            "9": {"class_type": "LoadImage", "inputs": {"image": image}},
            "10": {"class_type": "PreviewImage", "inputs": {"images": ["9", 0]}},
        }
        with pytest.raises(InvalidArguments, match=f"`image` is {re.escape(repr(image))}") as in_graph:
            await tools("execute-workflow", workflow=workflow)
    details = refused.value.details
    assert (details["field"], details["value"], *details["closest_matches"]) == ("input_image", image, "room.png")
    assert in_graph.value.details["problems"][0]["closest_matches"] == ("room.png",)


async def test_another_engine_than_the_servers_own_is_refused(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        assert (await small(tools, engine="comfyui"))["status"] == "completed"
        with pytest.raises(InvalidArguments, match="embedded"):
            await small(tools, engine="embedded")


async def test_a_picture_can_start_from_an_uploaded_one(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        stored = await tools(
            "upload-image", filename=f"{uuid4().hex}.png", content=base64.b64encode(png(96, 80)).decode()
        )
        result = await tools("generate-image", prompt="a red cat", input_image=stored["name"], denoise=0.6, seed=1)
        with pytest.raises(InvalidArguments) as refused:
            await tools("generate-image", prompt="a red cat", input_image="no_such.png")
    assert (stored["width"], stored["height"]) == (96, 80)
    assert result["workflow_name"] == "flux-img2img"
    assert result["status"] == "completed"
    assert "no_such.png" in refused.value.message


async def test_a_wait_that_runs_out_loses_nothing(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        result = await small(tools, wait_s=0, seed=77)
        assert result["status"] in {"queued", "running"}
        assert result["images"] == []
        assert "wait-job" in result["message"]
        done = await tools("wait-job", job_id=result["job_id"])
    assert done["status"] == "completed"
    assert len(done["images"]) == 1


async def test_a_job_outlives_the_call_that_began_it(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools, anyio.create_task_group() as tasks:
        stepping = anyio.Event()

        async def report(done: float, total: float | None = None, message: str | None = None) -> None:
            if message and "step" in message:
                stepping.set()

        impatient = Tools(tools.toolbox, Call(report=report))

        async def generate() -> None:
            await impatient("execute-workflow", workflow=graph(steps=300))

        tasks.start_soon(generate)
        await stepping.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            [job] = (await tools("list-jobs"))["jobs"]
            assert job["status"] == "running"
            assert job["progress"]["total_steps"] == 300
            done = await tools("wait-job", job_id=job["job_id"])
            assert done["status"] == "completed"


async def test_progress_only_grows(engine: EngineUnderTest, tmp_path: Path) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def report(done: float, total: float | None = None, message: str | None = None) -> None:
        heard.append((done, total, message))

    async with comfy_tools(engine.settings(tmp_path), Call(report=report)) as tools:
        await tools("execute-workflow", workflow=graph(steps=60, seed=3))
    amounts = [done for done, _, _ in heard]
    assert amounts == sorted(set(amounts))
    assert {total for _, total, _ in heard} == {100.0}
    assert any(message and message.startswith("KSampler: step") for _, _, message in heard)


async def test_values_are_put_into_a_callers_graph(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        first = await tools("execute-workflow", workflow=graph(), inputs={"5": {"width": 96}, "6.seed": 9})
        assert (first["images"][0]["width"], first["images"][0]["height"]) == (96, 64)
        with pytest.raises(InvalidArguments) as refused:
            await tools("execute-workflow", workflow=graph(), inputs={"KSamplr": {"seed": 9}})
        assert refused.value.details["closest_matches"] == ["6"]
        with pytest.raises(InvalidArguments, match=r"inputs\.6"):
            await tools("execute-workflow", workflow=graph(), inputs={"6": 9})


@pytest.mark.parametrize(
    ("inputs", "matches", "hint"),
    [
        ({"2.txt": "a dog"}, ["2.text"], "Did you mean `2.text`?"),
        ({"2.inputs.text": "a dog"}, ["2.text"], "Did you mean `2.text`?"),
        ({"2": {"foo": 1}}, [], "It has `2.text`, `2.clip`."),
        ({"seed": 9}, ["6.seed"], "Did you mean `6.seed`?"),
        ({"text": "a dog"}, ["2.text", "3.text"], "Write which you mean: `2.text`, `3.text`."),
    ],
)
async def test_a_value_for_no_input_is_refused_with_the_closest(
    engine: EngineUnderTest, tmp_path: Path, inputs: dict[str, Any], matches: list[str], hint: str
) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(InvalidArguments) as refused:
            await tools("execute-workflow", workflow=graph(), inputs=inputs)
        assert (await tools("list-jobs"))["jobs"] == []
    assert (refused.value.details["closest_matches"], refused.value.hint) == (matches, hint)


async def test_an_input_that_the_graph_has_too_many_may_be_changed(engine: EngineUnderTest, tmp_path: Path) -> None:
    workflow = graph()
    workflow["2"]["inputs"]["note"] = "left by the page"
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        done = await tools("execute-workflow", workflow=workflow, inputs={"2.note": "changed"})
    assert any("no input `note`" in warning for warning in done["warnings"])


async def test_faults_of_a_graph_are_named_before_anything_is_queued(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        for change, field in (
            ({"6.negative": None}, "negative"),
            ({"6.sampler_name": "eulr"}, "sampler_name"),
            ({"6.cfg": float("nan")}, "cfg"),
            ({"6.model": ["99", 0]}, "model"),
        ):
            with pytest.raises(InvalidArguments) as refused:
                await tools("execute-workflow", workflow=graph(), inputs=change)
            assert field in {problem["input"] for problem in refused.value.details["problems"]}
        assert (await tools("list-jobs"))["jobs"] == []


async def test_an_error_tells_some_of_very_many_faults(engine: EngineUnderTest, tmp_path: Path) -> None:
    workflow: dict[str, Any] = graph() | {
        f"{number}": {"class_type": f"Strange{number}", "inputs": {}} for number in range(100, 400)
    }
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(InvalidArguments, match=r"290 more like these are left out") as refused:
            await tools("execute-workflow", workflow=workflow)
    assert (len(refused.value.details["problems"]), refused.value.details["problems_left_out"]) == (100, 200)


async def test_an_identical_run_says_that_nothing_was_rendered(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        first = await tools("execute-workflow", workflow=graph(seed=41))
        again = await tools("execute-workflow", workflow=graph(seed=41))
    assert not first["cached"]
    assert again["cached"]
    assert any("Nothing was rendered" in warning for warning in again["warnings"])
    assert again["images"][0]["id"] != first["images"][0]["id"]


async def test_a_job_that_fails_is_an_error_with_its_reason(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        broken = graph()
        broken["9"] = {
            "class_type": "LoraLoaderModelOnly",
            "inputs": {"model": ["1", 0], "lora_name": "half.pt", "strength_model": 1.0},
        }
        broken["6"]["inputs"]["model"] = ["9", 0]
        with pytest.raises(BackendRejected) as refused:
            await tools("execute-workflow", workflow=broken)
        job = await tools("get-job", job_id=refused.value.details["job_id"])
    assert job["status"] == "failed"
    assert job["error"].startswith("LoraLoaderModelOnly (node 9) failed: ")
    assert job["error"] in refused.value.message


async def test_an_overwritten_lora_shows_its_new_weights(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        name = f"{uuid4().hex}.safetensors"
        pixels: list[bytes] = []
        for seed in (3, 4):
            content = base64.b64encode(strong_lora(seed)).decode()
            await tools("upload-lora", filename=name, content=content, overwrite=True)
            result = await small(tools, loras=[{"name": name}], seed=6)
            assert not result["cached"]
            [file] = (engine.folder / "output").glob(f"loraloop_{result['job_id'][:8]}*")
            with Image.open(file) as picture:
                pixels.append(picture.tobytes())
    assert pixels[0] != pixels[1]


async def test_an_endless_job_can_be_begun_and_left(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        result = await tools("execute-workflow", workflow=graph(steps=ENDLESS_STEPS), wait_s=0.2)
        assert result["status"] == "running"
        assert (await tools("cancel-job", job_id=result["job_id"]))["cancelled"]
