"""What a training takes: the rules of thumb against what was seen, and how they follow the settings."""

from typing import Any

import pytest

from aitk_mcp.recipes import Place, RecipeRequest, build_config
from aitk_mcp.recipes.architectures import ARCHITECTURES, default_process
from aitk_mcp.recipes.resources import complete, disk_of, lora_of, vram_of, work_of

GB = 1e9


def process(**given: Any) -> dict[str, Any]:
    request = RecipeRequest.model_validate(
        {"name": "cat", "model_name": "black-forest-labs/FLUX.1-dev", "dataset_path": "cat", **given}
    )
    return build_config(request, Place("/out", "/data", images=20)).document["config"]["process"][0]


def vram(**given: Any) -> int:
    found = vram_of(process(**given)).bytes
    assert found is not None
    return found


def test_flux_takes_what_it_was_seen_to_take() -> None:
    assert 14 * GB < vram() < 20 * GB
    assert 160e6 < (lora_of(process(rank=16)).bytes or 0) < 180e6


def test_more_of_anything_takes_more() -> None:
    assert vram() < vram(resolution=1024) < vram(resolution=1024, batch_size=4)
    assert vram() < vram(gradient_checkpointing=False)
    assert vram() < vram(overrides={"model": {"quantize": False}})
    assert vram(model_name="sd15") < vram(model_name="sdxl") < vram()


def test_the_disk_holds_what_ai_toolkit_keeps() -> None:
    lora = 100_000_000
    # Four checkpoints and the final file, and an optimizer of 8 bits.
    assert disk_of(process(steps=3000, disable_sampling=True), lora, 20) == 6 * lora
    assert disk_of(process(steps=100, disable_sampling=True), lora, 20) == 2 * lora
    assert disk_of(process(steps=100, disable_sampling=True, optimizer="adamw"), lora, 20) == 5 * lora
    sampled = disk_of(process(steps=1000, test_prompts=["a", "b"]), lora, 20)
    assert sampled > disk_of(process(steps=1000, disable_sampling=True), lora, 20)
    cached = {"datasets": {"cache_latents_to_disk": True}}
    assert disk_of(process(steps=100, overrides=cached), lora, 20) > disk_of(process(steps=100), lora, 20)


def test_the_work_of_a_step_counts_the_pixels_of_its_batch() -> None:
    assert work_of(process(resolution=1024, batch_size=2)) == 8 * work_of(process(resolution=512))
    assert work_of(process(resolution=[512, 1024])) == pytest.approx(2.5 * work_of(process()))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_is_answered_or_said_to_be_unknown(arch: str) -> None:
    made = default_process(ARCHITECTURES[arch])
    assert (vram_of(made).bytes is None) == vram_of(made).based_on.startswith("nothing")
    assert (lora_of(made).bytes is None) == lora_of(made).based_on.startswith("nothing")


def test_a_document_that_was_written_by_hand_may_lack_anything() -> None:
    bare = complete({"type": "sd_trainer", "model": {"arch": "sdxl"}})
    assert vram_of(bare).bytes
    assert disk_of(bare, 1000, 0) > 0
    assert work_of(bare) == 512 * 512
