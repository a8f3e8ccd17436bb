"""The pure parts of nodes: geometry, file names, node descriptions."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from comfy_mcp.embedded.folders import Folders
from comfy_mcp.embedded.nodes.catalogue import NODES
from comfy_mcp.embedded.nodes.geometry import enlarge, preview_jpeg, reduce
from comfy_mcp.embedded.nodes.saving import SavedSeries, png_texts

SIDES = st.integers(min_value=1, max_value=120)
TINY = np.random.RandomState(0).randint(0, 256, (2, 32, 32, 3)).astype(np.uint8)


def _as_numbers(pictures: NDArray[np.uint8]) -> NDArray[np.int64]:
    return pictures.astype(np.int64) @ np.array([65536, 256, 1])


@given(SIDES, SIDES)
def test_enlarging_gives_the_size_and_keeps_colours(width_px: int, height_px: int) -> None:
    picture = enlarge(TINY, width_px, height_px)
    assert picture.shape == (2, height_px, width_px, 3)
    assert np.isin(_as_numbers(picture), _as_numbers(TINY)).all()


@pytest.mark.parametrize(("width_px", "height_px"), [(128, 128), (256, 128), (64, 192)])
def test_reducing_undoes_enlarging_within_the_picture(width_px: int, height_px: int) -> None:
    back = reduce(enlarge(TINY, width_px, height_px))
    square = max(width_px, height_px)
    rows, columns = (32 - 32 * height_px // square) // 2, (32 - 32 * width_px // square) // 2
    inner = slice(None), slice(rows, 32 - rows), slice(columns, 32 - columns)
    assert np.array_equal(back[inner], TINY[inner])


def test_a_preview_is_a_jpeg_in_proportion() -> None:
    with Image.open(io.BytesIO(preview_jpeg(TINY, 1024, 512))) as preview:
        assert (preview.format, preview.size) == ("JPEG", (256, 128))


def _saved(folder: Path, prefix: str) -> tuple[str, str]:
    series = SavedSeries(folder, prefix, 64, 48)
    return series.subfolder, series.save(TINY[0], png_texts({}, None), 0)


def test_file_names_count_on(tmp_path: Path) -> None:
    assert _saved(tmp_path, "cat") == ("", "cat_00001_.png")
    assert _saved(tmp_path, "cat") == ("", "cat_00002_.png")
    assert _saved(tmp_path, "ca") == ("", "ca_00001_.png")
    (tmp_path / "cat_00041_.png").touch()
    assert _saved(tmp_path, "cat") == ("", "cat_00042_.png")
    assert _saved(tmp_path, "a/b/x_%width%x%height%") == ("a/b", "x_64x48_00001_.png")
    assert _saved(tmp_path, "batch_%batch_num%")[1] == "batch_0_00001_.png"


@pytest.mark.parametrize("prefix", ["../evil", "/tmp/evil", "a/../../evil"])
def test_file_names_stay_in_their_folder(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(ValueError, match="outside the output folder"):
        SavedSeries(tmp_path / "output", prefix, 64, 64)


def test_a_saved_file_is_whole_or_absent(tmp_path: Path) -> None:
    _saved(tmp_path, "cat")
    assert [path.name for path in tmp_path.iterdir()] == ["cat_00001_.png"]
    with Image.open(tmp_path / "cat_00001_.png") as picture:
        assert np.array_equal(np.asarray(picture), TINY[0])


@pytest.mark.parametrize("name", NODES)
def test_every_node_class_describes_itself(tmp_path: Path, name: str) -> None:
    folders = Folders(tmp_path)
    folders.create()
    described = NODES[name].describe(folders)
    assert described["name"] == name
    assert described["description"]
    lengths = {len(described[key]) for key in ("output", "output_name", "output_is_list", "output_tooltips")}
    assert len(lengths) == 1
    for group in ("required", "optional"):
        for config in described["input"].get(group, {}).values():
            assert isinstance(config[0], str | list)
