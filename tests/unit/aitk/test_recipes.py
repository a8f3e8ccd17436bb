"""Recipes against the documents that AI Toolkit itself made, and the mistakes that people make."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aitk_mcp.recipes import Place, RecipeRequest, build_config
from aitk_mcp.recipes.architectures import ARCHITECTURES, default_process
from aitk_mcp.recipes.check import check_document
from aitk_mcp.recipes.names import check_job_name, check_training_name, dataset_folder_name
from aitk_mcp.recipes.overrides import check_overrides, unknown_keys
from aitk_mcp.recipes.presets import PRESETS, find_preset, resolve_model
from mcp_toolserver.errors import InvalidArguments

CAPTURED = Path(__file__).parent / "captured"
PLACE = Place("/app/ai-toolkit/output", "/app/ai-toolkit/datasets/my_dataset", images=10)


def ask(**given: Any) -> RecipeRequest:
    return RecipeRequest.model_validate({"name": "cat", "model_name": "flex", "dataset_path": "cat", **given})


def process(request: RecipeRequest, place: Place = PLACE) -> dict[str, Any]:
    return build_config(request, place).document["config"]["process"][0]


def refusal(**given: Any) -> InvalidArguments:
    with pytest.raises(InvalidArguments) as caught:
        build_config(ask(**given), PLACE)
    return caught.value


HASHES: dict[str, str] = json.loads((CAPTURED / "complete_config_sha256_by_arch.json").read_text())


@pytest.mark.parametrize("arch", HASHES)
def test_the_table_gives_every_architecture_its_captured_defaults(arch: str) -> None:
    """The digests are of the complete captured processes without prompts and folders, as JSON with sorted keys."""
    made = default_process(ARCHITECTURES[arch])
    del made["sample"]["samples"], made["training_folder"], made["datasets"][0]["folder_path"]
    assert hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest() == HASHES[arch]


@pytest.mark.parametrize(
    ("example", "given"),
    [
        ("flux_dev_lora", {"model_name": "black-forest-labs/FLUX.1-dev", "rank": 16}),
        ("sdxl_lora", {"model_name": "stabilityai/stable-diffusion-xl-base-1.0", "rank": 32, "alpha": 32}),
    ],
)
def test_a_request_with_the_examples_choices_gives_the_captured_example(example: str, given: dict[str, Any]) -> None:
    captured = json.loads((CAPTURED / f"{example}.json").read_text())
    theirs = captured["config"]["process"][0]
    request = ask(
        **given,
        name=captured["config"]["name"],
        trigger_word="p3r5on",
        resolution=[512, 768, 1024],
        steps=2000,
        learning_rate=0.0001,
        low_vram=False,
        test_prompts=[sample["prompt"] for sample in theirs["sample"]["samples"]],
    )
    made = build_config(request, PLACE).document
    # These stand in the architecture's captured defaults, but not in the example, which was written earlier.
    for example_lacks in [key for key in made["config"]["process"][0]["model"] if key not in theirs["model"]]:
        assert example_lacks.startswith("layer_offloading")
    assert made == captured


def test_the_captured_video_example_holds_no_key_that_is_unknown_here() -> None:
    captured = json.loads((CAPTURED / "wan22_14b_t2v_lora.json").read_text())
    assert unknown_keys(captured["config"]["process"][0]) == []


def test_the_defaults_are_those_of_the_wire_contract() -> None:
    made = process(ask())
    assert made["datasets"][0]["resolution"] == [512]
    assert made["network"]["linear"] == made["network"]["linear_alpha"] == 16
    train = made["train"]
    assert (train["batch_size"], train["lr"], train["steps"]) == (1, 0.0002, 1000)
    assert train["gradient_checkpointing"]
    assert made["model"]["low_vram"]
    assert not train["disable_sampling"]
    assert made["training_folder"] == PLACE.outputs_folder


def test_the_example_that_people_already_use_needs_no_change() -> None:
    recipe = build_config(
        ask(
            name="pixel_cat_birthday_lora_v2",
            model_name="ostris/Flex.1-alpha",
            mixed_precision="fp16",
            trigger_word="pixel_cat",
            test_prompts=["pixel_cat, a snowshoe cat sitting elegantly"],
        ),
        PLACE,
    )
    made = recipe.document["config"]["process"][0]
    assert made["model"]["arch"] == "flex1"
    assert made["train"]["bypass_guidance_embedding"]
    assert made["train"]["dtype"] == "fp16"
    assert [warning for warning in recipe.warnings if "bf16" in warning]


@pytest.mark.parametrize(
    ("said", "arch", "name_or_path"),
    [
        ("flux", "flux", "black-forest-labs/FLUX.1-dev"),
        ("FLUX.1 dev", "flux", "black-forest-labs/FLUX.1-dev"),
        ("Flex.1-alpha", "flex1", "ostris/Flex.1-alpha"),
        ("sdxl", "sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
        ("SD 1.5", "sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("runwayml/stable-diffusion-v1-5", "sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("qwen_image:2512", "qwen_image:2512", "Qwen/Qwen-Image-2512"),
        ("/models/ponyDiffusionV6XL.safetensors", "sdxl", "/models/ponyDiffusionV6XL.safetensors"),
        ("tinyflux", "flux", "tinyflux"),
    ],
)
def test_models_are_found_by_what_people_call_them(said: str, arch: str, name_or_path: str) -> None:
    choice = resolve_model(said)
    assert (choice.architecture.id, choice.name_or_path) == (arch, name_or_path)


def test_every_preset_resolves_to_itself() -> None:
    for preset in PRESETS:
        choice = resolve_model(preset.name)
        assert choice.name_or_path == (preset.moved_to or preset.name)
        assert choice.architecture.id == preset.arch or find_preset(preset.name) is not preset


def test_a_gated_model_is_said_so_before_the_start() -> None:
    warning = resolve_model("black-forest-labs/FLUX.1-dev").warnings[0]
    assert "gated" in warning
    assert "HF_TOKEN" in warning
    assert "ostris/Flex.1-alpha" in warning
    assert not resolve_model("ostris/Flex.1-alpha").warnings


def test_a_moved_and_a_guessed_model_are_reported() -> None:
    assert "removed by its owner" in resolve_model("runwayml/stable-diffusion-v1-5").warnings[0]
    assert "taken for SDXL" in resolve_model("someone/my-sdxl-tune").warnings[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model_name": "somebody/mystery"}, "Say `ecosystem`"),
        ({"model_name": "urn:air:flux9:checkpoint:civitai:1@2"}, "URN"),
        ({"model_name": "urn:air:flux1:lora:civitai:1@2", "model_variant": "dev"}, "URN"),
        ({"ecosystem": "flux1"}, "`model_variant` is missing; ecosystem `flux1` needs `dev` or `schnell`"),
        ({"model_name": "sdxl", "ecosystem": "sdxl", "model_variant": "base"}, "no variants"),
        ({"model_name": "sdxl", "ecosystem": "flux1", "model_variant": "dev"}, "asks for FLUX.1"),
        ({"model_variant": "dev"}, "without `ecosystem`"),
        ({"ecosystem": "flux9"}, "none that AI Toolkit knows"),
        ({"resolution": 500}, "no multiple of 32"),
        ({"steps": 10, "epochs": 2}, "both given"),
        ({"lr_scheduler": "step"}, "fails at the start"),
        ({"optimizer": "adamw9bit"}, "adamw9bit"),
        ({"text_encoder_lr": 0.1}, "`train_text_encoder` is false"),
        ({"name": "../cat"}, "a job is named"),
        ({"name": "a" * 101}, "at most 100 characters"),
        ({"test_prompts": ["a ${HOME} cat"]}, "environment variable"),
        ({"overrides": {"train": {"learning_rate": 1}}}, "no setting `train.learning_rate`"),
        ({"overrides": {"training_folder": "/tmp"}}, "cannot be set"),
        ({"overrides": {"train.lr": "fast"}}, "expects a number"),
    ],
)
def test_refusals_name_the_cause(given: dict[str, Any], said: str) -> None:
    error = refusal(**given)
    assert said in error.message or said in (error.hint or "")


def test_everything_wrong_is_named_at_once() -> None:
    problems = refusal(name="a/b", optimizer="adamx", overrides={"trian": {"lr": 1}}).details["problems"]
    assert [problem["field"] for problem in problems] == ["name", "optimizer", "overrides.trian"]
    assert problems[2]["closest_matches"][0] == "train"


@pytest.mark.parametrize(
    ("overrides", "closest"),
    [
        ({"train": {"learning_rate": 1}}, "train.lr"),
        ({"flip_x": True}, "datasets.flip_x"),
        ({"train": {"ema_config": {"use": True}}}, "train.ema_config.use_ema"),
        ({"datasets": [{"captionext": "txt"}]}, "datasets.caption_ext"),
    ],
)
def test_an_unknown_setting_is_answered_with_the_closest(overrides: dict[str, Any], closest: str) -> None:
    settings, problems = check_overrides(overrides)
    assert not settings
    assert problems[0].closest_matches[0] == closest


def test_overrides_reach_their_place() -> None:
    overrides = {
        "train": {"gradient_accumulation": 2, "ema_config": {"use_ema": True}},
        "datasets": [{"num_repeats": 3}],
        "model.model_kwargs": {"anything": 1},
        "network": {"network_kwargs": {"only_if_contains": ["attn"]}},
    }
    made = process(ask(overrides=overrides))
    assert made["train"]["gradient_accumulation"] == 2
    assert made["train"]["ema_config"] == {"use_ema": True, "ema_decay": 0.99}
    assert made["datasets"][0]["num_repeats"] == 3
    assert made["model"]["model_kwargs"] == {"anything": 1}
    assert made["network"]["network_kwargs"] == {"ignore_if_contains": [], "only_if_contains": ["attn"]}


def test_epochs_become_steps_by_the_number_of_images() -> None:
    assert process(ask(epochs=3))["train"]["steps"] == 30
    assert process(ask(epochs=3, batch_size=4))["train"]["steps"] == 9
    assert process(ask(epochs=1, resolution=[512, 768], flip_augmentation=True))["train"]["steps"] == 40


def test_schedulers_get_what_they_need_to_do_what_they_say() -> None:
    assert process(ask(lr_scheduler="linear"))["train"]["lr_scheduler_params"] == {
        "start_factor": 1.0,
        "end_factor": 0.0,
    }
    warmup = process(ask(lr_scheduler="constant_with_warmup", steps=200))
    assert warmup["train"]["lr_scheduler_params"] == {"num_warmup_steps": 20}


def test_what_a_model_cannot_honour_is_a_warning() -> None:
    recipe = build_config(ask(min_snr_gamma=5, use_wandb=True, test_prompts=["[trigger] asleep"]), PLACE)
    assert "min_snr_gamma" not in recipe.document["config"]["process"][0]["train"]
    assert len(recipe.warnings) == 3
    assert process(ask(model_name="sdxl", min_snr_gamma=5))["train"]["min_snr_gamma"] == 5


def test_without_prompts_the_captions_of_the_dataset_are_sampled() -> None:
    place = Place("/o", "/d", captions=("a cat asleep", "Tok on a roof"))
    samples = process(ask(trigger_word="tok"), place)["sample"]["samples"]
    assert samples == [{"prompt": "tok, a cat asleep"}, {"prompt": "Tok on a roof"}]
    assert process(ask(trigger_word="tok"))["sample"]["samples"] == [{"prompt": "tok"}]
    assert process(ask())["sample"]["samples"] == []


@pytest.mark.parametrize("name", ["c", "Config", "config.yaml", "loss", "optimizer", "sample", "samples", "log", "pid"])
def test_a_job_is_not_named_so_that_ai_toolkit_resumes_it_from_its_own_files(name: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        check_training_name(name)
    suggestion = caught.value.details["closest_matches"][0]
    assert check_training_name(suggestion) == suggestion
    assert suggestion in (caught.value.hint or "")
    document = build_config(ask(), PLACE).document
    document["config"]["name"] = name
    assert "config.name" in [problem.field for problem in check_document(document, name, PLACE.outputs_folder)]


def test_a_path_in_which_ai_toolkit_overlooks_checkpoints_is_doubted() -> None:
    recipe = build_config(ask(), Place("/data/my_LoRA/output", "/d", images=10))
    assert any("`_LoRA` is in the path" in warning for warning in recipe.warnings)
    found = check_document(recipe.document, "cat", "/data/my_LoRA/output")
    assert [(problem.field, problem.severity) for problem in found] == [("training_folder", "warning")]
    assert not build_config(ask(name="cat_LoRA"), Place("/data/my_LoRA/output", "/d", images=10)).warnings


@settings(deadline=None)
@given(st.text(max_size=40))
def test_dataset_names_are_safe_folder_names(name: str) -> None:
    try:
        folder = dataset_folder_name(name)
    except InvalidArguments:
        assert not any(letter in "abcdefghijklmnopqrstuvwxyz0123456789" for letter in name.lower())
        return
    assert set(folder) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert folder.strip("_")
    assert dataset_folder_name(folder) == folder


@settings(deadline=None)
@given(st.text(max_size=40))
def test_a_refused_job_name_comes_with_one_that_is_taken(name: str) -> None:
    try:
        check_job_name(name)
    except InvalidArguments as error:
        for suggestion in error.details["closest_matches"]:
            assert check_job_name(suggestion) == suggestion
    else:
        assert Path(name).name == name
