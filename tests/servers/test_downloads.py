"""Ranged downloads over a real socket."""

import asyncio
import base64
import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aitk_mcp.app import create_app
from mcp_toolserver.files import BATCH_BYTES, ranged_file_response
from mcp_toolserver.http_protocol import ZERO_COPY_SEND
from mcp_toolserver.ranges import Validators, answer_for, wants_sha256
from tests.servers.aitk import settings_in
from tests.servers.lora_server import lora_server
from tests.servers.loras import flux

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
    rest = await get(url, range="bytes=5-", if_range=etag)
    assert (rest.status_code, rest.content) == (206, DATA[5:])
    # Neither promises the same bytes: a weak tag by definition, a date because a file may change twice in a second.
    for validator in (f"W/{etag}", date, '"other"', "nonsense"):
        assert (await get(url, range="bytes=5-", if_range=validator)).status_code == 200
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
    assert (await get(url, "HEAD", if_none_match=etag)).status_code == 304


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        # RFC 9110, 13.2.2: the tags decide, and the dates are looked at only without them.
        ({"if-match": '"a"', "if-unmodified-since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 200),
        ({"if-none-match": '"b"', "if-modified-since": "Sat, 21 Nov 2026 10:00:00 GMT"}, 200),
        # A refusal comes before what needs no bytes, and that before a range.
        ({"if-match": '"b"', "if-none-match": '"a"'}, 412),
        ({"if-none-match": '"a"', "range": "bytes=0-1"}, 304),
        ({"if-match": '"a"', "range": "bytes=0-1"}, 206),
        ({"if-match": "*"}, 200),
        # 13.1.1 compares strongly, and 13.1.2 weakly.
        ({"if-match": 'W/"a"'}, 412),
        ({"if-none-match": 'W/"a"'}, 304),
        ({"if-none-match": '"*"'}, 200),
        # A date that is none, or of an unknown zone, is no condition.
        ({"if-modified-since": "Sat, 21 Nov 2026 10:00:00 -0000"}, 200),
        ({"if-unmodified-since": "Sat, 01 Jan 2000 00:00:00 -0000"}, 200),
        ({"if-modified-since": "Sat, 21 Nov 99999 10:00:00 GMT"}, 200),
        ({"range": f"bytes=0-{'9' * 5000}"}, 206),
        ({"range": f"bytes={'9' * 5000}-"}, 416),
        ({"range": f"bytes=-{'9' * 5000}"}, 206),
        ({"range": f"bytes={'0' * 5000}-0"}, 206),
    ],
)
def test_the_order_and_the_strength_of_conditions(headers: dict[str, str], status: int) -> None:
    answer = answer_for("GET", headers, 100, Validators('"a"', "Sat, 21 Nov 2026 10:00:00 GMT"))
    assert answer.status == status


async def test_conditions_in_several_lines_count_as_one(url: str) -> None:
    etag = (await get(url, "HEAD")).headers["etag"]
    async with httpx.AsyncClient() as client:
        answer = await client.get(url, headers=[("If-None-Match", '"other"'), ("If-None-Match", etag)])
        twice = await client.get(url, headers=[("Range", "bytes=0-1"), ("Range", "bytes=3-4")])
    assert answer.status_code == 304
    assert twice.status_code == 200


async def test_what_each_answer_says_of_the_file(url: str) -> None:
    etag = (await get(url, "HEAD")).headers["etag"]
    part = await get(url, range="bytes=1-2")
    assert part.headers["repr-digest"], "of the whole file, whatever part of it comes (RFC 9530, 3)"
    unchanged = await get(url, if_none_match=etag)
    assert (unchanged.content, unchanged.headers["etag"]) == (b"", etag)
    assert "content-length" not in unchanged.headers
    for refusal in (await get(url, if_match='"other"'), await get(url, range=f"bytes={len(DATA)}-")):
        assert "repr-digest" not in refusal.headers, "the digest would be that of the refusal (RFC 9530, 3)"
        assert refusal.content == b""


@pytest.mark.parametrize(
    ("wanted", "comes"),
    [
        ("sha-256=1", True),
        ("sha-512=10, sha-256=3", True),
        ("sha-256=0", False),
        ("sha-512=10, sha-256=0", False),
        # What is said of others only leaves the server its choice.
        ("sha-512=10", True),
        ("nonsense", True),
    ],
)
async def test_the_digest_comes_unless_it_is_not_wanted(url: str, wanted: str, comes: bool) -> None:
    answer = await get(url, "HEAD", want_repr_digest=wanted)
    assert ("repr-digest" in answer.headers) is comes


