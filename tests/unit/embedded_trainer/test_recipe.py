"""What the embedded engine takes from a config, refuses, and says of itself."""

from typing import Any

import pytest

from aitk_mcp.documents import BadDocument, TrainingDocument, read_document, read_text
from aitk_mcp.embedded.recipe import Refused, read_recipe, refusal


def document(**changes: Any) -> TrainingDocument:
    process: dict[str, Any] = {"type": "diffusion_trainer", "model": {"arch": "flux", "name_or_path": "tinyflux"}}
    return read_document({"job": "extension", "config": {"name": "cat", "process": [{**process, **changes}]}})


def test_rank_steps_batch_rate_and_seed_are_taken() -> None:
    train = {"steps": 70, "batch_size": 2, "gradient_accumulation": 3, "lr": 2e-4}
    network = {"type": "lora", "linear": 8, "linear_alpha": 4}
    recipe = read_recipe(document(train=train, network=network, training_seed=7))
    assert (recipe.rank, recipe.steps, recipe.batch_size, recipe.learning_rate, recipe.seed) == (8, 70, 6, 2e-4, 7)
    assert any("Learning rate 2.0e-04 is 2.0e-02" in note for note in recipe.notes)
    assert any("alpha 4 has no effect" in note for note in recipe.notes)
    assert any("32 x 32" in note for note in recipe.notes)


def test_sample_prompts_have_their_trigger_and_walk_their_seed() -> None:
    sample = {"samples": [{"prompt": "[trigger] a"}, {"prompt": "b"}], "seed": 5, "walk_seed": True}
    plan = read_recipe(document(sample=sample, trigger_word="pxcat")).sample
    assert plan.prompts == (("pxcat a", 5), ("b", 6))
    assert read_recipe(document(sample=sample, train={"disable_sampling": True})).sample.prompts == ()
    assert read_recipe(document(sample={"prompts": ["a"], "seed": 5})).sample.prompts == (("a", 5),)


@pytest.mark.parametrize("arch", ["flux", "flex1", "flux:dev"])
def test_flux_models_are_trained_with_a_warning_that_names_them(arch: str) -> None:
    model = {"arch": arch, "name_or_path": "black-forest-labs/FLUX.1-dev"}
    notes = read_recipe(document(model=model)).notes
    assert any("asks for black-forest-labs/FLUX.1-dev" in note and "tinyflux" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"arch": "sdxl"}}, "'sdxl': choose model_name `tinyflux`"),
        ({"model": {}}, "''"),
        ({"network": {"type": "lokr"}}, "'lokr'"),
        ({"type": "concept_slider"}, "'concept_slider'"),
        ({"train": {"steps": 0}}, "at least 1"),
    ],
)
def test_what_it_cannot_train_is_refused_by_name(changes: dict[str, Any], words: str) -> None:
    assert words in (refusal(document(**changes)) or "")
    with pytest.raises(Refused):
        read_recipe(document(**changes))


def test_documents_are_read_as_ai_toolkit_reads_them() -> None:
    text = """
job: extension
config:
  name: cat
  process:
  - {type: sd_trainer, training_folder: "${OUT}/x", train: {lr: 1e-4, steps: 12}, model: {arch: "flux:a"}}
meta: {name: "[name]"}
"""
    found = read_text(text, is_json=False, environment={"OUT": "/o"})
    assert (found.name, found.training_folder, found.steps, found.architecture) == ("cat", "/o/x", 12, "flux")
    assert found.block("train")["lr"] == pytest.approx(1e-4)
    assert found.meta == {"name": "cat"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "must have a job key"),
        ('{"job": "extension"}', "must have a config section"),
        ('{"job": "extension", "config": {}}', "must have a config.name key"),
        ('{"job": "extension", "config": {"name": "a"}}', "config.process"),
        ("{", "not valid JSON"),
        ('{"job": "${NOPE}"}', "Environment variable NOPE not set"),
        ("[]", "must have a job key"),
    ],
)
def test_a_text_that_is_no_document_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadDocument, match=message):
        read_text(text, is_json=True, environment={})
