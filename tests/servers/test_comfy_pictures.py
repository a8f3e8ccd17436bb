"""Pictures in answers: small copies and links beside a result, and the graph that a PNG carries."""

import base64
import json
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.types import ASGIApp

from comfy_mcp.app import create_app
from comfy_mcp.image_texts import MOST_GRAPH_CHARACTERS, small_copy
from mcp_toolserver.errors import InvalidArguments, NotFound, TooLarge
from mcp_toolserver.tools import MOST_PICTURE_BYTES
from tests.servers.comfy_tools import EngineUnderTest, comfy_tools, engine_process, graph, png

Serve = Callable[[ASGIApp], str]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineUnderTest]:
    with engine_process(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@asynccontextmanager
async def over_mcp(engine: EngineUnderTest, serve: Serve, tmp_path: Path) -> AsyncGenerator[Client]:
    """Give an MCP client of a server of our own."""
    url = serve(create_app(engine.settings(tmp_path)))
    async with Client(f"{url}/mcp") as client:
        yield client


def carrying(**texts: str) -> str:
    """Return a PNG with text chunks, as base64."""
    info, buffer = PngInfo(), BytesIO()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return base64.b64encode(buffer.getvalue()).decode()


def as_jpeg() -> str:
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


async def test_small_copies_and_links_stand_beside_the_result(
    engine: EngineUnderTest, serve: Serve, tmp_path: Path
) -> None:
    request = {"prompt": "a cat", "width": 1024, "height": 512, "steps": 2, "batch_size": 6, "seed": 5}
    async with over_mcp(engine, serve, tmp_path) as client:
        made = await client.call_tool("generate-image", request)
        again = await client.call_tool("get-job", {"job_id": (made.structured_content or {})["job_id"]})
        listed = await client.call_tool("list-jobs", {})
    result: dict[str, Any] = made.structured_content or {}
    for answer in (made, again):
        parts = [part.model_dump(mode="json", by_alias=True) for part in answer.content]
        shown = [part for part in parts if part["type"] == "image"]
        assert len(shown) == 4, "no more than a few are shown; all are linked"
        assert [part["mimeType"] for part in shown] == ["image/jpeg"] * 4
        assert sum(len(base64.b64decode(part["data"])) for part in shown) <= MOST_PICTURE_BYTES
        with Image.open(BytesIO(base64.b64decode(shown[0]["data"]))) as small:
            assert small.size == (512, 256)
        links = [part for part in parts if part["type"] == "resource_link"]
        assert [link["uri"] for link in links] == [image["url"] for image in result["images"]]
        assert {link["mimeType"] for link in links} == {"image/png"}
        assert len(json.dumps(parts)) < 1_000_000
    async with httpx.AsyncClient(trust_env=False) as http:
        whole = await http.get(links[0]["uri"])
    with Image.open(BytesIO(whole.content)) as picture:
        assert picture.size == (1024, 512)
    assert [part.type for part in listed.content] == ["text"]


async def test_rest_answers_with_links_alone(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        made = await tools("execute-workflow", workflow=graph(seed=31))
        assert "data" not in json.dumps(made["images"])


async def test_the_graph_comes_back_from_a_picture_and_runs_again(engine: EngineUnderTest, tmp_path: Path) -> None:
    sent = graph(seed=77)
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        made = await tools("execute-workflow", workflow=sent)
        by_id = await tools("get-image-workflow", image_id=made["images"][0]["id"])
        file = next((engine.folder / "output").glob("test_*.png"))
        by_file = await tools("get-image-workflow", content=base64.b64encode(file.read_bytes()).decode())
        again = await tools("execute-workflow", workflow=by_id["workflow"])
    assert by_id["workflow"] == sent
    assert by_id["page_workflow"] is None
    assert "KSampler" in by_id["mermaid"]
    assert by_file["workflow"]["6"]["class_type"] == "KSampler"
    assert again["cached"]


async def test_what_the_page_wrote_comes_too(engine: EngineUnderTest, tmp_path: Path) -> None:
    page = {"nodes": [{"id": 1, "type": "KSampler"}], "links": []}
    nan = '{"1": {"class_type": "KSampler", "inputs": {}, "is_changed": [NaN]}}'
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        found = await tools("get-image-workflow", content=carrying(workflow=json.dumps(page), prompt=nan))
        broken = await tools("get-image-workflow", content=carrying(workflow=json.dumps(page), prompt='{"1": 2}'))
    assert found["page_workflow"] == page
    assert found["workflow"]["1"]["is_changed"] == [None]
    assert (broken["workflow"], broken["mermaid"]) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({}, InvalidArguments, "One of"),
        ({"image_id": "x_0", "content": "AAAA"}, InvalidArguments, "not both"),
        ({"content": base64.b64encode(b"<html>").decode()}, InvalidArguments, "no PNG"),
        ({"content": base64.b64encode(png()[:60]).decode()}, InvalidArguments, "no PNG"),
        ({"content": base64.b64encode(png()[:12]).decode()}, InvalidArguments, "no PNG that can be read"),
        ({"content": as_jpeg()}, InvalidArguments, "no PNG but a picture in the format JPEG"),
        ({"content": base64.b64encode(png()).decode()}, NotFound, "no text chunks"),
        ({"content": carrying(parameters="a cat, Steps: 20")}, NotFound, "only `parameters`"),
        ({"content": carrying(prompt="{nonsense")}, NotFound, "only `prompt`"),
        ({"content": carrying(prompt=" " * (MOST_GRAPH_CHARACTERS + 1))}, TooLarge, "characters"),
        (
            {"content": carrying(**dict.fromkeys(("prompt", "workflow"), " " * (MOST_GRAPH_CHARACTERS // 2 + 1)))},
            TooLarge,
            "characters",
        ),
        ({"image_id": "00000000-0000-4000-8000-000000000000_0"}, NotFound, "00000000"),
    ],
)
async def test_a_picture_without_a_graph_is_refused_with_the_cause(
    arguments: dict[str, Any], kind: type[Exception], said: str, engine: EngineUnderTest, tmp_path: Path
) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(kind, match=said):
            await tools("get-image-workflow", **arguments)


def test_what_is_no_picture_has_no_small_copy() -> None:
    assert small_copy(b"<html>") is None
    assert small_copy(png()[:60]) is None
