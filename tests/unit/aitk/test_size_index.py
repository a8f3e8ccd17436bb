"""The size file against the captured one, and against every way in which AI Toolkit was seen to lose an image."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from aitk_mcp.images import BadImage, ImageSize, check_image, read_size
from aitk_mcp.size_index import FILE_NAME, image_files, read_index, render_index, sizes_of, write_index

CAPTURED = Path(__file__).parent / "captured" / "aitk_size_two_images.json"
AT = 1_700_000_000


def save(path: Path, width: int, height: int, orientation: int | None = None, size_bytes: int | None = None) -> Path:
    """Write an image whose file has exactly `size_bytes` and the captured mtime."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (width, height), (200, 30, 90)).save(path, exif=exif, quality=5, optimize=True)
    if size_bytes:
        with path.open("ab") as file:
            file.write(bytes(size_bytes - path.stat().st_size))
    os.utime(path, ns=(AT * 10**9, AT * 10**9 + 900_000_000))
    return path


def test_a_file_of_the_captured_size_gives_the_captured_bytes(tmp_path: Path) -> None:
    save(tmp_path / "b.jpg", 96, 64, orientation=6, size_bytes=725)
    save(tmp_path / "a.png", 96, 64, size_bytes=212)
    sizes = sizes_of(tmp_path)
    in_captured_order = {tmp_path / name: sizes[tmp_path / name] for name in ("b.jpg", "a.png")}
    assert render_index(tmp_path, in_captured_order) == CAPTURED.read_bytes()


def test_the_order_is_that_of_os_walk(tmp_path: Path) -> None:
    for name in ("z.png", "a.png", "x/y/c.webp", "m.jpg"):
        save(tmp_path / name, 64, 64)
    write_index(tmp_path)
    walked = [
        f"{parent.removeprefix(str(tmp_path))}/{name}"
        for parent, _, names in os.walk(tmp_path)
        for name in names
        if not name.startswith(".")
    ]
    assert list(json.loads((tmp_path / FILE_NAME).read_text())) == ["__version__", *walked]


def test_what_ai_toolkit_skips_is_skipped_and_names_are_escaped(tmp_path: Path) -> None:
    for name in ("U.JPG", "狗 1.png", "_latent_cache/z.png", "_controls/c.png", ".thumbs/t.png", ".hidden.png"):
        save(tmp_path / name, 70, 70)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "notimg.png").write_text("no image")
    written = write_index(tmp_path).read_bytes()
    assert b"/\\u72d7 1.png" in written
    assert not written.endswith(b"\n")
    assert set(json.loads(written)) == {"__version__", "/U.JPG", "/狗 1.png", "/_latent_cache/z.png"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_image(tmp_path: Path, orientation: int) -> None:
    path = save(tmp_path / "r.jpg", 100, 50, orientation)
    sideways = orientation >= 5
    assert read_size(path) == check_image(path.read_bytes()) == ImageSize(*((50, 100) if sideways else (100, 50)))


@pytest.mark.parametrize(
    "entry",
    [
        {"width": 96, "height": 64, "signature": "SIGNATURE"},
        5,
        None,
        [96, 64],
        ["96", "64", "SIGNATURE"],
        [96.0, 64.0, "SIGNATURE"],
        [True, 64, "SIGNATURE"],
        [999, 333, "1:1"],
        "text",
    ],
)
def test_an_entry_of_any_other_form_is_written_anew(tmp_path: Path, entry: object) -> None:
    path = save(tmp_path / "a.png", 96, 64)
    signature = f"{path.stat().st_size}:{AT}"
    broken = json.dumps({"__version__": "0.1.2", "/a.png": entry, "/gone.png": [1, 1, "1:1"]})
    (tmp_path / FILE_NAME).write_text(broken.replace("SIGNATURE", signature))
    write_index(tmp_path)
    assert json.loads((tmp_path / FILE_NAME).read_text()) == {"__version__": "0.1.2", "/a.png": [96, 64, signature]}


@pytest.mark.parametrize("text", ["", "{", "null", '"text"', "[1]", "{}", '{"__version__": "0.1.1", "/a.png": 1}'])
def test_a_broken_or_old_file_is_no_obstacle(tmp_path: Path, text: str) -> None:
    save(tmp_path / "a.png", 96, 64)
    (tmp_path / FILE_NAME).write_text(text)
    assert read_index(tmp_path) == {}
    write_index(tmp_path)
    assert list(read_index(tmp_path)) == ["/a.png"]


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
        max_leaves=6,
    )
)
def test_whatever_stood_there_every_written_entry_is_one_that_loads(
    tmp_path_factory: pytest.TempPathFactory, entry: object
) -> None:
    folder = tmp_path_factory.mktemp("dataset")
    save(folder / "a.png", 3, 2)
    (folder / FILE_NAME).write_text(json.dumps({"__version__": "0.1.2", "/a.png": entry}))
    write_index(folder)
    width, height, signature = json.loads((folder / FILE_NAME).read_text())["/a.png"]
    assert type(width) is type(height) is int
    assert type(signature) is str
    assert [path.name for path in image_files(folder)] == ["a.png"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b'<?xml version="1.0"?><svg xmlns="x">', "SVG"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
        (b"hello", "no image"),
    ],
)
def test_what_is_no_image_is_named_for_what_it_is(data: bytes, said: str) -> None:
    with pytest.raises(BadImage, match=said):
        check_image(data)


def test_cut_off_and_foreign_images_are_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.jpg", 300, 300).read_bytes()
    with pytest.raises(BadImage, match="does not decode"):
        check_image(whole[: len(whole) // 2])
    Image.new("P", (8, 8)).save(tmp_path / "a.gif")
    with pytest.raises(BadImage, match="GIF"):
        check_image((tmp_path / "a.gif").read_bytes())
    Image.new("1", (20_000, 6_000)).save(tmp_path / "huge.png")
    with pytest.raises(BadImage, match="million"):
        check_image((tmp_path / "huge.png").read_bytes())
