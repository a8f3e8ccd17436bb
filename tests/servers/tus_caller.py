"""A caller who speaks tus and leaves everything to the test."""

import base64
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

TUS = {"Tus-Resumable": "1.0.0"}
BODY = {**TUS, "Content-Type": "application/offset+octet-stream"}


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def metadata(**pairs: str) -> str:
    return ",".join(f"{key} {b64(value)}".strip() for key, value in pairs.items())


class Tus:
    """A server over one loras folder, and a client that leaves everything to the test."""

    def __init__(self, url: str, folder: Path, http: httpx.AsyncClient) -> None:
        self.url = url
        self.folder = folder
        self.http = http

    async def created(self, size: int, **pairs: str) -> str:
        """Create an upload; returns its address."""
        told = metadata(**{"filename": "cat.safetensors", **pairs})
        headers = {**TUS, "Upload-Length": str(size), "Upload-Metadata": told}
        answer = await self.http.post(f"{self.url}/uploads", headers=headers)
        assert answer.status_code == 201, answer.text
        assert parsedate_to_datetime(answer.headers["Upload-Expires"])
        return answer.headers["Location"]

    async def patch(self, where: str, offset: int, data: bytes, **headers: str) -> httpx.Response:
        return await self.http.patch(where, content=data, headers={**BODY, "Upload-Offset": str(offset), **headers})

    async def offset(self, where: str) -> int:
        answer = await self.http.head(where, headers=TUS)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        return int(answer.headers["Upload-Offset"])

    async def tool(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = await self.http.post(f"{self.url}/mcp/tool", json={"tool": tool, "arguments": arguments})
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    def names(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]


def refused(answer: httpx.Response, status: int, words: str) -> dict[str, Any]:
    """Check a refusal: its status, our envelope, and what it names."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    error = answer.json()["error"]
    assert words in error["message"]
    assert error["hint"]
    return error
