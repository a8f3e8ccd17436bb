"""An aitk_mcp before AI Toolkit's own server: one that answers, one that starts later, one that is elsewhere."""

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


def server_before(url: str, folder: Path) -> ASGIApp:
    """Return an aitk_mcp that is told where AI Toolkit's server is."""
    return create_app(AitkSettings.model_validate({"data_dir": folder / "aitk", "port": 0, "AITK_UI_URL": url}))


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


async def test_folders_of_another_machine_are_refused_by_name(serve: Serve, tmp_path: Path) -> None:
    fake = FakeAitkUi(tmp_path / "toolkit")
    fake.makes_folders = False
    with fake.serving() as ui_url:
        answer = await send(serve(server_before(ui_url, tmp_path)), "list-datasets")
    assert answer["error"]["code"] == "backend_unavailable"
    assert fake.settings["DATASETS_FOLDER"] in answer["error"]["message"]


@pytest.mark.parametrize("tool", ["list-datasets", "list-training-jobs"])
async def test_without_any_ai_toolkit_the_embedded_engine_serves(serve: Serve, tmp_path: Path, tool: str) -> None:
    app = create_app(AitkSettings.model_validate({"data_dir": tmp_path / "aitk", "port": 0}))
    assert (await call(serve(app), tool))["total" if tool == "list-training-jobs" else "datasets"] in (0, [])
