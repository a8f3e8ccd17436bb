"""What no upload can be is refused by name and by each way in, and leaves nothing behind."""

import base64
import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from tests.servers.aitk import settings_in
from tests.servers.lora_server import lora_server
from tests.servers.loras import TINY
from tests.unit.lora_files.files import pairs, write

TUS = {"Tus-Resumable": "1.0.0"}
Error = dict[str, Any]


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


class Doors:
    """Both servers, and what a caller tries by each way in."""

    def __init__(self, comfy: httpx.AsyncClient, aitk: httpx.AsyncClient, folder: Path) -> None:
        self._comfy = comfy
        self._aitk = aitk
        self.folder = folder

    async def tool(self, name: str, **arguments: Any) -> httpx.Response:
        return await self._comfy.post("/mcp/tool", content=json.dumps({"tool": name, "arguments": arguments}))

    async def chunks(self, filename: str, data: bytes, **given: Any) -> httpx.Response:
        """Start, send everything as one chunk, and finish; returns the first refusal, or the last answer."""
        start = {"filename": filename, "total_size": len(data), "chunk_size": 4 * 1024 * 1024, **given}
        answer = await self.tool("upload-lora-chunked-start", **start)
        if answer.is_success:
            upload_id = {"upload_id": answer.json()["result"]["upload_id"]}
            answer = await self.tool("upload-lora-chunked-append", **upload_id, chunk=b64(data), chunk_index=0)
            if answer.is_success:
                answer = await self.tool("upload-lora-chunked-finish", **upload_id)
            if not answer.is_success:
                await self.tool("upload-lora-chunked-abort", **upload_id)
        return answer

    async def whole(self, filename: str, data: bytes, **given: Any) -> httpx.Response:
        """Send everything in one call."""
        return await self.tool("upload-lora", filename=filename, content=b64(data), **given)

    async def tus(self, filename: str, data: bytes, **given: Any) -> httpx.Response:
        """Create a LoRA with its bytes."""
        return await self._created(self._comfy, filename, data, **given)

    async def zips(self, filename: str, data: bytes, **given: Any) -> httpx.Response:
        """Create a zip with its bytes."""
        return await self._created(self._aitk, filename.replace(".safetensors", ".zip"), b"PK\x03\x04" + data, **given)

    async def _created(self, http: httpx.AsyncClient, filename: str, data: bytes, **given: Any) -> httpx.Response:
        told = ",".join(f"{key} {b64(value)}".strip() for key, value in {"filename": filename, **given}.items())
        headers = {**TUS, "Upload-Length": str(len(data)), "Upload-Metadata": told}
        headers["Content-Type"] = "application/offset+octet-stream"
        return await http.post("/uploads", headers=headers, content=data)

    def left(self) -> list[str]:
        """Return every file that is visible, and every upload that was begun and not dropped."""
        visible = [path.name for path in (self.folder / "loras").rglob("*") if path.is_file()]
        return [*visible, *(path.parent.name for path in self.folder.rglob("manifest.json"))]


