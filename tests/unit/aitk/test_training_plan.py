"""The training plan of a site: a test per row of its tables, from names and variants to bounds and defaults."""

from typing import Any

import pytest
from pydantic import ValidationError

from aitk_mcp.recipes import Place, Recipe, RecipeRequest, build_config
from aitk_mcp.recipes.ecosystems import ECOSYSTEMS, SITE_NAMES
from aitk_mcp.recipes.presets import resolve_model
from aitk_mcp.tools.configs import CreateTrainingConfig
from mcp_toolserver.arguments import parse_arguments
from mcp_toolserver.errors import InvalidArguments

IMAGES = 12
PLACE = Place("/out", "/data/cat", images=IMAGES)
LOCAL = "/models/my_own.safetensors"


def built(images: int | None = IMAGES, **given: Any) -> Recipe:
    request = RecipeRequest.model_validate({"name": "cat", "model_name": LOCAL, "dataset_path": "cat", **given})
    return build_config(request, Place("/out", "/data/cat", images=images))


def process(recipe: Recipe) -> dict[str, Any]:
    return recipe.document["config"]["process"][0]


def refusal(**given: Any) -> InvalidArguments:
    with pytest.raises(InvalidArguments) as caught:
        built(**given)
    return caught.value


@pytest.mark.parametrize("ecosystem", ["sd1", "sdxl"])
def test_an_ecosystem_without_variants_refuses_one(ecosystem: str) -> None:
    assert built(ecosystem=ecosystem).model.plan is ECOSYSTEMS[ecosystem].plan
    error = refusal(ecosystem=ecosystem, model_variant="dev")
    assert "has no variants" in error.message
    assert error.details["problems"][0]["field"] == "model_variant"


@pytest.mark.parametrize(
    ("ecosystem", "variant", "arch"),
    [
        ("sd3", "large", "sd3"),
        ("sd3", "medium", "sd3"),
        ("flux1", "dev", "flux"),
        ("flux1", "schnell", "flux"),
        ("wan", "2.1", "wan21:14b"),
        ("wan", "2.2", "wan22_14b:t2v"),
    ],
)
def test_an_ecosystem_with_variants_requires_one(ecosystem: str, variant: str, arch: str) -> None:
    assert process(built(ecosystem=ecosystem, model_variant=variant))["model"]["arch"] == arch
    for wrong in ({}, {"model_variant": "base"}):
        error = refusal(ecosystem=ecosystem, **wrong)
        assert f"`{variant}`" in error.message
        assert variant in error.details["problems"][0]["closest_matches"]


@pytest.mark.parametrize(
    ("ecosystem", "variant", "expected"),
    [
        ("sd1", None, (512, 5, 0.0001, 0.00005, True, 32, 32)),
        ("sdxl", None, (1024, 5, 0.0001, 0.00005, True, 32, 32)),
        ("flux1", "dev", (1024, 5, 0.0001, None, False, 16, 16)),
        ("sd3", "large", (1024, 5, 0.0001, None, False, 16, 16)),
        ("wan", "2.1", (512, 2, 0.0002, None, False, 32, 32)),
    ],
)
def test_an_ecosystem_brings_its_defaults(ecosystem: str, variant: str | None, expected: tuple[Any, ...]) -> None:
    made = process(built(ecosystem=ecosystem, model_variant=variant))
    train, network = made["train"], made["network"]
    assert made["datasets"][0]["resolution"] == [expected[0]]
    assert train["steps"] == expected[1] * IMAGES
    assert train["lr"] == expected[2]
    assert train.get("text_encoder_lr") == expected[3]
    assert train["train_text_encoder"] is expected[4]
    assert (network["linear"], network["linear_alpha"]) == expected[5:]


