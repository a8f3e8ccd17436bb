"""The list of models: the two files of a Wan 2.2 LoRA belong together, and a digest is told once it is known."""

from pathlib import Path

from tests.servers.aitk import call, toolbox_in
from tests.servers.test_aitk_models import save_lora


async def test_high_and_low_noise_name_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "output" / "cat"
    for step in (250, 500):
        for stage in ("high_noise", "low_noise"):
            save_lora(folder / f"cat_{step:09d}_{stage}.safetensors", step, at=1000 + step)
    save_lora(folder / "cat_high_noise.safetensors", 600, at=3000)
    save_lora(folder / "cat.safetensors", 600, at=4000)
    listed = (await call(toolbox_in(tmp_path), "list-exported-models"))["models"]
    models = {model["filename"]: model for model in listed}
    high, low = models["cat_000000250_high_noise.safetensors"], models["cat_000000250_low_noise.safetensors"]
    assert (high["stage"], high["partner"]) == ("high_noise", low["model_path"])
    assert (low["stage"], low["partner"]) == ("low_noise", high["model_path"])
    assert (high["kind"], high["step"], high["epoch"], high["job"]) == ("checkpoint", 250, 1, "cat")
    # One whose partner is gone stands alone.
    alone = models["cat_high_noise.safetensors"]
    assert (alone["kind"], alone["stage"], alone["partner"]) == ("final", "high_noise", None)
    assert (models["cat.safetensors"]["stage"], models["cat.safetensors"]["partner"]) == (None, None)


async def test_a_digest_is_listed_once_it_is_known_and_while_it_is_true(tmp_path: Path) -> None:
    path = save_lora(tmp_path / "output" / "cat" / "cat.safetensors", 600, at=4000)
    tools = toolbox_in(tmp_path)
    assert [model["sha256"] for model in (await call(tools, "list-exported-models"))["models"]] == [None]
    told = (await call(tools, "get-model-info", model_path="cat"))["sha256"]
    assert [model["sha256"] for model in (await call(tools, "list-exported-models"))["models"]] == [told]
    save_lora(path, 601, at=4001)
    assert [model["sha256"] for model in (await call(tools, "list-exported-models"))["models"]] == [None]
