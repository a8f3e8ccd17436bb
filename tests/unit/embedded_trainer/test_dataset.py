"""The dataset reader against AI Toolkit's rules: which files count, and which caption each is trained with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aitk_mcp.documents import read_document
from aitk_mcp.embedded.dataset import caption_of, load_datasets, to_square


def image(path: Path, colour: tuple[int, int, int] = (200, 40, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), colour).save(path)
    return path


@pytest.mark.parametrize(
    ("text", "block", "trigger", "expected"),
    [
        ("a cat, sitting", {}, None, "a cat,  sitting"),
        ("a,b", {}, None, "a, b"),
        ("a cat", {}, "pxcat", "pxcat a cat"),
        ("a pxcat sits", {}, "pxcat", "a pxcat sits"),
        ("[trigger] sits", {}, "pxcat", "pxcat sits"),
        ("[trigger] sits", {}, None, " sits"),
        ("a cat", {"is_reg": True}, "pxcat", "a cat"),
        ("a cat", {"trigger_word": "own"}, "pxcat", "own a cat"),
        (" \n", {"default_caption": "a thing"}, None, "a thing"),
        (None, {"default_caption": "a thing"}, "pxcat", "pxcat a thing"),
        (None, {}, "pxcat", "pxcat "),
        ("line\nline", {}, None, "line\nline"),
        ("猫", {"caption_ext": ".txt"}, None, "猫"),
    ],
)
def test_captions_follow_ai_toolkits_rules(
    tmp_path: Path, text: str | None, block: dict[str, Any], trigger: str | None, expected: str
) -> None:
    if text is not None:
        (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "default.txt").write_text("never used")
    assert caption_of(tmp_path / "a.png", block, trigger) == expected


def test_another_caption_extension_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.caption").write_text("from .caption")
    assert caption_of(tmp_path / "a.png", {"caption_ext": "caption"}, None) == "from .caption"


def document(*datasets: dict[str, Any], trigger_word: str | None = None) -> Any:
    process = {"type": "sd_trainer", "datasets": list(datasets), "trigger_word": trigger_word}
    return read_document({"job": "extension", "config": {"name": "a", "process": [process]}})


def test_a_folder_is_read_to_its_depth_without_hidden_and_control_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b.JPG", "sub/c.webp", "a.png", ".hidden.png", ".thumbs/x.png", "_controls/y.png", "notes.txt"):
        image(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "sub" / "c.txt").write_text("third")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = load_datasets(document({"folder_path": str(tmp_path)}), tmp_path)
    assert found.images.shape == (3, 32, 32, 3)
    assert found.captions == ("first", "", "third")
    told = capsys.readouterr().out
    assert f"Error processing image: {tmp_path / 'broken.png'}" in told
    assert "Found 3 images" in told
    sizes = json.loads((tmp_path / ".aitk_size.json").read_text())
    assert sizes["__version__"] == "0.1.2"
    assert sizes["/sub/c.webp"][:2] == [64, 48]


def test_repeats_and_flips_multiply_the_images(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    block = {"folder_path": str(tmp_path), "num_repeats": 2, "flip_x": True}
    assert len(load_datasets(document(block), tmp_path).captions) == 4


def test_a_json_dataset_brings_its_captions(tmp_path: Path) -> None:
    path = image(tmp_path / "far" / "a.png")
    listing = tmp_path / "captions.json"
    listing.write_text(json.dumps({str(path): {"caption": "from the list"}}))
    assert load_datasets(document({"dataset_path": str(listing)}), tmp_path).captions == ("from the list",)


def test_an_empty_and_a_missing_dataset_fail_as_ai_toolkit_does(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images found in"):
        load_datasets(document({"folder_path": str(tmp_path)}), tmp_path)
    with pytest.raises(FileNotFoundError, match="No such file or directory: '/nope/ds'"):
        load_datasets(document({"folder_path": "/nope/ds"}), tmp_path)


def test_pixel_art_that_was_scaled_up_comes_back_as_it_was_drawn() -> None:
    art = np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8)
    large = Image.fromarray(art).resize((512, 512), Image.Resampling.NEAREST)
    assert np.array_equal(to_square(large), art)


def test_an_exif_rotated_photo_is_trained_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), "black")
    picture.paste("white", (0, 0, 64, 16))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        upright = to_square(stored)
    assert upright[16, -1].min() > 200
    assert upright[0, 0].max() < 50