@pytest.mark.parametrize(
    ("ecosystem", "variant", "name", "low", "high"),
    [
        ("sd1", None, "epochs", 5, 20),
        ("sd1", None, "network_dim", 16, 64),
        ("sd1", None, "network_alpha", 16, 64),
        ("sdxl", None, "epochs", 5, 20),
        ("sdxl", None, "network_dim", 16, 64),
        ("sdxl", None, "network_alpha", 16, 64),
        ("flux1", "dev", "epochs", 5, 20),
        ("flux1", "dev", "network_dim", 8, 32),
        ("flux1", "dev", "network_alpha", 8, 32),
        ("sd3", "large", "epochs", 5, 20),
        ("sd3", "large", "network_dim", 8, 32),
        ("sd3", "large", "network_alpha", 8, 32),
        ("wan", "2.2", "epochs", 2, 10),
        ("wan", "2.2", "network_dim", 16, 64),
        ("wan", "2.2", "network_alpha", 16, 64),
    ],
)
def test_an_ecosystem_holds_its_bounds(ecosystem: str, variant: str | None, name: str, low: int, high: int) -> None:
    for value in (low, high):
        built(ecosystem=ecosystem, model_variant=variant, **{name: value})
    for value, nearest in ((low - 1, low), (high + 1, high)):
        problem = refusal(ecosystem=ecosystem, model_variant=variant, **{name: value}).details["problems"][0]
        assert f"takes {low} to {high}" in problem["message"]
        assert problem["closest_matches"] == [str(nearest)]


def test_an_architecture_has_no_bounds_and_no_plan() -> None:
    made = process(built(ecosystem="flux", rank=128, alpha=128))
    assert (made["network"]["linear"], made["train"]["steps"], made["train"]["lr"]) == (128, 1000, 0.0002)


def test_what_the_caller_says_stands_over_the_plan() -> None:
    made = process(built(ecosystem="sdxl", steps=700, lr=0.0005, resolution=768, train_text_encoder=False, rank=64))
    assert (made["train"]["steps"], made["train"]["lr"], made["datasets"][0]["resolution"]) == (700, 0.0005, [768])
    assert not made["train"]["train_text_encoder"]
    assert "text_encoder_lr" not in made["train"]
    assert made["network"]["linear_alpha"] == 64
    assert process(built(images=None, ecosystem="sdxl"))["train"]["steps"] == 1000


@pytest.mark.parametrize(
    ("said", "section", "key", "value", "expected"),
    [
        ("lr", "train", "lr", 0.003, 0.003),
        ("unetLR", "train", "lr", 0.003, 0.003),
        ("unet_lr", "train", "lr", 0.003, 0.003),
        ("epochs", "train", "steps", 6, 72),
        ("maxTrainEpochs", "train", "steps", 6, 72),
        ("max_train_epochs", "train", "steps", 6, 72),
        ("textEncoderLr", "train", "text_encoder_lr", 0.002, 0.002),
        ("textEncoderLR", "train", "text_encoder_lr", 0.002, 0.002),
        ("trainTextEncoder", "train", "train_text_encoder", False, False),
        ("lrScheduler", "train", "lr_scheduler", "cosine", "cosine"),
        ("optimizerType", "train", "optimizer", "prodigy8bit", "prodigy8bit"),
        ("networkDim", "network", "linear", 20, 20),
        ("networkAlpha", "network", "linear_alpha", 20, 20),
        ("noiseOffset", "train", "noise_offset", 0.1, 0.1),
        ("minSnrGamma", "train", "min_snr_gamma", 5, 5),
        ("flipAugmentation", "datasets", "flip_x", True, True),
        ("shuffleTokens", "datasets", "shuffle_tokens", True, True),
        ("shuffleCaption", "datasets", "shuffle_tokens", True, True),
        ("keepTokens", "datasets", "keep_tokens", 1, 1),
        ("resolution", "datasets", "resolution", 768, [768]),
    ],
)
def test_every_name_of_a_setting_is_taken(said: str, section: str, key: str, value: Any, expected: Any) -> None:
    made = process(built(ecosystem="sdxl", **{said: value}))[section]
    assert (made[0] if isinstance(made, list) else made)[key] == expected


