"""Which diffusers models are found on the disk, and which of them is taken."""

import json
from pathlib import Path

from comfy_mcp.engines.diffusers_models import best_that_fits, models_in


def _model(folder: Path, name: str, class_name: str, size_bytes: int, weights: str = "model.safetensors") -> None:
    (folder / name / "unet").mkdir(parents=True)
    (folder / name / "model_index.json").write_text(json.dumps({"_class_name": class_name}))
    (folder / name / "unet" / weights).write_bytes(bytes(size_bytes))


def test_the_best_family_that_fits_is_taken(tmp_path: Path) -> None:
    _model(tmp_path, "a", "StableDiffusionPipeline", 100)
    _model(tmp_path, "b", "StableDiffusionXLPipeline", 200)
    _model(tmp_path, "c", "FluxPipeline", 400)
    models = models_in([tmp_path])
    assert [model.family for model in models] == ["flux", "sdxl", "sd15"]
    taken = [best_that_fits(models, free_bytes, on_gpu=True) for free_bytes in (500, 499, 249, 124)]
    assert [model.name if model else None for model in taken] == ["c", "b", "a", None]
    taken = [best_that_fits(models, free_bytes, on_gpu=False) for free_bytes in (900, 899, 449, 224)]
    assert [model.name if model else None for model in taken] == ["c", "b", "a", None]


def test_pickles_other_pipelines_and_broken_folders_are_left_out(tmp_path: Path) -> None:
    _model(tmp_path, "pickled", "StableDiffusionPipeline", 100, "model.bin")
    _model(tmp_path, "other", "AudioPipeline", 100)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{")
    assert models_in([tmp_path, tmp_path / "absent"]) == ()
