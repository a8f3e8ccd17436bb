"""The pictures of a dataset over a real socket: small ones to look at, whole ones by ranges."""

from collections.abc import AsyncGenerator, Callable
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from tests.servers.aitk import image_bytes, settings_in

JPEG = image_bytes(800, 400, form="JPEG", orientation=6)


@pytest.fixture
async def client(tmp_path: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[httpx.AsyncClient]:
    folder = tmp_path / "datasets" / "Pixel Cat"
    (folder / "sub").mkdir(parents=True)
    (folder / "a b#.jpg").write_bytes(JPEG)
    (folder / "sub" / "猫.png").write_bytes(image_bytes(10, 20))
    (folder / "cut.png").write_bytes(image_bytes(400, 400)[:-60])
    (folder / "a b#.txt").write_text("secret caption")
    async with httpx.AsyncClient(base_url=serve(create_app(settings_in(tmp_path)))) as client:
        yield client


async def items(client: httpx.AsyncClient) -> dict[str, dict[str, str]]:
    body = {"tool": "get-dataset", "arguments": {"dataset_name": "Pixel Cat"}}
    return {item["filename"]: item for item in (await client.post("/mcp/tool", json=body)).json()["result"]["items"]}


async def test_every_image_has_a_small_picture_turned_upright(client: httpx.AsyncClient) -> None:
    listed = await items(client)
    answer = await client.get(listed["a b#.jpg"]["thumbnail_url"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert Image.open(BytesIO(answer.content)).size == (128, 256)
    assert len(answer.content) < len(JPEG)
    again = await client.get(listed["a b#.jpg"]["thumbnail_url"], headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    small = await client.get(listed["sub/猫.png"]["thumbnail_url"])
    assert Image.open(BytesIO(small.content)).size == (10, 20)


async def test_the_file_itself_comes_whole_or_by_ranges(client: httpx.AsyncClient) -> None:
    url = (await items(client))["a b#.jpg"]["url"]
    whole = await client.get(url)
    assert whole.content == JPEG
    part = await client.get(url, headers={"Range": "bytes=2-9", "If-Range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, JPEG[2:10])
    head = await client.head(url)
    assert (head.headers["content-length"], head.content) == (str(len(JPEG)), b"")


async def test_what_is_no_image_has_no_picture(client: httpx.AsyncClient) -> None:
    cut = await client.get((await items(client))["cut.png"]["thumbnail_url"])
    assert cut.status_code == 422
    assert "does not decode" in cut.json()["error"]["message"]
    for path in ("Pixel%20Cat/a%20b%23.txt", "Pixel%20Cat/none.png", "nobody/a.png", "Pixel%20Cat/.aitk_size.json"):
        assert (await client.get(f"/datasets/{path}")).status_code in (404, 422)
    for path in ("Pixel%20Cat/..%2f..%2fsecret.png", "..%2f..%2fetc/a.png", "%2e%2e/a.png"):
        answer = await client.get(f"/datasets/{path}")
        assert answer.status_code in (404, 422)
