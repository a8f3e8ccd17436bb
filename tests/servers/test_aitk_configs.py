"""The config tools: the classic mistakes with their cures, what is stored, and what was changed by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_toolserver.errors import Conflict, InsufficientStorage, InvalidArguments, NotFound
from mcp_toolserver.tools import Toolbox
from tests.fakes.disk_faults import largest_file
from tests.servers.aitk import call, image, toolbox_in


@pytest.fixture
async def tools(tmp_path: Path) -> Toolbox:
    made = toolbox_in(tmp_path)
    images = [image("a.png", "a cat asleep"), image("b.png", "tok, a cat on a roof")]
    await call(made, "upload-dataset", dataset_name="pixel_cat", images=images)
    return made


@pytest.fixture
def cli_tools(tmp_path: Path) -> Toolbox:
    return toolbox_in(tmp_path, trainer="cli", AITK_DIR=str(tmp_path / "ai-toolkit"))


def asked(**given: Any) -> dict[str, Any]:
    return {"name": "cat_v1", "model_name": "tinyflux", "dataset_path": "pixel_cat", **given}


async def test_the_document_is_stored_as_it_is_answered(tools: Toolbox, tmp_path: Path) -> None:
    answer = await call(tools, "create-training-config", **asked(trigger_word="tok", steps=100))
    config, path = answer["config"], Path(answer["config_path"])
    assert path == tmp_path / "configs" / "cat_v1.yaml"
    assert yaml.safe_load(path.read_text()) == config
    process = config["config"]["process"][0]
    assert process["datasets"][0]["folder_path"] == str(tmp_path / "datasets" / "pixel_cat")
    assert process["training_folder"] == str(tmp_path / "output")
    assert config["config"]["name"] == "cat_v1"
    assert [sample["prompt"] for sample in process["sample"]["samples"]] == [
        "tok, a cat asleep",
        "tok, a cat on a roof",
    ]
    assert answer["warnings"] == []
    assert (answer["estimate"]["steps"], answer["estimate"]["images"], answer["estimate"]["epochs"]) == (100, 2, 50)


async def test_a_config_for_which_the_disk_has_no_room_leaves_the_one_that_was_there(
    tools: Toolbox, tmp_path: Path
) -> None:
    path = Path((await call(tools, "create-training-config", **asked(steps=7)))["config_path"])
    before = path.read_bytes()
    with largest_file(100), pytest.raises(InsufficientStorage, match="`create-training-config` failed: the disk"):
        await call(tools, "create-training-config", **asked(steps=8, overwrite=True))
    assert path.read_bytes() == before
    assert list((tmp_path / "configs").iterdir()) == [path]


@pytest.mark.parametrize("text", ["\x85 \u2028 \ufeff", "狗: - {a}", "yes", "1e-4", "'\"\\", "a\nb\n", " # no comment"])
async def test_any_text_survives_the_file(tools: Toolbox, text: str) -> None:
    await call(tools, "create-training-config", **asked(trigger_word=text, test_prompts=[text]))
    process = (await call(tools, "get-config", name="cat_v1"))["config"]["config"]["process"][0]
    assert process["trigger_word"] == process["sample"]["samples"][0]["prompt"] == text


@pytest.mark.parametrize("given", ["datasets/pixel_cat", "./pixel_cat", "../datasets/pixel-cat/", "pixel_cat/"])
async def test_a_relative_dataset_path_is_answered_with_the_absolute_one(
    tools: Toolbox, tmp_path: Path, given: str
) -> None:
    absolute = str(tmp_path / "datasets" / "pixel_cat")
    with pytest.raises(InvalidArguments, match="relative path") as caught:
        await call(tools, "create-training-config", **asked(dataset_path=given))
    assert absolute in (caught.value.hint or "")
    assert (await call(tools, "create-training-config", **asked(dataset_path=absolute + "/")))["name"] == "cat_v1"


@pytest.mark.parametrize(
    "given", ["pixel_cat_datset", "/ai-toolkit/datasets/pixel_cat", "/ai-toolkit/datasets/Pixel Cat"]
)
async def test_a_dataset_that_is_not_there_is_answered_with_the_closest(tools: Toolbox, given: str) -> None:
    with pytest.raises(NotFound) as caught:
        await call(tools, "create-training-config", **asked(dataset_path=given))
    assert "pixel_cat" in (caught.value.hint or "")
    assert caught.value.details["field"] == "dataset_path"


async def test_a_folder_without_images_is_refused_and_a_foreign_one_mentioned(tools: Toolbox, tmp_path: Path) -> None:
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    with pytest.raises(InvalidArguments, match="holds no image"):
        await call(tools, "create-training-config", **asked(dataset_path=str(empty)))
    (empty / "a.png").write_bytes(b"any")
    answer = await call(tools, "create-training-config", **asked(dataset_path=str(empty)))
    assert "no dataset of this server" in answer["warnings"][0]


async def test_a_gated_model_is_said_so_before_the_start(tools: Toolbox) -> None:
    answer = await call(tools, "create-training-config", **asked(model_name="black-forest-labs/FLUX.1-dev"))
    assert "gated" in answer["warnings"][0]
    assert "HF_TOKEN" in answer["warnings"][0]
    stored = await call(tools, "validate-config", name="cat_v1")
    assert [problem["severity"] for problem in stored["problems"]] == ["warning"]
    assert stored["valid"]


async def test_the_embedded_engine_says_what_it_will_do_instead(tools: Toolbox) -> None:
    flux = await call(tools, "create-training-config", **asked(model_name="ostris/Flex.1-alpha"))
    assert "will train its miniature FLUX" in flux["warnings"][0]
    sdxl = await call(tools, "create-training-config", **asked(name="cat_xl", model_name="sdxl"))
    assert "start-training will refuse it here" in sdxl["warnings"][0]


async def test_ai_toolkit_does_not_know_the_embedded_model(cli_tools: Toolbox, tmp_path: Path) -> None:
    tools = cli_tools
    await call(tools, "upload-dataset", dataset_name="pixel_cat", images=[image()])
    with pytest.raises(InvalidArguments, match="model of the embedded engine"):
        await call(tools, "create-training-config", **asked())
    made = await call(tools, "create-training-config", **asked(model_name="flex"))
    assert made["config"]["config"]["process"][0]["training_folder"] == str(tmp_path / "ai-toolkit" / "output")
    assert made["warnings"] == []


async def test_a_name_that_is_taken_is_kept_unless_overwrite_is_said(tools: Toolbox) -> None:
    await call(tools, "create-training-config", **asked())
    await call(tools, "create-training-config", **asked())
    with pytest.raises(Conflict, match="another config"):
        await call(tools, "create-training-config", **asked(steps=7))
    verdict = await call(tools, "validate-config", **asked(steps=7))
    assert [problem["field"] for problem in verdict["problems"]] == ["name"]
    assert (await call(tools, "validate-config", **asked(steps=7, overwrite=True)))["valid"]
    await call(tools, "create-training-config", **asked(steps=7, overwrite=True))
    assert (await call(tools, "get-config", name="cat_v1"))["steps"] == 7


async def test_everything_wrong_is_refused_at_once_and_nothing_is_stored(tools: Toolbox, tmp_path: Path) -> None:
    wrong = asked(dataset_path="nothing", optimizer="adamx", overrides={"train": {"learning_rate": 1}})
    with pytest.raises(InvalidArguments) as caught:
        await call(tools, "create-training-config", **wrong)
    fields = ["dataset_path", "optimizer", "overrides.train.learning_rate"]
    assert [problem["field"] for problem in caught.value.details["problems"]] == fields
    verdict = await call(tools, "validate-config", **wrong)
    assert not verdict["valid"]
    assert [problem["field"] for problem in verdict["problems"]] == fields
    assert not (tmp_path / "configs").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dataset_name": "pixel_cat"}, "the argument is `dataset_path`"),
        ({"numRepeats": 10}, "repeats no images"),
        ({"trainBatchSize": 2}, "the argument is `batch_size`"),
        ({"stepps": 2}, "did you mean `steps`"),
        (
            {"resolution": "big"},
            "Argument `resolution` is 'big': Input should be a valid integer, unable to parse string as an integer,"
            " or: Input should be a valid list.",
        ),
        ({"resolution": [512, "big"]}, "Argument `resolution.1` is 'big': Input should be a valid integer"),
        ({"mixed_precision": "int8"}, "`mixed_precision`"),
    ],
)
async def test_classic_mistakes_are_answered_with_the_cure(tools: Toolbox, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        await call(tools, "create-training-config", **asked(**given))
    assert said in caught.value.message


async def test_the_other_vocabulary_is_taken_too(tools: Toolbox) -> None:
    given = {"lr": 0.001, "network_dim": 8, "network_alpha": 4, "optimizer_type": "AdamW", "model_name": "sdxl"}
    process = (await call(tools, "create-training-config", **asked(**given)))["config"]["config"]["process"][0]
    assert (process["train"]["lr"], process["train"]["optimizer"]) == (0.001, "adamw")
    assert (process["network"]["linear"], process["network"]["linear_alpha"]) == (8, 4)
    verdict = await call(tools, "validate-config", **asked(name="other", lr=0.001, network_dim=8))
    assert verdict["valid"]
    with pytest.raises(InvalidArguments, match="Unknown argument `lr`"):
        await call(tools, "create-training-config", **asked(lr=0.001, learning_rate=0.002))


async def test_validate_needs_a_model_or_only_a_name(tools: Toolbox) -> None:
    with pytest.raises(InvalidArguments, match="`model_name` is missing"):
        await call(tools, "validate-config", dataset_path="pixel_cat")
    with pytest.raises(NotFound, match="no training config"):
        await call(tools, "validate-config", name="cat_v1")
    verdict = await call(tools, "validate-config", model_name="tinyflux", dataset_path="pixel_cat", epochs=3)
    assert verdict["valid"]
    assert verdict["estimate"]["steps"] == 6


@pytest.mark.parametrize(
    ("change", "field", "severity"),
    [
        ({"training_folder": "output"}, "training_folder", "error"),
        ({"type": "ui_trainer"}, "type", "error"),
        ({"train": {"steps": "many"}}, "train.steps", "error"),
        ({"model": {"name_or_path": "x", "arch": "fluxx"}}, "model.arch", "error"),
        ({"model": {"name_or_path": "x"}}, "model.arch", "error"),
        ({"model": {"arch": "flux"}}, "model.name_or_path", "error"),
        ({"datasets": [{"folder_path": "/nowhere/pixel_cat"}]}, "datasets.folder_path", "error"),
        ({"model": {"name_or_path": "x", "arch": "sd15"}, "sample": {"width": 512}}, "sample.neg", "error"),
        ({"trian": {"lr": 1}}, "trian", "warning"),
        ({"trigger_word": "${SECRET_OF_NOBODY}"}, "", "unreadable"),
    ],
)
async def test_a_config_that_was_changed_by_hand_is_checked(
    tools: Toolbox, change: dict[str, Any], field: str, severity: str
) -> None:
    path = Path((await call(tools, "create-training-config", **asked()))["config_path"])
    document = yaml.safe_load(path.read_text())
    document["config"]["process"][0].update(change)
    path.unlink()
    path.with_suffix(".json").write_text(json.dumps(document))
    if severity == "unreadable":
        with pytest.raises(InvalidArguments, match="SECRET_OF_NOBODY"):
            await call(tools, "validate-config", name="cat_v1")
        return
    verdict = await call(tools, "validate-config", name="cat_v1")
    assert (field, severity) in [(problem["field"], problem["severity"]) for problem in verdict["problems"]]
    assert verdict["valid"] == (severity == "warning")


async def test_configs_are_listed_shown_and_deleted(tools: Toolbox, tmp_path: Path) -> None:
    await call(tools, "create-training-config", **asked(trigger_word="tok"))
    (tmp_path / "configs" / "broken.yaml").write_text("job: [")
    (tmp_path / "configs" / "notes.txt").write_text("no config")
    listed = {config["name"]: config for config in (await call(tools, "list-configs"))["configs"]}
    assert set(listed) == {"cat_v1", "broken"}
    assert "not valid YAML" in listed["broken"]["problem"]
    assert (listed["cat_v1"]["model"], listed["cat_v1"]["trigger_word"]) == ("tinyflux", "tok")
    assert listed["cat_v1"]["dataset_path"] == str(tmp_path / "datasets" / "pixel_cat")
    with pytest.raises(InvalidArguments, match="cannot be used"):
        await call(tools, "get-config", name="broken")
    with pytest.raises(NotFound) as caught:
        await call(tools, "get-config", name="cat_v2")
    assert caught.value.details["closest_matches"] == ["cat_v1"]
    for name in ("../configs/cat_v1", "", "notes", "notes.txt"):
        with pytest.raises(NotFound):
            await call(tools, "delete-config", name=name)
    await call(tools, "delete-config", name="cat_v1")
    assert [config["name"] for config in (await call(tools, "list-configs"))["configs"]] == ["broken"]


async def test_presets_name_models_with_their_needs(tools: Toolbox) -> None:
    every = await call(tools, "list-model-presets")
    assert every["total"] >= 50
    assert every["ecosystems"]["flux1"] == ["dev", "schnell"]
    flux = await call(tools, "list-model-presets", query="FLUX.1-dev")
    dev = next(model for model in flux["models"] if model["model_name"] == "black-forest-labs/FLUX.1-dev")
    assert dev["gated"]
    assert dev["public_alternative"] == "ostris/Flex.1-alpha"
