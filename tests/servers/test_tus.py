"""tus 1.0 at `/uploads`, as any tus client speaks it: over real sockets, into a real loras folder."""

import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest
from starlette.types import ASGIApp
from tusclient.client import TusClient
from tusclient.uploader.uploader import Uploader

from tests.servers.lora_server import lora_server
from tests.servers.loras import flux
from tests.servers.tus_caller import BODY, TUS, Tus, b64, metadata, refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty loras folder."""
    loras = tmp_path / "models" / "loras"
    loras.mkdir(parents=True)
    return loras


@pytest.fixture
def lora(tmp_path: Path) -> bytes:
    """Return the bytes of a LoRA."""
    return flux(tmp_path / "trained.safetensors").read_bytes()


@pytest.fixture
async def tus(folder: Path, tmp_path: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[Tus]:
    """Serve the folder."""
    async with httpx.AsyncClient(timeout=30) as http:
        yield Tus(serve(lora_server(folder, tmp_path / "cache.sqlite")), folder, http)


async def test_what_is_spoken_is_told_without_a_version(tus: Tus) -> None:
    for path in ("/uploads", "/uploads/", f"/uploads/{uuid4()}"):
        answer = await tus.http.options(f"{tus.url}{path}")
        assert answer.status_code == 204
        assert answer.headers["Tus-Version"] == answer.headers["Tus-Resumable"] == "1.0.0"
        extensions = set(answer.headers["Tus-Extension"].split(","))
        assert extensions == {"creation", "creation-with-upload", "checksum", "expiration", "termination"}
        assert {"sha1", "sha256"} <= set(answer.headers["Tus-Checksum-Algorithm"].split(","))
        assert int(answer.headers["Tus-Max-Size"]) > 10**12


async def test_a_lora_is_installed_after_its_last_byte(tus: Tus, lora: bytes) -> None:
    told = {"filetype": "application/octet-stream", "relativePath": "null"}
    where = await tus.created(len(lora), metadata=json.dumps({"trained": "today"}), **told)
    assert where.startswith(f"{tus.url}/uploads/")
    half = len(lora) // 2
    answer = await tus.patch(where, 0, lora[:half])
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(half))
    assert parsedate_to_datetime(answer.headers["Upload-Expires"])
    assert tus.names() == []
    head = await tus.http.head(where, headers=TUS)
    assert head.headers["Upload-Offset"] == str(half)
    assert head.headers["Upload-Length"] == str(len(lora))
    assert f"filetype {b64('application/octet-stream')}" in head.headers["Upload-Metadata"]
    answer = await tus.patch(where, half, lora[half:])
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(len(lora)))
    assert "Upload-Expires" not in answer.headers
    assert (tus.folder / "cat.safetensors").read_bytes() == lora
    info = await tus.tool("get-lora-info", lora_name="cat.safetensors")
    assert info["supplied_metadata"] == {"trained": "today"}
    assert info["sha256"] == hashlib.sha256(lora).hexdigest()
    assert await tus.offset(where) == len(lora), "who lost the last answer learns that it is done"
    refused(await tus.patch(where, len(lora), b""), 409, "is published")
    refused(await tus.http.delete(where, headers=TUS), 409, "is published")


@pytest.mark.parametrize("chunk_size", [2**40, 100_000])
async def test_the_python_client_needs_no_change(tus: Tus, tmp_path: Path, lora: bytes, chunk_size: int) -> None:
    def upload() -> None:
        with (tmp_path / "trained.safetensors").open("rb") as source:
            told = {"filename": "cats/cat.safetensors"}
            client = TusClient(f"{tus.url}/uploads/")
            Uploader(file_stream=source, client=client, metadata=told, chunk_size=chunk_size).upload()

    await anyio.to_thread.run_sync(upload)
    assert (tus.folder / "cats/cat.safetensors").read_bytes() == lora


async def test_the_python_client_checks_every_chunk_and_goes_on_after_a_cut(
    tus: Tus, tmp_path: Path, lora: bytes
) -> None:
    where = await tus.created(len(lora))
    await tus.patch(where, 0, lora[:70_001])

    def resume() -> None:
        with (tmp_path / "trained.safetensors").open("rb") as source:
            client = TusClient(f"{tus.url}/uploads")
            Uploader(file_stream=source, url=where, client=client, chunk_size=65_536, upload_checksum=True).upload()

    await anyio.to_thread.run_sync(resume)
    assert (tus.folder / "cat.safetensors").read_bytes() == lora


async def test_the_creation_may_bring_bytes(tus: Tus, lora: bytes) -> None:
    headers = {**BODY, "Upload-Length": str(len(lora)), "Upload-Metadata": metadata(filename="a.safetensors")}
    answer = await tus.http.post(f"{tus.url}/uploads", headers=headers, content=lora[:1000])
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "1000")
    await tus.patch(answer.headers["Location"], 1000, lora[1000:])
    assert (tus.folder / "a.safetensors").read_bytes() == lora
    headers["Upload-Metadata"] = metadata(name="b.safetensors", sha256=hashlib.sha256(lora).hexdigest())
    answer = await tus.http.post(f"{tus.url}/uploads", headers=headers, content=lora)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, str(len(lora)))
    assert (tus.folder / "b.safetensors").read_bytes() == lora


async def test_bytes_that_no_lora_has_are_refused_with_the_creation_and_nothing_stays(tus: Tus) -> None:
    headers = {**BODY, "Upload-Length": "50000", "Upload-Metadata": metadata(filename="a.safetensors")}
    answer = await tus.http.post(f"{tus.url}/uploads", headers=headers, content=b"<html>" + bytes(40_000))
    refused(answer, 422, "web page")
    assert (await tus.tool("list-uploads"))["uploads"] == []
    where = await tus.created(50_000)
    refused(await tus.patch(where, 0, (2**62).to_bytes(8, "little") + bytes(100)), 422, "header of 4611686018427387904")
    assert await tus.offset(where) == 0


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
async def test_a_body_that_is_not_its_checksum_is_discarded(tus: Tus, lora: bytes, algorithm: str) -> None:
    where = await tus.created(len(lora))
    await tus.patch(where, 0, lora[:1000])
    good = b64(hashlib.new(algorithm, lora[1000:]).digest())
    answer = await tus.patch(where, 1000, lora[1000:-1] + b"?", **{"Upload-Checksum": f"{algorithm} {good}"})
    refused(answer, 460, f"does not match its {algorithm} checksum")
    assert await tus.offset(where) == 1000
    answer = await tus.patch(where, 1000, lora[1000:], **{"Upload-Checksum": f"{algorithm} {good}"})
    assert answer.status_code == 204
    assert (tus.folder / "cat.safetensors").read_bytes() == lora


@pytest.mark.parametrize(
    ("checksum", "words"),
    [
        ("sha265 abcd", "names 'sha265'"),
        ("md5 abcd", "names 'md5'"),
        ("sha1 !!", "no sha1 digest"),
        ("sha1", "no sha1 digest"),
    ],
)
async def test_a_checksum_that_cannot_be_read_is_refused(tus: Tus, lora: bytes, checksum: str, words: str) -> None:
    where = await tus.created(len(lora))
    refused(await tus.patch(where, 0, lora, **{"Upload-Checksum": checksum}), 400, words)
    assert await tus.offset(where) == 0


async def test_a_file_that_is_not_its_digest_is_not_installed(tus: Tus, lora: bytes) -> None:
    where = await tus.created(len(lora), sha256="0" * 64)
    refused(await tus.patch(where, 0, lora), 460, "another sha256")
    assert tus.names() == []
    answer = await tus.http.head(where, headers=TUS)
    assert answer.status_code == 460, "a client that asks again must not believe that all is well"
    assert (await tus.http.delete(where, headers=TUS)).status_code == 204
    assert (await tus.http.head(where, headers=TUS)).status_code == 404


async def test_a_server_that_died_before_the_installation_makes_it_good_when_asked(
    tus: Tus, lora: bytes, tmp_path: Path, serve: Callable[[ASGIApp], str]
) -> None:
    where = await tus.created(len(lora))
    await tus.patch(where, 0, lora[:-1])
    upload_id = where.rpartition("/")[2]
    with (tus.folder / ".uploads" / upload_id / "data.part").open("ab") as part:
        part.write(lora[-1:])
    tus.url = serve(lora_server(tus.folder, tmp_path / "other.sqlite"))
    assert await tus.offset(f"{tus.url}/uploads/{upload_id}") == len(lora)
    assert (tus.folder / "cat.safetensors").read_bytes() == lora


async def test_after_a_restart_of_the_machine_only_a_digest_installs_it_and_that_is_said(tus: Tus, lora: bytes) -> None:
    digest = hashlib.sha256(lora).hexdigest()
    for name, given in (("a.safetensors", {}), ("b.safetensors", {"sha256": digest})):
        where = await tus.created(len(lora), filename=name, **given)
        await tus.patch(where, 0, lora[:1000])
        manifest = tus.folder / ".uploads" / where.rpartition("/")[2] / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"boot_id": "an earlier run"}))
        assert await tus.offset(where) == 1000, "what arrived before still counts"
        answer = await tus.patch(where, 1000, lora[1000:])
        if given:
            assert answer.status_code == 204
        else:
            hint = refused(answer, 409, "was started anew")["hint"]
            assert "with the `sha256`" in hint
            assert "tus: DELETE" in hint
            assert (await tus.http.head(where, headers=TUS)).status_code == 409, "its client must not be content"
            done = await tus.tool("upload-lora-chunked-finish", upload_id=where.rpartition("/")[2], sha256=digest)
            assert done["checksum_verified"]
        assert (tus.folder / name).read_bytes() == lora


async def test_an_upload_may_wait_for_its_finish(tus: Tus, lora: bytes) -> None:
    where = await tus.created(len(lora), publish="false")
    assert (await tus.patch(where, 0, lora)).status_code == 204
    assert await tus.offset(where) == len(lora)
    assert tus.names() == []
    done = await tus.tool("upload-lora-chunked-finish", upload_id=where.rpartition("/")[2])
    assert done["lora"]["name"] == "cat.safetensors"


async def test_the_ways_in_may_be_mixed_at_any_byte(tus: Tus, lora: bytes) -> None:
    start = {"filename": "cat.safetensors", "total_size": len(lora), "chunk_size": 60_000, "upload_id": str(uuid4())}
    await tus.tool("upload-lora-chunked-start", **start)
    where = f"{tus.url}/uploads/{start['upload_id']}"
    head = await tus.http.head(where, headers=TUS)
    assert head.headers["Upload-Metadata"] == metadata(filename="cat.safetensors")

    async def chunk(index: int) -> dict[str, Any]:
        data = b64(lora[index * 60_000 : (index + 1) * 60_000])
        return await tus.tool("upload-lora-chunked-append", upload_id=start["upload_id"], chunk=data, chunk_index=index)

    await chunk(0)
    await tus.patch(where, 60_000, lora[60_000:100_001])
    resumed = await tus.tool("upload-lora-chunked-start", **start)
    assert (resumed["received_bytes"], resumed["next_chunk_index"]) == (100_001, 1)
    assert (await chunk(1))["received_bytes"] == 120_000
    assert (await chunk(2))["received_bytes"] == 180_000
    answer = await tus.patch(where, 180_000, lora[180_000:])
    assert answer.status_code == 204
    assert tus.names() == [], "who began with the chunk tools, finishes with them"
    digest = hashlib.sha256(lora).hexdigest()
    done = await tus.tool("upload-lora-chunked-finish", upload_id=start["upload_id"], sha256=digest)
    assert done["checksum_verified"]
    assert (tus.folder / "cat.safetensors").read_bytes() == lora


async def test_another_offset_is_refused_with_the_right_one(tus: Tus, lora: bytes) -> None:
    where = await tus.created(len(lora))
    await tus.patch(where, 0, lora[:1000])
    for offset in (0, 999, 1001, 2**59):
        error = refused(await tus.patch(where, offset, lora[:10]), 409, "1000 bytes have arrived")
        assert error["details"]["received_bytes"] == 1000


async def test_more_bytes_than_were_announced_are_refused(tus: Tus, lora: bytes) -> None:
    where = await tus.created(len(lora))
    answer = await tus.patch(where, 0, lora + b"more")
    refused(answer, 413, f"announced with {len(lora)} bytes")
    assert answer.headers["Tus-Max-Size"]

    async def without_a_length() -> AsyncIterator[bytes]:
        yield lora
        yield b"more"

    headers = {**BODY, "Upload-Offset": "0"}
    error = refused(await tus.http.patch(where, content=without_a_length(), headers=headers), 413, "announced with")
    assert "`HEAD` or its status counts" in error["hint"]
    assert tus.names() == []


async def test_who_cannot_patch_or_delete_says_so_in_a_header(tus: Tus, lora: bytes) -> None:
    where = await tus.created(len(lora))
    headers = {**BODY, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    answer = await tus.http.post(where, headers=headers, content=lora[:500])
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, "500")
    answer = await tus.http.post(where, headers={**TUS, "X-HTTP-Method-Override": "DELETE"})
    assert answer.status_code == 204
    answer = await tus.http.post(where, headers=TUS)
    refused(answer, 405, "POST is no method")
    assert answer.headers["Allow"] == "HEAD, PATCH, DELETE, OPTIONS"
    for wrong in (await tus.http.get(f"{tus.url}/uploads"), await tus.http.put(where)):
        refused(wrong, 405, "is not a method")
        assert {"POST", "OPTIONS"} <= set(wrong.headers["Allow"].split(", "))


async def test_a_version_that_is_not_spoken_is_refused_with_ours(tus: Tus, lora: bytes) -> None:
    where = await tus.created(len(lora))
    for headers in ({}, {"Tus-Resumable": "0.2.2"}):
        for answer in (
            await tus.http.post(f"{tus.url}/uploads", headers={**headers, "Upload-Length": "5"}),
            await tus.http.patch(where, headers={**headers, "Upload-Offset": "0"}),
            await tus.http.delete(where, headers=headers),
        ):
            refused(answer, 412, "`Tus-Resumable` is")
            assert answer.headers["Tus-Version"] == "1.0.0"
        assert (await tus.http.head(where, headers=headers)).status_code == 412


async def test_another_content_type_and_a_missing_offset_are_refused(tus: Tus, lora: bytes) -> None:
    where = await tus.created(len(lora))
    answer = await tus.http.patch(where, headers={**TUS, "Upload-Offset": "0"}, content=b"x")
    refused(answer, 415, "`Content-Type` is ''")
    answer = await tus.http.patch(where, headers=BODY, content=b"x")
    refused(answer, 422, "`Upload-Offset` is missing")
    refused(await tus.patch(where, 0, b"x", **{"Upload-Offset": "-1"}), 422, "is '-1'")


@pytest.mark.parametrize("upload_id", ["6f1c3a52-6d1e-4a35-9a62-0b6f6a4e9d11", "no-uuid", "..%2f..%2fetc", "%00"])
async def test_an_upload_that_is_not_there_is_not_found(tus: Tus, upload_id: str) -> None:
    where = f"{tus.url}/uploads/{upload_id}"
    assert (await tus.http.head(where, headers=TUS)).status_code == 404
    for answer in (await tus.http.delete(where, headers=TUS), await tus.patch(where, 0, b"x")):
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"


DEEP = '{"a":' * 250 + "1" + "}" * 250
BAD_CREATIONS: list[tuple[dict[str, str], int, str]] = [
    ({"Upload-Length": ""}, 422, "`Upload-Length` is missing"),
    ({"Upload-Length": "-5"}, 422, "`Upload-Length` is '-5'"),
    ({"Upload-Length": "0"}, 422, "an empty file"),
    ({"Upload-Length": "9" * 18}, 413, "at most"),
    ({"Upload-Length": "9" * 19}, 413, f"is {'9' * 19}; at most"),
    ({"Upload-Length": "9" * 5000}, 413, "at most"),
    ({"Upload-Length": "1.5"}, 422, "1 to 18 digits"),
    ({"Upload-Length": str(2**52)}, 507, "do not fit"),
    ({"Upload-Defer-Length": "1"}, 422, "whole length"),
    ({"Upload-Concat": "partial"}, 422, "one upload for one file"),
    ({"Upload-Metadata": ""}, 422, "names no file"),
    ({"Upload-Metadata": metadata(file_name="a")}, 422, "did you mean `filename`?"),
    ({"Upload-Metadata": "filename"}, 422, "names no file. Its `filename` is empty."),
    ({"Upload-Metadata": f"{metadata(filename='a')},{metadata(filename='b')}"}, 422, "'filename' more than once"),
    ({"Upload-Metadata": "filename ???"}, 422, "no base64 text under 'filename'"),
    ({"Upload-Metadata": f"filename {b64(bytes([255]))}"}, 422, "no base64 text"),
    ({"Upload-Metadata": metadata(filename="../a.safetensors")}, 422, "`filename`"),
    ({"Upload-Metadata": metadata(filename="a.ckpt")}, 422, "not accepted"),
    ({"Upload-Metadata": metadata(filename="a.safetensors", sha256="abc")}, 422, "`sha256`"),
    ({"Upload-Metadata": metadata(filename="a.safetensors", overwrite="maybe")}, 422, "neither `true` nor `false`"),
    ({"Upload-Metadata": metadata(filename="a.safetensors", metadata="[]")}, 422, "no JSON object"),
    ({"Upload-Metadata": metadata(filename="a.safetensors", metadata=DEEP)}, 422, "more than 32 levels deep"),
    ({"Upload-Metadata": metadata(filename="a.safetensors", upload_id="7")}, 422, "no UUID"),
]


@pytest.mark.parametrize(("bad", "status", "words"), BAD_CREATIONS, ids=lambda value: str(value)[:40])
async def test_a_creation_that_cannot_be_is_refused_by_name(
    tus: Tus, bad: dict[str, str], status: int, words: str
) -> None:
    good = {**TUS, "Upload-Length": "1000", "Upload-Metadata": metadata(filename="a.safetensors")}
    refused(await tus.http.post(f"{tus.url}/uploads", headers={**good, **bad}), status, words)
    assert not (tus.folder / ".uploads").exists()


async def test_a_creation_with_an_id_is_resumed_by_the_same(tus: Tus, lora: bytes) -> None:
    upload_id = str(uuid4())
    where = await tus.created(len(lora), upload_id=upload_id)
    assert where.endswith(upload_id)
    await tus.patch(where, 0, lora[:1000])
    assert await tus.created(len(lora), upload_id=upload_id) == where
    assert await tus.offset(where) == 1000
    for size, name, differing in (
        (len(lora) + 1, "cat.safetensors", "total_size"),
        (len(lora), "b.safetensors", "filename"),
    ):
        told = metadata(filename=name, upload_id=upload_id)
        answer = await tus.http.post(
            f"{tus.url}/uploads", headers={**TUS, "Upload-Length": str(size), "Upload-Metadata": told}
        )
        assert refused(answer, 409, "was started with other parameters")["details"]["differing"] == [differing]
    assert await tus.offset(where) == 1000


async def test_a_name_that_is_taken_is_refused_at_the_creation_unless_it_is_to_be_replaced(
    tus: Tus, lora: bytes
) -> None:
    (tus.folder / "cat.safetensors").write_bytes(b"another")
    headers = {**TUS, "Upload-Length": "1000", "Upload-Metadata": metadata(filename="cat.safetensors")}
    refused(await tus.http.post(f"{tus.url}/uploads", headers=headers), 409, "exists already")
    where = await tus.created(len(lora), overwrite="")
    assert (await tus.patch(where, 0, lora)).status_code == 204
    assert (tus.folder / "cat.safetensors").read_bytes() == lora


async def test_the_guard_stands_before_this_door_too(
    folder: Path, tmp_path: Path, serve: Callable[[ASGIApp], str]
) -> None:
    url = serve(lora_server(folder, tmp_path / "cache.sqlite", token="secret"))
    headers = {**TUS, "Upload-Length": "1000", "Upload-Metadata": metadata(filename="a.safetensors")}
    async with httpx.AsyncClient() as http:
        assert (await http.post(f"{url}/uploads", headers=headers)).status_code == 401
        headers["Authorization"] = "Bearer secret"
        assert (await http.post(f"{url}/uploads", headers={**headers, "Host": "evil.example"})).status_code == 403
        assert (await http.post(f"{url}/uploads", headers={**headers, "Origin": "https://evil"})).status_code == 403
        assert (await http.post(f"{url}/uploads", headers=headers)).status_code == 201