@pytest.fixture
async def doors(tmp_path: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[Doors]:
    """Serve both on one folder."""
    (tmp_path / "loras").mkdir()
    comfy = serve(lora_server(tmp_path / "loras", tmp_path / "cache.sqlite"))
    aitk = serve(create_app(settings_in(tmp_path / "aitk")))
    async with httpx.AsyncClient(base_url=comfy) as to_comfy, httpx.AsyncClient(base_url=aitk) as to_aitk:
        yield Doors(to_comfy, to_aitk, tmp_path)


def refused(answer: httpx.Response, status: int = 422) -> Error:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["hint"]
    return error


NAMES = {
    "..": "../cat.safetensors",
    ".. within": "a/../../cat.safetensors",
    "absolute": "/etc/cat.safetensors",
    "a drive": "C:/cat.safetensors",
    "NUL": "cat\0.safetensors",
    "a line break": "cat\n.safetensors",
    "backslash": "a\\cat.safetensors",
    "backslash and ..": "..\\cat.safetensors",
    "reserved": "nul.safetensors",
    "reserved folder": "COM1/cat.safetensors",
    "over-long": f"{'a' * 300}.safetensors",
    "look-alike of /": "a\uff0fcat.safetensors",
    "look-alike of ..": "\uff0e\uff0e\uff0fcat.safetensors",
    "text turned around": "cat\u202e.safetensors",
    "invisible": "ca\u200bt.safetensors",
    "hidden": ".uploads/cat.safetensors",
    "empty part": "a//cat.safetensors",
    "trailing dot": "cat./x.safetensors",
    "nothing": "",
}
EXTENSIONS = ["cat.ckpt", "cat.pt", "cat", "cat.safetensors.exe", "cat.safetensors/"]


@pytest.mark.parametrize("way", ["chunks", "whole", "tus", "zips"])
async def test_names(doors: Doors, tmp_path: Path, way: str) -> None:
    data = write(tmp_path / "source", pairs(TINY)).read_bytes()
    for what, name in NAMES.items():
        error = refused(await getattr(doors, way)(name, data))
        assert error["code"] == "invalid_arguments", what
        assert "filename" in error["message"], what
    for name in EXTENSIONS:
        assert name[:3] in refused(await getattr(doors, way)(name, data))["message"]
    assert doors.left() == []


def raw(header: bytes) -> bytes:
    """Return a file with this header and eight bytes of tensors."""
    return len(header).to_bytes(8, "little") + header + bytes(8)


HEADERS = {
    "a pickle": (b"\x80\x02}q\x00(X\x01\x00\x00\x00a" + bytes(100), "pickle"),
    "a pickle in a zip": (b"PK\x03\x04" + bytes(100), "zip"),
    "a header of 2^62 bytes": ((2**62).to_bytes(8, "little") + b"{" + bytes(100), "header of 4611686018427387904"),
    "a header past the end": ((10_000).to_bytes(8, "little") + b"{" + bytes(100), "ends inside its header"),
    "a header of brackets": ((5000).to_bytes(8, "little") + b'{"a":' + b"[" * 4995, "header"),
    "a header that is no JSON": ((50).to_bytes(8, "little") + b"{" + b"x" * 60, "JSON"),
    "tensors that overlap": (
        raw(
            b'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'
        ),
        "Tensor 'b' lies over",
    ),
    "a shape that overflows": (
        raw(b'{"a":{"dtype":"F16","shape":[4294967296,4294967296,4],"data_offsets":[0,8]}}'),
        "'a'",
    ),
}


@pytest.mark.parametrize("way", ["chunks", "whole", "tus"])
async def test_contents_under_the_name_of_a_lora(doors: Doors, way: str) -> None:
    for what, (data, words) in HEADERS.items():
        error = refused(await getattr(doors, way)("cat.safetensors", data))
        assert "no usable safetensors file" in error["message"], what
        assert words in error["message"], (what, error["message"])
    assert list((doors.folder / "loras").glob("*.safetensors")) == []


@pytest.mark.parametrize("size", [0, -1, 2**63, 2**64, 10**30, 1.5, "many"])
async def test_sizes(doors: Doors, tmp_path: Path, size: object) -> None:
    error = refused(await doors.tool("upload-lora-chunked-start", filename="cat.safetensors", total_size=size))
    assert "total_size" in error["message"]
    assert doors.left() == []


@pytest.mark.parametrize("way", ["chunks", "whole", "tus"])
async def test_digests(doors: Doors, tmp_path: Path, way: str) -> None:
    data = write(tmp_path / "source", pairs(TINY)).read_bytes()
    send = getattr(doors, way)
    for digest in ("abc", "0" * 63, "0" * 65, "g" * 64, "é" * 64):
        assert "sha256" in refused(await send("cat.safetensors", data, sha256=digest))["message"]
    wrong = refused(await send("cat.safetensors", data, sha256="0" * 64), 460 if way == "tus" else 409)
    assert "another sha256" in wrong["message"]
    assert wrong["details"]["expected_sha256"] == "0" * 64
    assert doors.left() == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("YW\nFi", "white space at character 2"),
        (" YWFi", "white space at character 0"),
        ("YW-i", "URL alphabet"),
        ("YW_i", "URL alphabet"),
        ("YWFiY", "no multiple of 4"),
        ("YQ==YQ==", "padding in the middle"),
        ("Y===", "padding"),
    ],
)
async def test_base64(doors: Doors, content: str, words: str) -> None:
    assert words in refused(await doors.tool("upload-lora", filename="a.safetensors", content=content))["message"]
    started = (await doors.tool("upload-lora-chunked-start", filename="a.safetensors", total_size=100)).json()["result"]
    chunk = {"upload_id": started["upload_id"], "chunk": content, "chunk_index": 0}
    assert words in refused(await doors.tool("upload-lora-chunked-append", **chunk))["message"]
    status = (await doors.tool("upload-lora-chunked-status", upload_id=started["upload_id"])).json()["result"]
    assert status["received_bytes"] == 0
