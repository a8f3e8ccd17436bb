"""comfy_mcp as its callers reach it: REST, pictures by address, health, the list of tools, stdio."""

import json
import os
import sys
from collections.abc import Callable, Generator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from PIL import Image
from starlette.types import ASGIApp

from comfy_mcp.app import create_app
from comfy_mcp.settings import ComfySettings
from mcp_toolserver.tools import Call
from tests.contract.comfyui.conftest import write_lora
from tests.servers.comfy_tools import ENDLESS_STEPS, EngineUnderTest, comfy_tools, engine_process, graph

Serve = Callable[[ASGIApp], str]
CONTRACT = {
    "list-loras", "get-lora-info", "check-lora", "upload-lora", "upload-lora-chunked-start",
    "upload-lora-chunked-append", "upload-lora-chunked-status", "upload-lora-chunked-abort", "list-uploads",
    "upload-lora-chunked-finish", "download-lora", "delete-lora", "generate-image", "generate-video",
    "execute-workflow", "validate-workflow", "list-workflows", "get-workflow", "get-job", "wait-job", "cancel-job",
    "list-jobs", "list-models", "get-model-tips", "download-model", "delete-model", "upload-image", "get-object-info",
    "get-system-info", "free-memory", "get-image-workflow", "import-lora",
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineUnderTest]:
    with engine_process(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture
def http(engine: EngineUnderTest, tmp_path: Path, serve: Serve) -> Generator[httpx.Client]:
    url = serve(create_app(engine.settings(tmp_path)))
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


def tool(http: httpx.Client, name: str, **arguments: Any) -> dict[str, Any]:
    answer = http.post("/mcp/tool", json={"tool": name, "arguments": arguments}).json()
    assert answer["success"], answer
    return answer["result"]


def test_every_tool_of_the_contract_is_listed(http: httpx.Client) -> None:
    listed = {item["name"]: item for item in http.get("/mcp/tools").json()["tools"]}
    assert set(listed) == CONTRACT
    for item in listed.values():
        assert len(item["description"]) > 30
        for described in item["inputSchema"]["properties"].values():
            assert described.get("description")


def test_a_picture_is_fetched_whole_in_part_and_not_twice(http: httpx.Client) -> None:
    result = tool(http, "generate-image", prompt="a red cat", seed=1, width=128, height=64)
    [image] = result["images"]
    assert image["url"] == f"{http.base_url}/images/{image['id']}".replace("//images", "/images")
    whole = http.get(image["url"])
    assert whole.status_code == 200
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.content.startswith(b"\x89PNG")
    head = http.head(image["url"])
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.content == b""
    part = http.get(image["url"], headers={"Range": "bytes=1-3"})
    assert part.status_code == 206
    assert part.content == b"PNG"
    assert part.headers["content-range"] == f"bytes 1-3/{len(whole.content)}"


def test_a_range_that_makes_no_sense_is_ignored(http: httpx.Client) -> None:
    result = tool(http, "generate-image", prompt="a red cat", seed=1, width=128, height=64)
    url = result["images"][0]["url"]
    whole = http.get(url).content
    for wanted in ("bytes=5-2", "foo", "bytes=a-b", "bytes=0-1,3-4"):
        answer = http.get(url, headers={"Range": wanted})
        assert (answer.status_code, answer.content) == (200, whole), wanted
    assert http.get(url, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416


def test_a_picture_that_nobody_made_is_not_found(http: httpx.Client) -> None:
    result = tool(http, "generate-image", prompt="a red cat", seed=2, width=64, height=64)
    for image_id in (f"{result['job_id']}_7", f"{result['job_id']}_x", "nothing", "_0"):
        answer = http.get(f"/images/{image_id}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"


def test_a_picture_whose_file_was_deleted_says_so(http: httpx.Client, engine: EngineUnderTest) -> None:
    result = tool(http, "generate-image", prompt="a red cat", seed=3, width=64, height=64)
    for file in (engine.folder / "output").glob(f"loraloop_{result['job_id'][:8]}*"):
        file.unlink()
    answer = http.get(result["images"][0]["url"])
    assert answer.status_code == 404
    assert "no longer" in answer.json()["error"]["message"]


def test_the_same_seed_gives_the_same_pixels_and_strength_0_is_no_lora(
    http: httpx.Client, engine: EngineUnderTest
) -> None:
    write_lora(engine.folder / "models" / "loras" / "strong.safetensors", seed=5)

    def pixels(**arguments: Any) -> bytes:
        result = tool(
            http, "generate-image", **{"prompt": "a red cat", "seed": 4, "width": 64, "height": 64, **arguments}
        )
        return decoded(http.get(result["images"][0]["url"]).content)

    plain = pixels()
    assert pixels(loras=[{"name": "strong.safetensors", "strength": 0.0}]) == plain
    assert pixels(loras=[{"name": "strong.safetensors", "strength": 1.0}]) != plain
    assert pixels(seed=5) != plain


def decoded(content: bytes) -> bytes:
    with Image.open(BytesIO(content)) as image:
        return image.convert("RGB").tobytes()


def test_a_preview_is_shown_while_a_job_runs(http: httpx.Client) -> None:
    job_id = tool(http, "execute-workflow", workflow=graph(steps=ENDLESS_STEPS), wait_s=0)["job_id"]
    while (job := tool(http, "wait-job", job_id=job_id, wait_s=0.2))["preview_url"] is None:
        assert job["status"] in {"queued", "running"}
    preview = http.get(job["preview_url"])
    assert preview.status_code == 200
    assert preview.headers["content-type"] in {"image/jpeg", "image/png"}
    tool(http, "cancel-job", job_id=job_id)
    assert http.get(f"/previews/{job_id}").status_code == 404


def test_progress_comes_as_server_sent_events(http: httpx.Client) -> None:
    body = {"tool": "execute-workflow", "arguments": {"workflow": graph(steps=80, seed=8)}}
    events: list[tuple[str, dict[str, Any]]] = []
    with http.stream("POST", "/mcp/tool", json=body, headers={"Accept": "text/event-stream"}) as answer:
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    assert events[-1][0] == "result"
    assert events[-1][1]["result"]["status"] == "completed"
    assert [name for name, _ in events[:-1]].count("progress") >= 1


def test_health_and_version_name_the_engine(http: httpx.Client, engine: EngineUnderTest) -> None:
    health = http.get("/health").json()
    assert health["status"] == "ok"
    assert health["backend"]["engine"] == "comfyui"
    assert health["backend"]["url"] == engine.url
    assert http.get("/mcp/version").json()["backend"]["version"] == "0.30.0"


def test_a_configured_comfyui_that_is_absent_is_unavailable_and_never_replaced(tmp_path: Path, serve: Serve) -> None:
    url = serve(create_app(ComfySettings(data_dir=tmp_path, comfyui_api_url="http://127.0.0.1:9")))
    health = httpx.get(f"{url}/health").json()
    assert health["status"] == "degraded"
    assert health["backend"]["state"] == "unavailable"
    assert health["backend"]["engine"] == "comfyui"
    for name, arguments in (
        ("generate-image", {"prompt": "a cat"}),
        ("execute-workflow", {"workflow": graph()}),
        ("list-models", {}),
        ("get-system-info", {}),
        ("get-object-info", {}),
        ("free-memory", {}),
    ):
        answer = httpx.post(f"{url}/mcp/tool", json={"tool": name, "arguments": arguments}, timeout=30)
        assert answer.status_code == 503, name
        error = answer.json()["error"]
        assert error["code"] == "backend_unavailable"
        assert error["retryable"]
        assert "COMFYUI_API_URL" in error["hint"]
        assert "127.0.0.1:9" in error["message"]
    assert httpx.post(f"{url}/mcp/tool", json={"tool": "list-jobs"}).json()["result"]["jobs"] == []


async def test_without_an_address_of_its_own_pictures_come_from_comfyui(
    engine: EngineUnderTest, tmp_path: Path
) -> None:
    async with comfy_tools(engine.settings(tmp_path), Call()) as tools:
        result = await tools("generate-image", prompt="a red cat", width=64, height=64)
    url = result["images"][0]["url"]
    assert url.startswith(f"{engine.url}/view?")
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).content.startswith(b"\x89PNG")


@pytest.mark.parametrize("door", ["2025-11-25", "2026-07-28", "stdio"])
async def test_a_picture_through_mcp_is_an_address_and_a_small_copy(
    door: str, engine: EngineUnderTest, tmp_path: Path, serve: Serve
) -> None:
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    options = ["--transport", "stdio", "--data-dir", str(tmp_path), "--comfyui-api-url", engine.url]
    target: Any = StdioServerParameters(
        command=sys.executable, args=["-m", "comfy_mcp", *options], env={"PYTHONPATH": os.environ["PYTHONPATH"]}
    )
    if door != "stdio":
        target = f"{serve(create_app(engine.settings(tmp_path)))}/mcp"
    async with Client(target, mode="legacy" if door == "2025-11-25" else "auto") as client:
        answer = await client.call_tool(
            "generate-image", {"prompt": "a red cat", "seed": 31, "steps": 30}, progress_callback=hear
        )
    assert not answer.is_error
    assert answer.structured_content is not None
    assert answer.structured_content["status"] == "completed"
    [image] = answer.structured_content["images"]
    assert httpx.get(image["url"]).content.startswith(b"\x89PNG")
    assert [part.type for part in answer.content] == ["text", "text", "image", "resource_link"]
    assert len(answer.model_dump_json()) < 200_000
    assert heard == sorted(set(heard))
