"""Web pages of other origins: what a browser asks before it lets them call, and what they may read of the answers."""

import base64
import hashlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp

from mcp_toolserver.settings import ServerSettings
from tests.servers.lora_server import lora_server
from tests.servers.loras import TINY
from tests.unit.lora_files.files import pairs, write

PAGE = "https://app.example"
ASKED = "authorization, content-type, tus-resumable, upload-length, upload-metadata, upload-offset, upload-checksum"
Serve = Callable[[ASGIApp], str]


@pytest.fixture
async def http(tmp_path: Path, serve: Serve) -> AsyncGenerator[httpx.AsyncClient]:
    """Serve a loras folder to pages of one origin, behind a token, to a caller that has it."""
    folder = tmp_path / "loras"
    folder.mkdir()
    app = lora_server(folder, tmp_path / "cache.sqlite", token="secret", allowed_origins=PAGE)
    async with httpx.AsyncClient(base_url=serve(app), headers={"Origin": PAGE}) as http:
        yield http


def leave_asked(method: str, origin: str = PAGE) -> dict[str, str]:
    """Return what a browser sends before the request itself: no token, no cookie."""
    return {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": ASKED}


def exposed(answer: httpx.Response) -> set[str]:
    """Return which headers a page may read of an answer, in lower case."""
    return {name.strip().lower() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/uploads"),
        ("PATCH", "/uploads/6f1c3a52-6d1e-4a35-9a62-0b6f6a4e9d11"),
        ("HEAD", "/uploads/6f1c3a52-6d1e-4a35-9a62-0b6f6a4e9d11"),
        ("DELETE", "/uploads/6f1c3a52-6d1e-4a35-9a62-0b6f6a4e9d11"),
        ("POST", "/mcp/tool"),
        ("POST", "/mcp"),
        ("GET", "/loras/cat.safetensors"),
    ],
)
async def test_a_browser_gets_leave_for_the_named_origin_without_a_token(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await http.options(path, headers=leave_asked(method))
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert method in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"] == ASKED
    assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_a_browser_gets_no_leave_for_another_origin(http: httpx.AsyncClient) -> None:
    for origin in ("https://evil.example", "http://app.example", "https://app.example.evil", "null"):
        answer = await http.options("/uploads", headers=leave_asked("POST", origin))
        assert answer.status_code == 400
        assert "Access-Control-Allow-Origin" not in answer.headers
        refused = await http.post("/uploads", headers={"Origin": origin, "Authorization": "Bearer secret"})
        assert refused.status_code == 403
        assert "Access-Control-Allow-Origin" not in refused.headers


async def test_a_page_uploads_and_reads_every_header_that_tus_answers_with(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    data = write(tmp_path / "source.safetensors", pairs(TINY)).read_bytes()
    http.headers.update({"Authorization": "Bearer secret", "Tus-Resumable": "1.0.0"})
    told = f"filename {base64.b64encode(b'a.safetensors').decode()}"
    spoken = await http.options("/uploads")
    created = await http.post("/uploads", headers={"Upload-Length": str(len(data)), "Upload-Metadata": told})
    assert created.status_code == 201, created.text
    where = created.headers["Location"]
    body = {"Content-Type": "application/offset+octet-stream"}
    half = await http.patch(where, content=data[:100], headers={**body, "Upload-Offset": "0"})
    asked = await http.head(where)
    wrong = await http.patch(where, content=data, headers={**body, "Upload-Offset": "0"})
    assert wrong.status_code == 409
    sent = await http.patch(where, content=data[100:], headers={**body, "Upload-Offset": "100"})
    assert sent.status_code == 204
    for answer in (spoken, created, half, asked, wrong, sent):
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Origin" in answer.headers["Vary"]
        spoken_names = {
            name for name in answer.headers if name.startswith(("upload-", "tus-", "location", "x-request"))
        }
        assert spoken_names <= exposed(answer)
    fetched = await http.get("/loras/a.safetensors", headers={"Range": "bytes=1-5"})
    assert fetched.status_code == 206
    assert fetched.content == data[1:6]
    assert {"etag", "content-range", "accept-ranges", "repr-digest"} <= exposed(fetched)
    assert hashlib.sha256(data).digest() == base64.b64decode(fetched.headers["Repr-Digest"][9:-1])


async def test_a_page_can_read_why_it_is_refused(http: httpx.AsyncClient) -> None:
    refused = await http.post("/mcp/tool", json={"tool": "list-loras"})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == PAGE


async def test_a_name_that_was_rebound_to_this_machine_is_refused_for_a_named_origin_too(
    http: httpx.AsyncClient,
) -> None:
    rebound = {"Host": "rebound.example", "Authorization": "Bearer secret"}
    assert (await http.post("/mcp/tool", json={"tool": "list-loras"}, headers=rebound)).status_code == 403
    same = {**rebound, "Origin": "http://rebound.example"}
    assert (await http.post("/mcp/tool", json={"tool": "list-loras"}, headers=same)).status_code == 403


async def test_without_the_setting_no_page_reads_anything(tmp_path: Path, serve: Serve) -> None:
    folder = tmp_path / "loras"
    folder.mkdir()
    async with httpx.AsyncClient(base_url=serve(lora_server(folder, tmp_path / "cache.sqlite"))) as http:
        for origin, status in ((PAGE, 403), ("http://localhost:5173", 204)):
            answer = await http.options("/uploads", headers=leave_asked("POST", origin))
            assert answer.status_code == status
            assert not [name for name in answer.headers if name.startswith("access-control")]


def test_an_origin_is_taken_as_it_stands_in_the_address_bar() -> None:
    settings = ServerSettings.model_validate({"allowed_origins": "https://app.example/ , http://localhost:5173,"})
    assert settings.allowed_origins == ("https://app.example", "http://localhost:5173")