def test_the_variant_is_taken_in_camel_case() -> None:
    assert process(built(ecosystem="flux1", modelVariant="dev"))["model"]["arch"] == "flux"


def test_two_names_for_one_setting_are_refused() -> None:
    with pytest.raises(ValidationError, match="unetLR"):
        built(lr=0.1, unetLR=0.2)


@pytest.mark.parametrize(
    ("name", "said"),
    [("numRepeats", "repeats no images"), ("trainBatchSize", "`batch_size`"), ("num_repeats", "repeats no images")],
)
def test_what_the_plan_excludes_is_refused_by_name(name: str, said: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        parse_arguments(CreateTrainingConfig, {"name": "a", "model_name": "flex", "dataset_path": "b", name: 2})
    assert said in caught.value.message
    assert name in caught.value.message


@pytest.mark.parametrize("scheduler", ["constant", "constant_with_warmup", "cosine", "linear"])
def test_the_plans_schedulers_are_taken(scheduler: str) -> None:
    assert process(built(ecosystem="sd1", lrScheduler=scheduler))["train"]["lr_scheduler"] == scheduler


def test_the_scheduler_that_fails_in_ai_toolkit_is_refused() -> None:
    assert "fails at the start" in refusal(ecosystem="sd1", lrScheduler="step").message


@pytest.mark.parametrize(
    "optimizer",
    [
        *("adam", "adamw", "adamw8bit", "adam8bit", "lion", "lion8bit", "adafactor", "adagrad"),
        *("prodigy", "prodigy8bit"),
    ],
)
def test_the_plans_optimizers_are_taken(optimizer: str) -> None:
    assert process(built(ecosystem="sd1", optimizerType=optimizer))["train"]["optimizer"] == optimizer


@pytest.mark.parametrize(
    ("name", "variant", "arch"),
    [
        ("sd_1_5", None, "sd15"),
        ("anime", None, "sd15"),
        ("semi", None, "sd15"),
        ("realistic", None, "sd15"),
        ("sdxl", None, "sdxl"),
        ("pony", None, "sdxl"),
        ("illustrious", None, "sdxl"),
        ("noobai", None, "sdxl"),
        ("flux_dev", None, "flux"),
        ("flux_schnell", None, "flux"),
        ("sd3_medium", None, "sd3"),
        ("sd3_large", None, "sd3"),
        ("sd3_5m", None, "sd3"),
        ("wan_2_1_t2v_14b", None, "wan21:14b"),
        ("wan_2_1_i2v_14b_720p", None, "wan21_i2v:14b"),
        ("wanvideo", "2.2", "wan22_14b:t2v"),
        ("wanvideo14b_t2v", None, "wan21:14b"),
        ("wanvideo14b_i2v_480p", None, "wan21_i2v:14b480p"),
        ("wanvideo14b_i2v_720p", None, "wan21_i2v:14b"),
        ("wanvideo-22-t2v-a14b", None, "wan22_14b:t2v"),
        ("wanvideo-22-i2v-a14b", None, "wan22_14b_i2v"),
        ("wanvideo-22-ti2v-5b", None, "wan22_5b"),
        ("wanvideo-25-t2v", "2.2", "wan22_14b:t2v"),
        ("wanvideo-25-i2v", "2.1", "wan21:14b"),
        ("hyv1", "2.1", "wan21:14b"),
        ("hy_720_fp8", "2.1", "wan21:14b"),
        ("chroma", None, "chroma"),
    ],
)
def test_a_sites_base_model_is_found(name: str, variant: str | None, arch: str) -> None:
    assert resolve_model(name, SITE_NAMES[name].ecosystem if variant else None, variant).architecture.id == arch


@pytest.mark.parametrize("name", ["hyv1", "hy_720_fp8", "wanvideo-25-t2v", "wanvideo-25-i2v", "wanvideo"])
def test_a_site_name_that_tells_no_variant_asks_for_one(name: str) -> None:
    with pytest.raises(InvalidArguments, match=r"`2\.1` or `2\.2`"):
        resolve_model(name)


@pytest.mark.parametrize(("name", "said"), [("hyv1", "no HunyuanVideo"), ("wanvideo-25-t2v", "no Wan 2.5")])
def test_a_model_that_cannot_be_trained_is_said_so(name: str, said: str) -> None:
    assert said in resolve_model(name, "wan", "2.1").warnings[0]


def test_a_tuned_model_is_said_to_train_on_the_plain_one() -> None:
    for model_name, ecosystem in (("pony", None), ("/models/mine.safetensors", "pony")):
        assert resolve_model(model_name, ecosystem).warnings[0].startswith("`pony` is trained on the plain sdxl model")


@pytest.mark.parametrize(
    ("urn", "variant", "arch", "ecosystem"),
    [
        ("urn:air:sd1:checkpoint:civitai:4384@128713", None, "sd15", "sd1"),
        ("urn:air:sdxl:checkpoint:civitai:101055@128078", None, "sdxl", "sdxl"),
        ("urn:air:flux1:checkpoint:civitai:1330309@2164239", "dev", "flux", "flux1"),
        ("urn:air:sd3:checkpoint:civitai:139562@782002", "large", "sd3", "sd3"),
        ("urn:air:wanvideo:checkpoint:civitai:1329096@1501344", "2.1", "wan21:14b", "wan"),
    ],
)
def test_a_urn_is_mapped_to_its_ecosystem(urn: str, variant: str | None, arch: str, ecosystem: str) -> None:
    choice = resolve_model(urn, ecosystem, variant)
    assert choice.architecture.id == arch
    assert any(urn in warning and choice.name_or_path in warning for warning in choice.warnings)
    if variant is not None:
        # A URN tells no variant, and one that is wrong is not guessed.
        with pytest.raises(InvalidArguments, match="needs"):
            resolve_model(urn, ecosystem)
    other = "sdxl" if ecosystem == "sd1" else "sd1"
    if variant is None:
        with pytest.raises(InvalidArguments, match="is a model of ecosystem"):
            resolve_model(urn, other)


def test_schnell_is_trained_through_its_adapter_whatever_its_weights() -> None:
    for model_name in (LOCAL, "black-forest-labs/FLUX.1-schnell"):
        model = process(built(model_name=model_name, ecosystem="flux1", model_variant="schnell"))["model"]
        assert model["assistant_lora_path"] == "ostris/FLUX.1-schnell-training-adapter"
        assert model["name_or_path"] == model_name
    assert "assistant_lora_path" not in process(built(ecosystem="flux1", model_variant="dev"))["model"]
    assert "is flux1 schnell" in refusal(model_name="schnell", ecosystem="flux1", model_variant="dev").message


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"ecosystem": "sdxl", "textEncoderLr": 0.002}, "`text_encoder_lr` 0.002"),
        ({"ecosystem": "flux1", "model_variant": "dev", "minSnrGamma": 5}, "`min_snr_gamma`"),
        ({"ecosystem": "flux1", "model_variant": "dev", "networkDim": 16, "networkAlpha": 8}, "`alpha` 8"),
        ({"ecosystem": "flux1", "model_variant": "dev", "trainTextEncoder": True}, "`train_text_encoder`"),
        ({"ecosystem": "sdxl", "keepTokens": 1}, "`keep_tokens` 1"),
        ({"ecosystem": "sdxl", "shuffleTokens": True, "trigger_word": "tok"}, "`shuffle_tokens`"),
        ({"ecosystem": "sdxl"}, "`epochs` 5 come to only 60 steps"),
    ],
)
def test_what_ai_toolkit_does_not_honour_is_a_warning_by_name(given: dict[str, Any], name: str) -> None:
    assert any(warning.startswith(name) for warning in built(**given).warnings)


def test_keep_tokens_is_heeded_while_parts_are_dropped() -> None:
    recipe = built(ecosystem="sdxl", keepTokens=1, overrides={"datasets": {"token_dropout_rate": 0.2}})
    assert not any("keep_tokens" in warning for warning in recipe.warnings)
