"""The model tools and the download route, over LoRA files as AI Toolkit leaves them."""

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from anyio import to_thread
from safetensors.numpy import save
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from aitk_mcp.models.digests import Digests, Stamp
from aitk_mcp.models.links import Links
from aitk_mcp.models.models import Models
from aitk_mcp.tools.models import model_tools
from aitk_mcp.trainers.cli import CliTrainer, CommandLine
from aitk_mcp.training.jobs import TrainingJobs
from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, TooLarge
from mcp_toolserver.files import etag_of
from mcp_toolserver.tools import Toolbox
from tests.servers.aitk import call, settings_in, toolbox_in

CONFIG = """
job: extension
config:
  name: cat
  process:
  - type: diffusion_trainer
    trigger_word: tok
meta: {name: '[name]'}
"""


def save_lora(path: Path, step: int, at: int) -> Path:
    """Write a small FLUX LoRA with AI Toolkit's keys and metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    block = "transformer.single_transformer_blocks.0.attn.to_q"
    tensors = {
        f"{block}.lora_A.weight": np.full((4, 64), step, np.float16),
        f"{block}.lora_B.weight": np.zeros((64, 4), np.float16),
    }
    metadata = {
        "name": "cat",
        "format": "pt",
        "training_info": f'{{"step": {step}, "epoch": 1}}',
        "ss_base_model_version": "flux.1",
        "ss_tag_frequency": '{"1_tok": {"tok": 1}}',
    }
    path.write_bytes(save(tensors, metadata))
    os.utime(path, (at, at))
    return path


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Fill an outputs folder: a finished job, one on its way, and files that are no models."""
    folder = tmp_path / "output"
    save_lora(folder / "cat" / "cat_000000250.safetensors", 250, at=1000)
    save_lora(folder / "cat" / "cat.safetensors", 300, at=2000)
    save_lora(folder / "dog" / "dog_000000500.safetensors", 500, at=3000)
    save_lora(folder / "foreign.safetensors", 7, at=500)
    save_lora(folder / ".hidden" / "hidden.safetensors", 1, at=9000)
    (folder / "cat" / "config.yaml").write_text(CONFIG)
    (folder / "cat" / "optimizer.pt").write_bytes(b"no model")
    (folder / "dog" / "dog_000000750.safetensors").write_bytes(b"half written")
    os.utime(folder / "dog" / "dog_000000750.safetensors", (4000, 4000))
    return folder


@pytest.fixture
def tools(outputs: Path, tmp_path: Path) -> Toolbox:
    return toolbox_in(tmp_path)


async def test_models_are_listed_newest_first(tools: Toolbox, outputs: Path) -> None:
    answer = await call(tools, "list-exported-models")
    rows = [(model["model_path"], model["kind"], model["step"], model["finished"]) for model in answer["models"]]
    assert rows == [
        ("dog/dog_000000750.safetensors", "checkpoint", 750, False),
        ("dog/dog_000000500.safetensors", "checkpoint", 500, False),
        ("cat/cat.safetensors", "final", 300, True),
        ("cat/cat_000000250.safetensors", "checkpoint", 250, False),
        ("foreign.safetensors", "other", 7, False),
    ]
    assert answer["models"][0]["problem"]
    cat = answer["models"][2]
    assert (cat["architecture"], cat["rank"], cat["trigger_words"], cat["job"]) == ("flux", 4, ["tok"], "cat")
    assert cat["url"] == "http://127.0.0.1:8190/models/cat/cat.safetensors"
    assert answer["outputs_folder"] == str(outputs)
    finished = await call(tools, "list-exported-models", finished=True)
    assert [model["model_path"] for model in finished["models"]] == ["cat/cat.safetensors"]
    some = await call(tools, "list-exported-models", query="DOG", limit=1)
    assert (len(some["models"]), some["total"]) == (1, 2)


