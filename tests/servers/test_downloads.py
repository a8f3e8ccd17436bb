"""Ranged downloads over a real socket."""

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mcp_toolserver.files import BATCH_BYTES, ranged_file_response
from mcp_toolserver.ranges import Validators, answer_for

DATA = os.urandom(2 * BATCH_BYTES + 77)
SHA256 = hashlib.sha256(DATA)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of a little more than two batches."""
    path = tmp_path / "a “cat” ü.bin"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def url(file: Path, serve: Callable[[ASGIApp], str]) -> str:
    """Serve the file."""

    async def download(request: Request) -> Response:
        return await ranged_file_response(file, request, sha256=SHA256.hexdigest())

    return serve(Starlette(routes=[Route("/file", download, methods=["GET"])])) + "/file"


async def get(url: str, method: str = "GET", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.request(
            method, url, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )


async def test_the_whole_file_comes_with_its_digest(url: str) -> None:
    answer = await get(url)
    assert answer.content == DATA
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(SHA256.digest()).decode()}:"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"a _cat_ _.bin\"; filename*=UTF-8''a%20%E2%80%9Ccat%E2%80%9D%20%C3%BC.bin"
    )
    head = await get(url, "HEAD", range="bytes=0-1")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(DATA)))
    assert head.headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        (f"bytes={BATCH_BYTES - 1}-{BATCH_BYTES + 1}", BATCH_BYTES - 1, BATCH_BYTES + 2),
        ("bytes=100-", 100, len(DATA)),
        ("bytes=-7", len(DATA) - 7, len(DATA)),
        (f"bytes=-{len(DATA) * 2}", 0, len(DATA)),
        (f"bytes=9-{len(DATA) * 2}", 9, len(DATA)),
    ],
)
async def test_a_range_comes_alone(url: str, wanted: str, start: int, end: int) -> None:
    answer = await get(url, range=wanted)
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
    assert answer.content == DATA[start:end]


@pytest.mark.parametrize("wanted", [f"bytes={len(DATA)}-", "bytes=-0"])
async def test_a_range_outside_is_refused_with_the_size(url: str, wanted: str) -> None:
    answer = await get(url, range=wanted)
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(DATA)}")


@pytest.mark.parametrize("wanted", ["bytes=9-5", "bytes=a-b", "chapters=1-2", "bytes=0-1,4-5", "bytes=-", "bytes=²-"])
def test_a_range_that_cannot_be_served_alone_gives_the_whole(wanted: str) -> None:
    answer = answer_for("GET", {"range": wanted}, 100, Validators('"a"', "Sat, 21 Nov 2026 10:00:00 GMT"))
    assert (answer.status, answer.start, answer.end) == (200, 0, 100)


async def test_a_resumed_download_gets_the_rest_only_of_the_same_file(url: str, file: Path) -> None:
    first = await get(url)
    etag, date = first.headers["etag"], first.headers["last-modified"]
    for validator in (etag, date):
        assert (await get(url, range="bytes=5-", if_range=validator)).content == DATA[5:]
    assert (await get(url, range="bytes=5-", if_range=f"W/{etag}")).status_code == 200
    replacement = file.with_suffix(".new")
    replacement.write_bytes(DATA[::-1])
    replacement.replace(file)
    answer = await get(url, range="bytes=5-", if_range=etag)
    assert (answer.status_code, answer.content) == (200, DATA[::-1])


async def test_conditions_save_the_bytes(url: str) -> None:
    first = await get(url)
    etag, date = first.headers["etag"], first.headers["last-modified"]
    assert (await get(url, if_none_match=f'"other", {etag}')).status_code == 304
    assert (await get(url, if_none_match="*")).status_code == 304
    assert (await get(url, if_none_match='"other"')).status_code == 200
    assert (await get(url, if_modified_since=date)).status_code == 304
    assert (await get(url, if_modified_since="yesterday")).status_code == 200
    assert (await get(url, if_match='"other"')).status_code == 412
    assert (await get(url, if_match=etag)).status_code == 200
    assert (await get(url, if_unmodified_since="Sat, 01 Jan 2000 00:00:00 GMT")).status_code == 412


@settings(deadline=None)
@given(st.text(max_size=20), st.integers(0, 50))
def test_no_header_leads_outside_the_file(text: str, size: int) -> None:
    for wanted in (text, f"bytes={text}", f"bytes={text}-{text}"):
        answer = answer_for("GET", {"range": wanted}, size, Validators('"a"', "Sat, 21 Nov 2026 10:00:00 GMT"))
        assert 0 <= answer.start <= answer.end <= size


async def test_a_caller_who_leaves_does_not_disturb_the_next(url: str) -> None:
    for _ in range(5):
        async with httpx.AsyncClient() as client, client.stream("GET", url) as answer:
            assert await anext(answer.aiter_bytes(10))
    assert (await get(url)).content == DATA
