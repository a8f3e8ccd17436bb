"""An aitk_mcp before AI Toolkit's own server: one that answers, one that starts later, one that is elsewhere."""

import base64
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from aitk_mcp.settings import AitkSettings
from tests.fakes.aitk_ui import FakeAitkUi
from tests.servers.aitk import image

Serve = Callable[[ASGIApp], str]
PATIENCE_S = 30


def server_before(url: str, folder: Path, **given: Any) -> ASGIApp:
    """Return an aitk_mcp that is told where AI Toolkit's server is."""
    told = {"data_dir": folder / "aitk", "port": 0, "AITK_UI_URL": url, **given}
    return create_app(AitkSettings.model_validate(told))


async def send(url: str, tool: str, **arguments: Any) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=90) as client:
        return (await client.post(f"{url}/mcp/tool", json={"tool": tool, "arguments": arguments})).json()


async def call(url: str, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await send(url, tool, **arguments)
    assert answer["success"], answer
    return answer["result"]


async def test_images_become_a_lora_on_ai_toolkits_server(serve: Serve, tmp_path: Path) -> None:
    fake = FakeAitkUi(tmp_path / "toolkit")
    with fake.serving() as ui_url:
        url = serve(server_before(ui_url, tmp_path))
        images = [image(f"{index}.png", f"a cat {index}") for index in range(3)]
        dataset = await call(url, "upload-dataset", dataset_name="cats", images=images)
        assert Path(dataset["path"]) == tmp_path / "toolkit" / "datasets" / "cats"
        config = await call(
            url,
            "create-training-config",
            name="cat",
            model_name="black-forest-labs/FLUX.1-schnell",
            dataset_path="cats",
            steps=8,
            test_prompts=["a cat"],
        )
        assert config["config"]["config"]["process"][0]["training_folder"] == str(tmp_path / "toolkit" / "output")
        started = await call(url, "start-training", config_name="cat")
        assert (started["status"], started["engine"]) == ("running", "ui")
        done = await call(url, "wait-training", job_id=started["job_id"], wait_s=80)
        assert (done["status"], done["step"], done["model_path"]) == ("completed", 8, "cat/cat.safetensors")
        assert (await call(url, "get-training-loss", job_id=started["job_id"]))["points"]
        models = (await call(url, "list-exported-models"))["models"]
        assert [model["model_path"] for model in models] == ["cat/cat.safetensors"]
        async with httpx.AsyncClient(timeout=30) as client:
            health = (await client.get(f"{url}/health")).json()
            model = await client.get(f"{url}/models/cat/cat.safetensors")
        assert (health["status"], health["backend"]["engine"], health["backend"]["url"]) == ("ok", "ui", ui_url)
        assert model.content == (tmp_path / "toolkit" / "output" / "cat" / "cat.safetensors").read_bytes()


async def test_a_server_that_is_told_and_away_is_unavailable_until_it_comes(serve: Serve, tmp_path: Path) -> None:
    fake = FakeAitkUi(tmp_path / "toolkit")
    with fake.serving() as ui_url:
        pass
    url = serve(server_before(ui_url, tmp_path))
    for tool, arguments in (("list-datasets", {}), ("list-training-jobs", {}), ("list-exported-models", {})):
        answer = await send(url, tool, **arguments)
        assert answer["error"]["code"] == "backend_unavailable"
        assert ui_url in answer["error"]["message"]
    async with httpx.AsyncClient(timeout=30) as client:
        health = (await client.get(f"{url}/health")).json()
        assert (await client.get(f"{url}/models/x.safetensors")).status_code == 503
    assert (health["status"], health["backend"]["state"], health["backend"]["engine"]) == (
        "degraded",
        "unavailable",
        "ui",
    )
    deadline = time.monotonic() + PATIENCE_S
    with fake.serving(port=int(ui_url.rsplit(":", 1)[1])):
        while not (answer := await send(url, "list-training-jobs"))["success"]:
            assert time.monotonic() < deadline, answer
    assert answer["result"]["jobs"] == []


async def test_everything_goes_through_the_api_of_another_machine(serve: Serve, tmp_path: Path) -> None:
    fake = FakeAitkUi(tmp_path / "toolkit", machine="/far/away")
    fake.settings["HF_TOKEN"] = "hf_secret"
    with fake.serving() as ui_url:
        url = serve(server_before(ui_url, tmp_path))
        images = [image(name, "a cat") for name in ("狗.png", "猫.png", "a.png")]
        dataset = await call(url, "upload-dataset", dataset_name="Cats!", images=images)
        assert (dataset["path"], dataset["size_file"]) == ("/far/away/datasets/cats_", None)
        assert "another machine" in dataset["notes"][0]
        assert (await call(url, "check-dataset", dataset_name="cats_"))["readable"] == 3
        config = await call(
            url,
            "create-training-config",
            name="cat",
            model_name="black-forest-labs/FLUX.1-schnell",
            dataset_path="cats_",
            steps=8,
            test_prompts=["a cat"],
        )
        process = config["config"]["config"]["process"][0]
        assert process["datasets"][0]["folder_path"] == "/far/away/datasets/cats_"
        assert process["training_folder"] == "/far/away/output"
        job_id = (await call(url, "start-training", config_name="cat"))["job_id"]
        refused = await send(url, "delete-dataset", dataset_name="cats_")
        assert refused["error"]["code"] == "conflict"
        done = await call(url, "wait-training", job_id=job_id, wait_s=80)
        assert (done["status"], done["model_path"]) == ("completed", "cat/cat.safetensors")
        await downloads(url, tmp_path / "toolkit" / "output" / "cat", job_id)
        stats = await call(url, "get-system-stats")
        assert (stats["hostname"], stats["system"], stats["disks"]) == ("127.0.0.1", "Intel Xeon® Processor", [])
        assert (await call(url, "delete-dataset", dataset_name="cats_"))["images"] == 3
        deleted = await call(url, "delete-training-job", job_id=job_id, delete_models=True)
        assert deleted["deleted_models"] == ["cat/cat.safetensors"]
        kept = (await call(url, "list-exported-models"))["models"]
        assert [model["model_path"] for model in kept] == ["_exported/kept.safetensors"]
        everything = [await call(url, tool) for tool in ("list-datasets", "list-training-jobs", "list-configs")]
        assert "hf_secret" not in str(everything)
    assert not Path("/far").exists()


async def downloads(url: str, output: Path, job_id: str) -> None:
    """Ask for everything that a training left, and compare it with what lies on AI Toolkit's disk."""
    content = (output / "cat.safetensors").read_bytes()
    listed = (await call(url, "list-exported-models"))["models"]
    assert [(model["model_path"], model["size_bytes"]) for model in listed] == [("cat/cat.safetensors", len(content))]
    assert listed[0]["modified"] is not None
    about = await call(url, "get-model-info", model_path="cat")
    assert about["sha256"] == hashlib.sha256(content).hexdigest()
    assert (about["rank"], about["training_config"]["config"]["name"]) == (listed[0]["rank"], "cat")
    loaded = await call(url, "download-model", model_path="cat/cat.safetensors")
    assert base64.b64decode(loaded["content"]) == content
    exported = await call(url, "export-model", job_id=job_id, name="kept")
    assert Path(exported["path"]).read_bytes() == content
    samples = (await call(url, "list-samples", job_id=job_id))["samples"]
    async with httpx.AsyncClient(timeout=30) as client:
        address = f"{url}/models/cat/cat.safetensors"
        whole = await client.get(address)
        assert (whole.content, whole.headers["accept-ranges"]) == (content, "bytes")
        part = await client.get(address, headers={"Range": "bytes=100-199", "If-Range": whole.headers["etag"]})
        assert (part.status_code, part.content) == (206, content[100:200])
        changed = await client.get(address, headers={"Range": "bytes=100-199", "If-Range": '"other"'})
        assert (changed.status_code, changed.content) == (200, content)
        assert (await client.head(address)).headers["content-length"] == str(len(content))
        assert (await client.get(f"{url}/models/_exported/kept.safetensors")).content == content
        picture = await client.get(samples[0]["url"])
        assert picture.content == (output / "samples" / samples[0]["filename"]).read_bytes()
        assert (await client.get(f"{url}/models/cat/none.safetensors")).status_code == 404


async def test_folders_of_the_same_name_are_not_taken_for_the_same_disk(serve: Serve, tmp_path: Path) -> None:
    decoy = tmp_path / "decoy"
    (decoy / "datasets" / "not_theirs").mkdir(parents=True)
    fake = FakeAitkUi(tmp_path / "toolkit", machine=str(decoy))
    with fake.serving() as ui_url:
        url = serve(server_before(ui_url, tmp_path))
        assert (await call(url, "list-datasets"))["datasets"] == []
        await call(url, "upload-dataset", dataset_name="cats", images=[image()])
    assert (tmp_path / "toolkit" / "datasets" / "cats" / "cat.png").exists()
    assert [path.name for path in (decoy / "datasets").iterdir()] == ["not_theirs"]
    assert not (decoy / "output").exists()


async def test_a_disk_that_is_said_to_be_another_machines_is_left_to_the_api(serve: Serve, tmp_path: Path) -> None:
    fake = FakeAitkUi(tmp_path / "toolkit")
    with fake.serving() as ui_url:
        url = serve(server_before(ui_url, tmp_path, ui_disk="remote"))
        dataset = await call(url, "upload-dataset", dataset_name="cats", images=[image()])
        assert dataset["size_file"] is None
    assert "POST /api/datasets/upload" in fake.requests
    assert {path.name for path in Path(dataset["path"]).iterdir()} == {"cat.png", "cat.txt"}


async def test_folders_that_should_be_here_and_are_not_are_named(serve: Serve, tmp_path: Path) -> None:
    fake = FakeAitkUi(tmp_path / "toolkit", machine="/far/away")
    with fake.serving() as ui_url:
        answer = await send(serve(server_before(ui_url, tmp_path, ui_disk="shared")), "list-datasets")
    assert answer["error"]["code"] == "backend_unavailable"
    assert "/far/away/datasets" in answer["error"]["message"]
    assert "AITK_MCP_UI_DISK" in answer["error"]["hint"]


@pytest.mark.parametrize("tool", ["list-datasets", "list-training-jobs"])
async def test_without_any_ai_toolkit_the_embedded_engine_serves(serve: Serve, tmp_path: Path, tool: str) -> None:
    app = create_app(AitkSettings.model_validate({"data_dir": tmp_path / "aitk", "port": 0}))
    assert (await call(serve(app), tool))["total" if tool == "list-training-jobs" else "datasets"] in (0, [])