async def test_a_digest_that_nobody_computed_is_computed_for_who_asks(
    tmp_path: Path, serve: Callable[[ASGIApp], str]
) -> None:
    content = flux(tmp_path / "loras" / "a.safetensors").read_bytes()
    (tmp_path / "aitk" / "output").mkdir(parents=True)
    (tmp_path / "aitk" / "output" / "a.safetensors").write_bytes(content)
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"
    for address in (
        serve(lora_server(tmp_path / "loras", tmp_path / "cache.sqlite")) + "/loras/a.safetensors",
        serve(create_app(settings_in(tmp_path / "aitk"))) + "/models/a.safetensors",
    ):
        assert "repr-digest" not in (await get(address, "HEAD")).headers
        assert (await get(address, "HEAD", want_repr_digest="sha-256=10")).headers["repr-digest"] == digest
        assert (await get(address, range="bytes=0-0")).headers["repr-digest"] == digest


@settings(deadline=None)
@given(st.text(max_size=20), st.integers(0, 50))
def test_no_header_leads_outside_the_file(text: str, size: int) -> None:
    for wanted in (text, f"bytes={text}", f"bytes={text}-{text}"):
        answer = answer_for("GET", {"range": wanted}, size, Validators('"a"', "Sat, 21 Nov 2026 10:00:00 GMT"))
        assert 0 <= answer.start <= answer.end <= size


@settings(deadline=None)
@given(st.text(max_size=40), st.sampled_from(("GMT", "-0000", "+0100", "EST", "")))
def test_no_condition_is_too_strange(text: str, zone: str) -> None:
    validators = Validators('"a"', "Sat, 21 Nov 2026 10:00:00 GMT")
    dates = (text, f"Sat, 21 Nov {text} 10:00:00 {zone}", f"Sat, 21 Nov 2026 {text} {zone}")
    for name in ("if-match", "if-none-match", "if-range", "if-modified-since", "if-unmodified-since"):
        for value in dates:
            assert answer_for("GET", {name: value, "range": "bytes=0-1"}, 9, validators).status in (200, 206, 304, 412)
    assert wants_sha256({"want-repr-digest": text}) in (True, False, None)


async def test_a_caller_who_leaves_does_not_disturb_the_next(url: str) -> None:
    for _ in range(5):
        async with httpx.AsyncClient() as client, client.stream("GET", url) as answer:
            assert await anext(answer.aiter_bytes(10))
    assert (await get(url)).content == DATA


@pytest.mark.parametrize("hands_over", [True, False])
async def test_a_file_is_handed_over_to_the_system_where_the_server_can(
    file: Path, serve: Callable[[ASGIApp], str], hands_over: bool
) -> None:
    sent: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            sent.append(message["type"])
            await send(message)

        if not hands_over:
            scope["extensions"] = {}
        await (await ranged_file_response(file, Request(scope)))(scope, receive, watched)

    url = serve(Starlette(routes=[Mount("/", app)]))
    async with httpx.AsyncClient() as client:
        # One after the other on one connection: each answer ends where it says.
        for wanted, data in ((None, DATA), ("bytes=5-9", DATA[5:10]), ("bytes=-7", DATA[-7:]), (None, DATA)):
            answer = await client.get(url, headers={"Range": wanted} if wanted else {})
            assert answer.content == data
    assert (ZERO_COPY_SEND in sent) is hands_over


async def test_a_slow_caller_gets_every_byte(url: str, file: Path) -> None:
    reader, writer = await _asked_slowly(url)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    received = bytearray()
    while piece := await reader.read(8192):
        received += piece
    writer.close()
    assert received == DATA


async def test_a_file_that_is_cut_while_it_is_sent_does_not_pass_for_a_whole_one(url: str, file: Path) -> None:
    reader, writer = await _asked_slowly(url)
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.to_thread(os.truncate, file, 100_000)
    received = await reader.read(-1)
    writer.close()
    assert len(received) < len(DATA)


async def _asked_slowly(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a file by a connection that takes in little at once."""
    parts = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (parts.hostname, parts.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=4096)
    writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
    return reader, writer
