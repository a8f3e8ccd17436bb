"""import-dataset from a zip that a real tus client sends over a real socket to `/uploads`."""

import base64
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4
from zipfile import ZipFile

import httpx
import pytest
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from tests.servers.aitk import image_bytes, settings_in

TUS = {"Tus-Resumable": "1.0.0"}
PNG = image_bytes()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of these files."""
    content = BytesIO()
    with ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


GOOD = zipped({"a.png": PNG, "a.txt": b"tok asleep", "deep/b.png": image_bytes(colour="red")})


class Server:
    """A server, and what its clients do."""

    def __init__(self, http: httpx.AsyncClient, folder: Path) -> None:
        self.http = http
        self.folder = folder

    async def created(self, size: int, filename: str = "cats.zip") -> str:
        """Create an upload and return its id."""
        told = f"filename {base64.b64encode(filename.encode()).decode()}"
        answer = await self.http.post("/uploads", headers={**TUS, "Upload-Length": str(size), "Upload-Metadata": told})
        assert answer.status_code == 201, answer.text
        return answer.headers["Location"].rpartition("/")[2]

    async def send(self, upload_id: str, offset: int, data: bytes) -> None:
        headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
        answer = await self.http.patch(f"/uploads/{upload_id}", headers=headers, content=data)
        assert answer.status_code == 204, answer.text

    async def sent(self, data: bytes) -> str:
        """Upload a zip in two pieces and return its id."""
        upload_id = await self.created(len(data))
        half = len(data) // 2
        await self.send(upload_id, 0, data[:half])
        await self.send(upload_id, half, data[half:])
        return upload_id

    async def offset(self, upload_id: str) -> int:
        answer = await self.http.head(f"/uploads/{upload_id}", headers=TUS)
        return int(answer.headers["Upload-Offset"])

    async def take(self, **arguments: Any) -> tuple[int, dict[str, Any]]:
        """Call import-dataset; returns the HTTP status and the result or the error."""
        body = {"tool": "import-dataset", "arguments": {"dataset_name": "cat", **arguments}}
        answer = await self.http.post("/mcp/tool", json=body)
        told = answer.json()
        return answer.status_code, told["result"] if told["success"] else told["error"]

    def datasets(self) -> list[str]:
        root = self.folder / "datasets"
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.fixture
async def server(tmp_path: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[Server]:
    async with httpx.AsyncClient(base_url=serve(create_app(settings_in(tmp_path))), timeout=30) as http:
        yield Server(http, tmp_path)


async def test_an_uploaded_zip_becomes_a_dataset_and_is_used_up(server: Server, tmp_path: Path) -> None:
    upload_id = await server.sent(GOOD)
    status, answer = await server.take(upload_id=upload_id, sha256=hashlib.sha256(GOOD).hexdigest(), trigger_word="tok")
    assert status == 200, answer
    assert (answer["images_saved"], answer["captions_saved"], answer["source"]) == (2, 1, "cats.zip")
    assert [each["renamed_to"] for each in answer["renamed"]] == ["deep_b.png"]
    assert server.datasets() == ["cat/.aitk_size.json", "cat/a.png", "cat/a.txt", "cat/deep_b.png"]
    assert not [path for path in (tmp_path / "uploads").rglob("*") if path.is_file() and path.stat().st_size > 1000]
    status, error = await server.take(upload_id=upload_id, overwrite=True)
    assert (status, error["code"]) == (409, "conflict")
    assert len(server.datasets()) == 4


async def test_a_zip_of_many_megabytes_is_taken_too(server: Server) -> None:
    noise = {f"{n}.webp": image_bytes(form="WEBP") + os.urandom(1024 * 1024) for n in range(12)}
    upload_id = await server.sent(zipped(noise))
    status, answer = await server.take(upload_id=upload_id, default_caption="tok")
    assert (status, answer["images_saved"], answer["captions_saved"]) == (200, 12, 12)


async def test_half_an_upload_is_refused_with_the_numbers_and_can_go_on(server: Server) -> None:
    upload_id = await server.created(len(GOOD))
    await server.send(upload_id, 0, GOOD[:100])
    status, error = await server.take(upload_id=upload_id)
    assert (status, error["code"]) == (409, "conflict")
    assert f"{len(GOOD) - 100} of {len(GOOD)} bytes are missing" in error["message"]
    assert (error["details"]["received_bytes"], error["details"]["field"]) == (100, "upload_id")
    assert "`Upload-Offset: 100`" in error["hint"]
    await server.send(upload_id, 100, GOOD[100:])
    assert (await server.take(upload_id=upload_id))[0] == 200


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (zipped({"good.png": PNG, "cut.png": PNG[:-30]}), "`cut.png`: it does not decode"),
        (zipped({"good.png": PNG, "../evil.png": PNG}), "`../evil.png`: its path leads out"),
        (zipped({"notes.txt": b"text"}), "cats.zip holds no image"),
        (b"PK\x03\x04" + bytes(100), "cats.zip is no zip that can be read"),
    ],
)
async def test_a_zip_that_is_refused_leaves_no_dataset_and_stays(server: Server, data: bytes, said: str) -> None:
    upload_id = await server.sent(data)
    status, error = await server.take(upload_id=upload_id)
    assert (status, error["code"]) == (422, "invalid_arguments")
    assert said in error["message"]
    assert server.datasets() == []
    assert await server.offset(upload_id) == len(data)
    answer = await server.http.delete(f"/uploads/{upload_id}", headers=TUS)
    assert answer.status_code == 204


async def test_a_name_that_is_taken_keeps_the_upload_for_another(server: Server) -> None:
    assert (await server.take(upload_id=await server.sent(GOOD)))[0] == 200
    upload_id = await server.sent(GOOD)
    status, error = await server.take(upload_id=upload_id)
    assert (status, error["code"], error["details"]["dataset_name"]) == (409, "conflict", "cat")
    assert (await server.take(upload_id=upload_id, dataset_name="dog"))[1]["dataset_name"] == "dog"


async def test_another_digest_is_refused_before_the_zip_is_opened(server: Server) -> None:
    upload_id = await server.sent(GOOD)
    status, error = await server.take(upload_id=upload_id, sha256="0" * 64)
    assert (status, error["code"]) == (409, "conflict")
    assert server.datasets() == []
    assert await server.offset(upload_id) == len(GOOD)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ({"upload_id": str(uuid4())}, 404, "There is no upload"),
        ({"upload_id": "cats.zip"}, 422, "`upload_id` is 'cats.zip', which is no UUID"),
        ({}, 422, "Neither `upload_id` nor `path` is given."),
        ({"upload_id": str(uuid4()), "path": "a.zip"}, 422, "`upload_id` and `path` do not go together"),
        ({"path": "a.zip", "sha256": "0" * 64}, 422, "`path` and `sha256` do not go together"),
        ({"zip": "a.zip"}, 422, "`upload_id` for a zip sent to /uploads"),
    ],
)
async def test_what_names_no_upload_is_told_so(
    server: Server, arguments: dict[str, Any], status: int, said: str
) -> None:
    told_status, error = await server.take(**arguments)
    assert told_status == status
    assert said in error["message"] + error["hint"]
