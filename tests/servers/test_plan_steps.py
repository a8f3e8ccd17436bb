"""A config goes to a site as its training step and comes back the same; what a step cannot carry is named."""

from pathlib import Path
from typing import Any

import pytest

from mcp_toolserver.errors import InvalidArguments, NotFound
from mcp_toolserver.tools import Toolbox
from tests.servers.aitk import call, image, toolbox_in

URN = "urn:air:flux1:checkpoint:civitai:1330309@2164239"


@pytest.fixture
async def tools(tmp_path: Path) -> Toolbox:
    made = toolbox_in(tmp_path)
    images = [image(f"{number}.png", f"tok, a cat {number}") for number in range(20)]
    await call(made, "upload-dataset", dataset_name="cat", images=images)
    return made


def step_in(**given: Any) -> dict[str, Any]:
    """Return a step as a site's orchestrator writes it."""
    settings = {
        "engine": "ai-toolkit",
        "ecosystem": "flux1",
        "model": URN,
        "modelVariant": "dev",
        "trainingData": {"type": "zip", "sourceUrl": "https://example.test/cat.zip", "count": 20},
        "samples": {"prompts": ["tok asleep", "tok on a roof"]},
        "epochs": 10,
        "resolution": 1024,
        "lr": 0.0002,
        "textEncoderLr": None,
        "trainTextEncoder": False,
        "lrScheduler": "cosine",
        "optimizerType": "adamw8bit",
        "networkDim": 32,
        "networkAlpha": 32,
        "noiseOffset": 0.05,
        "minSnrGamma": None,
        "flipAugmentation": False,
        "shuffleTokens": True,
        "keepTokens": 0,
        **given,
    }
    return {
        "$type": "training",
        "metadata": {"modelFileId": 7},
        "priority": "high",
        "retries": 2,
        "input": {key: value for key, value in settings.items() if value != "absent"},
    }


async def test_a_step_becomes_a_config_and_the_same_step_again(tools: Toolbox) -> None:
    step = step_in()
    made = await call(tools, "import-training-step", step=step, name="cat_v1", dataset_path="cat")
    process = made["config"]["config"]["process"][0]
    assert process["train"]["steps"] == 200
    assert process["model"]["name_or_path"] == "black-forest-labs/FLUX.1-dev"
    assert any(URN in warning for warning in made["warnings"])
    back = await call(
        tools,
        "export-training-step",
        config_name="cat_v1",
        model=URN,
        training_data_url="https://example.test/cat.zip",
        metadata={"modelFileId": 7},
        priority="high",
        retries=2,
    )
    assert back["step"] == step
    assert (back["not_carried"], back["warnings"]) == ([], [])


@pytest.mark.parametrize(
    ("ecosystem", "variant"),
    [("sd1", None), ("sdxl", None), ("sd3", "large"), ("sd3", "medium"), ("flux1", "schnell"), ("wan", "2.2")],
)
async def test_every_ecosystem_survives_the_way_there_and_back(
    tools: Toolbox, ecosystem: str, variant: str | None
) -> None:
    given = {"ecosystem": ecosystem, "model": "absent", "modelVariant": variant or "absent", "epochs": 8}
    if ecosystem in ("sd1", "sdxl"):
        given |= {"trainTextEncoder": True, "textEncoderLr": 0.00005, "minSnrGamma": 5.0}
    sites = {"sd1": "sd1", "sdxl": "sdxl", "sd3": "sd3", "flux1": "flux1", "wan": "wanvideo"}
    urn = f"urn:air:{sites[ecosystem]}:checkpoint:civitai:1@2"
    step = step_in(**{**given, "model": urn})
    await call(tools, "import-training-step", step=step, name="cat_v1", dataset_path="cat")
    back = await call(tools, "export-training-step", config_name="cat_v1", model=urn)
    assert {**back["step"]["input"], "trainingData": None} == {**step["input"], "trainingData": None}
    assert back["not_carried"] == []


async def test_what_a_step_does_not_carry_is_named(tools: Toolbox) -> None:
    await call(
        tools,
        "create-training-config",
        name="cat_v1",
        model_name="sdxl",
        dataset_path="cat",
        trigger_word="tok",
        resolution=[768, 1024],
        steps=1010,
        rank=32,
        alpha=32,
        overrides={"train": {"gradient_accumulation": 2}},
    )
    back = await call(tools, "export-training-step", config_name="cat_v1")
    named = {line.partition(":")[0] for line in back["not_carried"]}
    assert {"trigger_word", "train.steps", "train.gradient_accumulation", "datasets.0.resolution"} <= named
    assert back["step"]["input"]["epochs"] == 25
    assert any("takes 5 to 20" in text for text in back["warnings"])
    assert sum("AIR URNs" in text or "sourceUrl" in text for text in back["warnings"]) == 2


async def test_the_input_alone_and_the_sites_older_names_are_taken(tools: Toolbox) -> None:
    settings = {"ecosystem": "sdxl", "model": "sdxl", "maxTrainEpochs": 6, "unetLR": 0.001, "shuffleCaption": True}
    made = await call(tools, "import-training-step", step=settings, name="a", dataset_path="cat", trigger_word="tok")
    process = made["config"]["config"]["process"][0]
    assert (process["train"]["steps"], process["train"]["lr"], process["network"]["linear"]) == (120, 0.001, 32)
    assert process["trigger_word"] == "tok"


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"$type": "imageResourceTraining", "input": {}}, "older form"),
        ({}, "`$type`"),
        (step_in(engine="kohya"), "`engine` is 'kohya'"),
        (step_in(numRepeats=10), "repeats no images"),
        (step_in(trainBatchSize=2), "`batch_size`"),
        (step_in(epochss=2), "did you mean `epochs`"),
        (step_in(ecosystem="absent"), "`ecosystem` is missing"),
        (step_in(modelVariant="absent"), "`dev` or `schnell`"),
        (step_in(ecosystem="sd1", model="sd_1_5"), "has no variants"),
        (step_in(networkDim=64), "takes 8 to 32"),
        (step_in(epochs=21), "takes 5 to 20"),
        (step_in(lrScheduler="step"), "fails at the start"),
        (step_in(name="other"), "belongs beside it"),
    ],
)
async def test_a_wrong_step_is_refused_by_name_and_nothing_is_stored(
    tools: Toolbox, tmp_path: Path, step: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        await call(tools, "import-training-step", step=step, name="cat_v1", dataset_path="cat")
    assert said in caught.value.as_text()
    assert not (tmp_path / "configs").exists()


async def test_a_config_without_a_word_in_the_plan_is_refused(tools: Toolbox) -> None:
    await call(tools, "create-training-config", name="a", model_name="flex", dataset_path="cat")
    with pytest.raises(InvalidArguments, match="of no ecosystem"):
        await call(tools, "export-training-step", config_name="a")
    given = {"model_name": "sdxl", "dataset_path": "cat", "lr_scheduler": "cosine_with_restarts"}
    await call(tools, "create-training-config", name="b", **given)
    with pytest.raises(InvalidArguments, match="cosine_with_restarts"):
        await call(tools, "export-training-step", config_name="b")
    with pytest.raises(NotFound):
        await call(tools, "export-training-step", config_name="c")