@pytest.mark.parametrize("name", ["cat/cat.safetensors", "cat", "cat.safetensors", "cat/cat", "ABSOLUTE"])
async def test_a_model_is_described_by_any_of_its_names(tools: Toolbox, outputs: Path, name: str) -> None:
    path = outputs / "cat" / "cat.safetensors"
    answer = await call(tools, "get-model-info", model_path=str(path) if name == "ABSOLUTE" else name)
    assert answer["model_path"] == "cat/cat.safetensors"
    assert answer["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert answer["network"]["rank"] == 4
    assert answer["training"]["steps"] == 300
    assert answer["metadata"]["ss_base_model_version"] == "flux.1"
    assert answer["training_config"]["meta"]["name"] == "cat"


async def test_a_model_travels_as_base64_or_as_an_address(tools: Toolbox, outputs: Path) -> None:
    path = outputs / "cat" / "cat.safetensors"
    # The old name of the argument, which scripts still send.
    answer = await call(tools, "download-model", model_name="cat/cat.safetensors", include_metadata=True)
    assert base64.b64decode(answer["content"]) == path.read_bytes()
    assert (answer["filename"], answer["size"], answer["path"]) == ("cat.safetensors", path.stat().st_size, str(path))
    assert answer["metadata"]["name"] == "cat"
    assert answer["training_config"]["config"]["process"][0]["trigger_word"] == "tok"
    linked = await call(tools, "download-model", model_path="cat", format="url", include_metadata=False)
    assert linked["url"].endswith("/models/cat/cat.safetensors")
    assert linked["content"] is None
    assert linked["metadata"] is None
    assert linked["sha256"] == answer["sha256"]
    assert linked["etag"] == etag_of(path.stat())
    assert linked["link_safe"] is True


async def test_past_its_bound_base64_names_the_other_ways(outputs: Path, tmp_path: Path) -> None:
    trainer = CliTrainer(CommandLine.embedded(tmp_path), tmp_path / "jobs")
    jobs = TrainingJobs(trainer, NoConfigs())
    tools = Toolbox(model_tools(models_in(outputs, tmp_path), jobs, Links(trainer), max_base64_bytes=100))
    with pytest.raises(TooLarge) as caught:
        await call(tools, "download-model", model_path="cat")
    assert "`format: url`" in (caught.value.hint or "")
    assert "transfer_lora_between_services.py" in (caught.value.hint or "")
    assert caught.value.details["url"].endswith("/models/cat/cat.safetensors")
    assert (await call(tools, "download-model", model_path="cat", format="url"))["size"] > 100


class NoConfigs:
    """A place without any config."""

    async def get(self, name: str) -> Any:
        raise NotFound(f"There is no config `{name}`.")

    async def check_stored(self, name: str) -> Any:
        raise NotFound(f"There is no config `{name}`.")


@pytest.mark.parametrize(
    "path", ["../jobs/x.safetensors", "/etc/passwd", "cat/../../x", ".hidden/hidden.safetensors", ""]
)
async def test_a_path_that_leads_elsewhere_is_refused(tools: Toolbox, path: str) -> None:
    with pytest.raises(InvalidArguments, match="model_path"):
        await call(tools, "download-model", model_path=path)


async def test_a_model_that_is_not_there_is_answered_with_the_closest(tools: Toolbox) -> None:
    with pytest.raises(NotFound) as caught:
        await call(tools, "get-model-info", model_path="cat/cat_000000200.safetensors")
    assert caught.value.details["closest_matches"][0] == "cat/cat_000000250.safetensors"
    with pytest.raises(NotFound):
        await call(tools, "get-model-info", model_path="cat/optimizer.pt")


async def test_a_changed_file_gets_a_new_description_and_digest(tools: Toolbox, outputs: Path) -> None:
    before = await call(tools, "get-model-info", model_path="cat")
    save_lora(outputs / "cat" / "cat.safetensors", 900, at=5000)
    after = await call(tools, "get-model-info", model_path="cat")
    assert (before["step"], after["step"]) == (300, 900)
    assert before["sha256"] != after["sha256"]


def models_in(outputs: Path, folder: Path) -> Models:
    """Return the models of a server that was just started on a folder."""
    return Models(outputs, Digests(folder / "cache" / "digests.sqlite"))


async def test_a_digest_is_remembered_from_one_start_to_the_next(outputs: Path, tmp_path: Path) -> None:
    first = models_in(outputs, tmp_path)
    model = await first.find("cat")
    assert model.sha256 is None
    digest = await first.sha256(model)
    again = await models_in(outputs, tmp_path).find("cat")
    assert again.sha256 == digest
    stamp = await to_thread.run_sync(Stamp.of, model.path)
    # Other bytes of the same size at the same time would go unseen: that nothing is read again shows in this.
    with model.path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    os.utime(model.path, ns=(stamp.modified_ns, stamp.modified_ns))
    restarted = models_in(outputs, tmp_path)
    assert await restarted.sha256(model) == digest
    os.utime(model.path, (5000, 5000))
    assert (await restarted.find("cat")).sha256 is None
    assert await restarted.sha256(model) != digest


async def test_lost_digests_cost_time_and_nothing_else(outputs: Path, tmp_path: Path) -> None:
    models = models_in(outputs, tmp_path)
    model = await models.find("cat")
    digest = await models.sha256(model)
    (tmp_path / "cache" / "digests.sqlite").write_bytes(b"no database, but long enough to be looked at" * 50)
    restarted = models_in(outputs, tmp_path)
    assert (await restarted.find("cat")).sha256 is None
    assert await restarted.sha256(model) == digest
    model.path.unlink()
    assert "cat/cat.safetensors" not in [each.model_path for each in await models_in(outputs, tmp_path).all()]


async def test_the_two_of_a_pair_stand_together_in_the_list(outputs: Path, tmp_path: Path) -> None:
    for name, at in (("wan_high_noise", 7000), ("other", 7001), ("wan_low_noise", 7002)):
        save_lora(outputs / "wan" / f"{name}.safetensors", 100, at=at)
    newest = [model.model_path for model in await models_in(outputs, tmp_path).all()][:3]
    assert newest == [
        "wan/wan_high_noise.safetensors",
        "wan/wan_low_noise.safetensors",
        "wan/other.safetensors",
    ]


async def test_an_export_is_a_copy_that_nothing_changes_any_more(outputs: Path, tmp_path: Path) -> None:
    models = models_in(outputs, tmp_path)
    final = await models.find("cat")
    exported = await models.export(final, "keep_me", overwrite=False)
    assert exported.model_path == "_exported/keep_me.safetensors"
    assert exported.finished
    assert exported.path.read_bytes() == final.path.read_bytes()
    again = await models.export(final, "keep_me", overwrite=False)
    assert again.modified == exported.modified
    other = await models.find("dog/dog_000000500")
    with pytest.raises(Conflict, match="other bytes"):
        await models.export(other, "keep_me", overwrite=False)
    assert (await models.export(other, "keep_me", overwrite=True)).step == 500
    with pytest.raises(InvalidArguments, match="no complete LoRA"):
        await models.export(await models.find("dog/dog_000000750"), "half", overwrite=False)
    assert [path.name for path in (outputs / "_exported").iterdir()] == ["keep_me.safetensors"]


async def test_the_address_serves_ranges(serve: Callable[[ASGIApp], str], outputs: Path, tmp_path: Path) -> None:
    data = (outputs / "cat" / "cat.safetensors").read_bytes()
    async with httpx.AsyncClient(base_url=served(serve, tmp_path)) as client:
        whole = await client.get("/models/cat/cat.safetensors")
        assert whole.content == data
        assert whole.headers["accept-ranges"] == "bytes"
        part = await client.get("/models/cat/cat.safetensors", headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, data[10:20])
        head = await client.head("/models/cat/cat.safetensors")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(data))
        missing = await client.get("/models/cat/cta.safetensors")
        assert missing.status_code == 404
        assert missing.json()["error"]["details"]["closest_matches"]
        outside = await client.get("/models/..%2f..%2fsecret")
        assert outside.status_code in (404, 422)


def served(serve: Callable[[ASGIApp], str], folder: Path) -> str:
    return serve(create_app(settings_in(folder)))
