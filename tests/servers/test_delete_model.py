"""delete-model: one file by its whole path, and never under a trainer's hands."""

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from mcp_toolserver.client import ToolClient
from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound
from mcp_toolserver.tools import Toolbox
from tests.servers.aitk import call, image, settings_in, toolbox_in
from tests.servers.test_aitk_models import save_lora


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    save_lora(folder / "cat" / "cat_000000250.safetensors", 250, at=1000)
    save_lora(folder / "cat" / "cat.safetensors", 300, at=2000)
    save_lora(folder / "_exported" / "cat.safetensors", 300, at=2000)
    return folder


@pytest.fixture
def tools(outputs: Path, tmp_path: Path) -> Toolbox:
    return toolbox_in(tmp_path)


async def test_one_file_is_deleted_and_the_others_stay(tools: Toolbox, outputs: Path) -> None:
    answer = await call(tools, "delete-model", model_path="cat/cat_000000250.safetensors")
    assert (answer["kind"], answer["step"], answer["left_of_job"]) == ("checkpoint", 250, ["cat/cat.safetensors"])
    assert sorted(path.relative_to(outputs).as_posix() for path in outputs.rglob("*.safetensors")) == [
        "_exported/cat.safetensors",
        "cat/cat.safetensors",
    ]
    assert (await call(tools, "delete-model", model_path="_exported/cat.safetensors"))["left_of_job"] == []
    with pytest.raises(NotFound):
        await call(tools, "delete-model", model_path="_exported/cat.safetensors")


@pytest.mark.parametrize("name", ["cat", "cat/cat", "cat.safetensors"])
async def test_a_short_name_deletes_nothing(tools: Toolbox, outputs: Path, name: str) -> None:
    before = sorted(outputs.rglob("*"))
    with pytest.raises(InvalidArguments, match="is short for") as caught:
        await call(tools, "delete-model", model_path=name)
    assert caught.value.details["closest_matches"][0].endswith("cat.safetensors")
    assert sorted(outputs.rglob("*")) == before


@pytest.mark.parametrize("name", ["", "..", "../configs/a.safetensors", "/etc/passwd", "*", "cat/optimizer.pt"])
async def test_nothing_but_a_model_is_deleted(tools: Toolbox, outputs: Path, name: str) -> None:
    (outputs / "cat" / "optimizer.pt").write_bytes(b"state")
    before = sorted(outputs.rglob("*"))
    with pytest.raises((InvalidArguments, NotFound)):
        await call(tools, "delete-model", model_path=name)
    assert sorted(outputs.rglob("*")) == before


async def test_a_job_that_has_not_ended_keeps_its_files(tmp_path: Path, serve: Callable[[ASGIApp], str]) -> None:
    async with ToolClient(serve(create_app(settings_in(tmp_path)))) as client:
        await client.call("upload-dataset", {"dataset_name": "cat", "images": [image()]})
        config = {"name": "cat", "model_name": "tinyflux", "dataset_path": "cat", "steps": 100_000}
        await client.call("create-training-config", config)
        job_id = (await client.call("start-training", {"config_name": "cat"}))["job_id"]
        try:
            save_lora(tmp_path / "output" / "cat" / "cat_000000001.safetensors", 1, at=1000)
            with pytest.raises(Conflict, match=job_id):
                await client.call("delete-model", {"model_path": "cat/cat_000000001.safetensors"})
        finally:
            await client.call("stop-training", {"job_id": job_id, "save": False})
        await client.call("delete-model", {"model_path": "cat/cat_000000001.safetensors"})
