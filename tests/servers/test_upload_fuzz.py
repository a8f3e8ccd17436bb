"""Requests made by chance at the upload doors: each is answered or refused by name; none is a 500 or leaves a file."""

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from tests.servers.aitk import settings_in
from tests.servers.lora_server import lora_server

IDS = [str(UUID(int=number, version=4)) for number in range(4)]
TEXTS = ["", "a", "0", "-1", "null", "é\u202e", "../..", "\x00", "a" * 300, "1e400", "%00", " ", "CON"]
SIZES = [0, 1, 7, 8, 100, 5000, 2**31, 2**51, 2**52, 2**53, 2**63, 2**64, 10**30, -1, 1.5]
BYTES = [b"", b"\x09\0\0\0\0\0\0\0{}", b"<html>", b"PK\x03\x04", b"\xff" * 50, b"\0" * 200]
NAMES = ["cat.safetensors", "cat.zip", "b/cat.safetensors", "cat.ckpt", "../cat.safetensors", "nul.safetensors", "c\\d"]


class Chance:
    """Draw requests, half of what is in them plausible."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def one(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def text(self) -> str:
        return self.one(*TEXTS, *NAMES, *IDS)

    def data(self) -> bytes:
        return self.one(*BYTES, self._random.randbytes(self._random.randint(0, 300)))

    def value(self) -> Any:
        return self.one(self.text(), self.one(*SIZES), None, True, [], {}, {"a": [self.text()]}, [1, [2]])

    def often(self, good: Any, bad: Any, share: float = 0.8) -> Any:
        return good if self._random.random() < share else bad

    def call(self) -> bytes:
        """Return the body of a tool call."""
        chunk = base64.b64encode(self.data()).decode()
        good: dict[str, dict[str, Any]] = {
            "upload-lora-chunked-start": {
                "upload_id": self.one(*IDS),
                "filename": self.one(*NAMES),
                "total_size": self.one(*SIZES),
                "chunk_size": self.one(1, 10, 100, None),
            },
            "upload-lora-chunked-append": {
                "upload_id": self.one(*IDS),
                "chunk": chunk,
                "chunk_index": self.one(0, 0, 0, 1, *SIZES),
                "chunk_sha256": self.often(None, "0" * 64),
            },
            "upload-lora-chunked-finish": {"upload_id": self.one(*IDS), "sha256": self.often(None, "0" * 64)},
            "upload-lora-chunked-abort": {"upload_id": self.one(*IDS)},
            "upload-lora-chunked-status": {"upload_id": self.one(*IDS)},
            "import-dataset": {"upload_id": self.one(*IDS), "dataset_name": self.one("cat", *TEXTS)},
            "upload-lora": {"filename": self.one(*NAMES), "content": chunk, "metadata": self.often(None, {"a": 1})},
        }
        tool = self.one(*good)
        arguments = {key: self.often(value, self.value(), 0.85) for key, value in good[tool].items()}
        if self._random.random() < 0.1:
            arguments[self.text()] = self.value()
        return json.dumps({"tool": tool, "arguments": self.often(arguments, self.value(), 0.95)}).encode()

    def headers(self) -> dict[str, str]:
        """Return headers of a tus request."""
        pairs = {
            "filename": self.often(self.one("cat.safetensors", "cat.zip"), self.one(*NAMES)),
            "upload_id": self.one(*IDS),
            "publish": self.often("true", self.text()),
        }
        told = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}".strip() for key, value in pairs.items())
        plain = self.one("", "x", "filename", ",,,", "a b c", "9" * 40, "sha1 AAAA", "sha256", "-5")
        headers = {
            "Tus-Resumable": self.often("1.0.0", plain, 0.95),
            "Upload-Length": self.often("100", self.one(plain, *map(str, SIZES)), 0.6),
            "Upload-Offset": self.often(str(self.one(0, 0, 0, *SIZES)), plain),
            "Upload-Metadata": self.often(told, plain),
            "Content-Type": self.often("application/offset+octet-stream", plain),
            "Upload-Checksum": self.often("", self.one(plain, "sha1 2jmj7l5rSw0yVb/vlWAYkK/YBwk=")),
            "X-HTTP-Method-Override": self.often("", self.one("PATCH", "DELETE", "HEAD", "BREW", plain), 0.95),
            "Upload-Defer-Length": self.often("", "1", 0.97),
        }
        return {key: value for key, value in headers.items() if value}

    def target(self) -> tuple[str, str]:
        """Return a method and a path."""
        upload, method = f"/uploads/{self.one(*IDS)}", self.one("POST", "HEAD", "PATCH", "DELETE", "OPTIONS", "GET")
        strange = (method, self.one("/uploads", "/uploads/", "/uploads/x", "/uploads/a/b", upload))
        return self.often(self.one(("POST", "/uploads"), ("PATCH", upload), (method, upload)), strange)


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.long)])
async def test_what_chance_sends_is_answered_by_name_and_leaves_no_file(
    tmp_path: Path, serve: Callable[[ASGIApp], str], count: int
) -> None:
    folder = tmp_path / "loras"
    folder.mkdir()
    comfy = serve(lora_server(folder, tmp_path / "cache.sqlite"))
    aitk = serve(create_app(settings_in(tmp_path / "aitk")))
    chance = Chance(count)
    seen: set[int] = set()
    async with httpx.AsyncClient(timeout=30) as http:
        for _ in range(count):
            url = chance.one(comfy, comfy, aitk)
            if chance.one(True, False):
                body = chance.call()
                url = aitk if b"import-dataset" in body else url
                answer = await http.post(f"{url}/mcp/tool", content=body)
                sent: object = body
            else:
                (method, path), headers = chance.target(), chance.headers()
                answer = await http.request(method, url + path, headers=headers, content=chance.data())
                sent = (method, path, headers)
            seen.add(answer.status_code)
            assert answer.status_code < 500 or answer.status_code == 507, f"{sent!r}: {answer.text}"
            if answer.status_code >= 400 and answer.content:
                assert answer.json()["error"]["message"], sent
    assert {200, 201, 204, 404, 409, 412, 413, 415, 422, 507} <= seen
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []
    assert list((tmp_path / "aitk").glob("datasets/*/*")) == []
