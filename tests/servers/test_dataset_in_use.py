"""A dataset that a training reads is not taken from under it."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from tests.servers.aitk import image
from tests.servers.training import ENDLESS, Caller, training_server


@pytest.fixture
async def call(tmp_path: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[Caller]:
    """Give a server with a dataset."""
    async with training_server(tmp_path, serve) as caller:
        yield caller


async def test_images_that_a_training_reads_are_neither_replaced_nor_deleted(call: Caller, tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "cats"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    job_id = (await call("start-training", config_name=await call.config("cat", steps=ENDLESS)))["job_id"]
    other = {"dataset_name": "cats", "images": [image("new.png")], "overwrite": True}
    for tool, arguments in (
        ("upload-dataset", other),
        ("delete-images", {"dataset_name": "Cats", "filenames": ["0.png"]}),
        ("delete-dataset", {"dataset_name": "cats"}),
    ):
        error = await call.refused(tool, **arguments)
        assert (error["code"], error["details"]) == ("conflict", {"dataset_name": "cats", "job_ids": [job_id]}), tool
        assert f"training job `{job_id}`" in error["message"]
        assert "stop-training" in error["hint"]
        assert "another name" in error["hint"]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not list((tmp_path / "datasets" / ".staging").iterdir())
    await call("upload-dataset", **other | {"dataset_name": "dogs"})
    await call("delete-dataset", dataset_name="dogs")
    await call("stop-training", job_id=job_id, save=False)
    assert (await call("delete-images", dataset_name="cats", filenames=["0.png"]))["images"] == 1
    assert (await call("upload-dataset", **other))["images_saved"] == 1
    assert (await call("delete-dataset", dataset_name="cats"))["images"] == 1


async def test_a_caption_may_be_changed_but_the_trainings_that_missed_it_are_named(call: Caller) -> None:
    caption = {"dataset_name": "cats", "filename": "0.png", "caption": "pixcat asleep"}
    assert (await call("set-caption", **caption))["warnings"] == []
    job_id = (await call("start-training", config_name=await call.config("cat", steps=ENDLESS)))["job_id"]
    (warning,) = (await call("set-caption", **caption))["warnings"]
    assert f"`{job_id}`" in warning
