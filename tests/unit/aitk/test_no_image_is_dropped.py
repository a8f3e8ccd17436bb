"""No image is lost to `.aitk_size.json`: a reader with AI Toolkit's own weaknesses always finds them all.

The reader does what AI Toolkit 0.12.26 was seen to do with each form of an entry, and drops an image where that did.
"""

import base64
import json
import os
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from PIL import Image, ImageOps

from aitk_mcp.datasets.datasets import Datasets
from aitk_mcp.datasets.staging import NewImage
from aitk_mcp.size_index import FILE_NAME, image_files, signature_of, write_index

Sizes = dict[str, tuple[int, int]]


def read_as_trainer(folder: Path) -> Sizes:
    """Return the size that each image would be trained at; one that is dropped is missing."""
    sizes: Sizes = {}
    database = _database(folder)
    for path in image_files(folder):
        try:
            sizes[path.name] = _size(path, database.get(str(path).replace(str(folder), "")))
        except (KeyError, TypeError):
            continue
    return sizes


def _database(folder: Path) -> dict[str, Any]:
    try:
        loaded: Any = json.loads((folder / FILE_NAME).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(loaded, dict):
        return {}
    database = cast(dict[str, Any], loaded)
    return database if database.get("__version__") == "0.1.2" else {}


def _size(path: Path, entry: Any) -> tuple[int, int]:
    if entry is not None and len(entry) >= 3 and entry[2] == signature_of(path):
        # It divides one side by the other to choose a bucket.
        return (entry[0], entry[1]) if entry[0] * 1.0 and entry[1] * 1.0 else (0, 0)
    return true_size(path)


def true_size(path: Path) -> tuple[int, int]:
    """Return the size of an image that was turned upright."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).size


def picture(width: int, height: int, orientation: int = 1) -> str:
    """Return an image as base64."""
    file, exif = BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height), "teal").save(file, "JPEG", exif=exif)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("entry", "seen"),
    [
        ([96, 64, "SIGNATURE"], (96, 64)),
        ([999, 333, "SIGNATURE"], (999, 333)),
        ([999, 333, "1:1"], (96, 64)),
        (None, (96, 64)),
        ([96, 64], (96, 64)),
        ({"width": 96, "height": 64}, (96, 64)),
        ({"width": 96, "height": 64, "signature": "SIGNATURE"}, None),
        (5, None),
        (["96", "64", "SIGNATURE"], None),
    ],
)
def test_the_reader_is_as_weak_as_ai_toolkit(tmp_path: Path, entry: Any, seen: tuple[int, int] | None) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(base64.b64decode(picture(96, 64)))
    database = json.dumps({"__version__": "0.1.2", "/a.jpg": entry}).replace("SIGNATURE", signature_of(image))
    (tmp_path / FILE_NAME).write_text(database)
    assert read_as_trainer(tmp_path) == ({"a.jpg": seen} if seen else {})
    if seen != (999, 333):
        write_index(tmp_path)
        assert read_as_trainer(tmp_path) == {"a.jpg": (96, 64)}


@pytest.mark.parametrize(
    "harm", ["", "{", "null", "[]", '{"__version__": "0.1.2", "/a.jpg": 5, "/b.jpg": {"1": 1, "2": 2, "3": 3}}']
)
def test_every_image_is_found_at_its_size_after_every_change(tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "cat"

    def upload(**images: tuple[int, int, int]) -> None:
        sent = [NewImage(f"{name}.jpg", picture(*drawn)) for name, drawn in images.items()]
        anyio.run(partial(Datasets(tmp_path).upload, "cat", sent, overwrite=True))

    def require_all(*names: str) -> None:
        expected = {path.name: true_size(path) for path in folder.glob("*.jpg")}
        assert read_as_trainer(folder) == expected
        assert set(expected) == {f"{name}.jpg" for name in names}

    upload(a=(30, 20, 6), b=(30, 20, 1), c=(9, 40, 8))
    require_all("a", "b", "c")
    (folder / FILE_NAME).write_text(harm)
    changed = folder / "b.jpg"
    changed.write_bytes(base64.b64decode(picture(50, 20)))
    os.utime(changed, (1, 1))
    anyio.run(Datasets(tmp_path).delete_images, "cat", ["c.jpg"])
    require_all("a", "b")
    upload(b=(20, 50, 5), d=(7, 7, 1))
    require_all("b", "d")
