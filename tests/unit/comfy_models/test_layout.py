"""Which folders a ComfyUI in a folder reads, by its extra_model_paths.yaml."""

from pathlib import Path

import pytest

from comfy_mcp.models.layout import layout_of


def extra(folder: Path, text: str) -> Path:
    """Write the settings into a ComfyUI's folder."""
    folder.mkdir(exist_ok=True)
    (folder / "extra_model_paths.yaml").write_text(text, encoding="utf-8")
    return folder


def test_without_settings_its_own_folders_count(tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert layout_of(tmp_path, "loras").folders == (models / "loras", tmp_path / "output" / "loras")
    assert layout_of(tmp_path, "text_encoders").folders == (
        models / "text_encoders",
        models / "clip",
        tmp_path / "output" / "clip",
    )
    assert layout_of(tmp_path, "upscale_models").folders == (models / "upscale_models",)


def test_sections_add_folders_in_order_and_defaults_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_PLACE", "/elsewhere")
    comfyui = extra(
        tmp_path / "comfyui",
        """
a111:
    base_path: /srv/webui/
    checkpoints: models/Stable-diffusion
    loras: |
         models/Lora
         models/LyCORIS
comfyui:
    base_path: ../shared
    is_default: true
    loras: loras/
    unet: unets
more:
    loras: own/loras
    clip: /absolute/clip
last:
    base_path: $OTHER_PLACE
    is_default: true
    loras: a/../loras
nothing:
""",
    )
    assert layout_of(comfyui, "loras").folders == (
        Path("/elsewhere/loras"),
        tmp_path / "shared" / "loras",
        comfyui / "models" / "loras",
        Path("/srv/webui/models/Lora"),
        Path("/srv/webui/models/LyCORIS"),
        comfyui / "own" / "loras",
        comfyui / "output" / "loras",
    )
    assert layout_of(comfyui, "diffusion_models").folders[0] == tmp_path / "shared" / "unets"
    assert Path("/absolute/clip") in layout_of(comfyui, "text_encoders").folders
    assert layout_of(comfyui, "loras").problem is None


def test_a_folder_that_is_there_already_only_moves(tmp_path: Path) -> None:
    extra(tmp_path, "here:\n  is_default: true\n  loras: output/loras\n")
    assert layout_of(tmp_path, "loras").folders == (tmp_path / "output" / "loras", tmp_path / "models" / "loras")


@pytest.mark.parametrize("text", ["a: [", "- a list\n", "comfyui: models\n", "a: \x00"])
def test_settings_that_cannot_be_read_are_named_and_cost_only_their_own_folders(text: str, tmp_path: Path) -> None:
    layout = layout_of(extra(tmp_path, text), "loras")
    assert layout.folders == (tmp_path / "models" / "loras", tmp_path / "output" / "loras")
    assert str(tmp_path / "extra_model_paths.yaml") in (layout.problem or "")


def test_empty_settings_add_nothing(tmp_path: Path) -> None:
    assert layout_of(extra(tmp_path, "# all of it is a comment\n"), "loras").problem is None
