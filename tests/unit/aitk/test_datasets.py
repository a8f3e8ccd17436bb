"""Datasets under stress: names that collide, a full disk, a killed server, two callers at once."""

import base64
from io import BytesIO
from pathlib import Path

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aitk_mcp.datasets.datasets import Datasets
from aitk_mcp.datasets.imports import NewDataset, import_path
from aitk_mcp.datasets.staging import NewImage, plan_names
from mcp_toolserver.errors import Conflict, InsufficientStorage
from tests.fakes.disk_faults import largest_file

FILENAMES = st.lists(
    st.tuples(
        st.text(min_size=1, max_size=6), st.sampled_from([".png", ".PNG", ".jpg", ".webp", "_png.jpg", ".gif"])
    ).map("".join),
    max_size=12,
)


@settings(deadline=None)
@given(FILENAMES)
def test_every_image_keeps_a_name_and_a_caption_of_its_own(filenames: list[str]) -> None:
    names = plan_names(filenames)
    assert len(names.stored) + len(names.bad) == len(filenames)
    stems = [Path(name).stem.casefold() for name in names.stored]
    assert len(set(stems)) == len(stems)
    for name in names.stored:
        assert Path(name).name == name
        assert not name.startswith(".")
    for renamed in names.renamed:
        assert renamed.renamed_to in names.stored
        assert Path(renamed.renamed_to).suffix == Path(renamed.filename).suffix


def image(name: str, side: int = 8) -> NewImage:
    """Return an image of noise, which no format makes small."""
    file = BytesIO()
    noise = np.random.RandomState(0).randint(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return NewImage(name, base64.b64encode(file.getvalue()).decode(), "a cat")


async def test_a_full_disk_is_told_as_one_and_leaves_what_was_there(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path)
    await datasets.upload("cat", [image("old.png")])
    with largest_file(50_000), pytest.raises(InsufficientStorage, match="full"):
        await datasets.upload("cat", [image("small.png"), image("large.png", side=200)], overwrite=True)
    assert [each.filename for each in await datasets.images("cat")] == ["old.png"]
    assert not list((tmp_path / ".staging").iterdir())


async def test_on_a_full_disk_an_import_and_a_caption_leave_what_was_there(tmp_path: Path) -> None:
    root, source = tmp_path / "datasets", tmp_path / "cats"
    datasets = Datasets(root)
    await datasets.upload("cat", [image("old.png")])
    source.mkdir()
    (source / "large.png").write_bytes(base64.b64decode(image("large.png", side=200).content))
    before = {path: path.read_bytes() for path in (root / "cat").iterdir()}
    with largest_file(50_000):
        with pytest.raises(InsufficientStorage, match="full"):
            await import_path(datasets, [tmp_path], "cats", NewDataset("cat", overwrite=True))
        with pytest.raises(InsufficientStorage, match="full"):
            await datasets.set_caption("cat", "old.png", "a cat " * 10_000)
    assert {path: path.read_bytes() for path in (root / "cat").iterdir()} == before
    assert not list((root / ".staging").iterdir())


async def test_what_a_killed_server_left_is_put_back_or_thrown_away(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path)
    await datasets.upload("cat", [image("a.png")])
    await datasets.upload("dog", [image("a.png")])
    staging = tmp_path / ".staging"
    # Killed between setting the old dataset aside and moving the new one in its place.
    (tmp_path / "cat").rename(staging / "cat.0123.old")
    (tmp_path / "dog").rename(staging / "dog.0123.deleted")
    (staging / "cat.4567.new").mkdir()
    (staging / "cat.4567.new" / "half.png").write_bytes(b"half")
    await datasets.recover()
    assert [each.name for each in await datasets.all()] == ["cat"]
    assert not list(staging.iterdir())


async def test_of_two_callers_one_wins_and_nothing_is_mixed(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path)
    lost: list[Conflict] = []

    async def upload(names: list[str]) -> None:
        try:
            await datasets.upload("cat", [image(name) for name in names])
        except Conflict as error:
            lost.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(upload, ["a.png", "b.png"])
        group.start_soon(upload, ["x.png", "y.png"])
    assert len(lost) == 1
    names = [each.filename for each in await datasets.images("cat")]
    assert names in (["a.png", "b.png"], ["x.png", "y.png"])


async def test_a_caller_that_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path)
    with anyio.CancelScope() as scope:

        async def leave(done: float, total: float | None = None, message: str | None = None) -> None:
            scope.cancel()

        await datasets.upload("cat", [image(f"{n}.png", side=64) for n in range(5)], report=leave)
    assert scope.cancelled_caught
    assert await datasets.all() == []
    assert not list((tmp_path / ".staging").iterdir())
