"""Call the tools of a server over REST, and fetch its files, with its errors raised as what they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast
from urllib.parse import urlsplit

import httpx
import orjson
from anyio import to_thread

from mcp_toolserver.errors import BackendRejected, BackendUnavailable, Internal, TimedOut, ToolError
from mcp_toolserver.tools import Report, unheard

READ_BYTES = 1024 * 1024
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What a download brought: the size of the whole file, how much came now, and the ETag that names the bytes."""

    size_bytes: int
    received_bytes: int
    etag: str | None


class ToolClient:
    """A caller of one server; use it as a context manager.

    `base_url` is the server's address without `/mcp`. Every ToolError of the server is raised here as the same class;
    a server that does not answer is BackendUnavailable, and one that does not answer in time is TimedOut.
    """

    def __init__(self, base_url: str, token: str | None = None, *, timeout_s: float = 120.0) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(timeout_s, connect=5.0))

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def call(self, tool: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run a tool and return its result."""
        content = orjson.dumps({"tool": tool, "arguments": arguments or {}})
        headers = self._headers | {"Content-Type": "application/json"}
        try:
            answer = await self._http.post(f"{self.base_url}/mcp/tool", content=content, headers=headers)
        except httpx.TransportError as error:
            raise self._translated(error) from error
        body = _json_of(answer)
        if answer.is_success and body.get("success"):
            return body["result"]
        raise _error_of(answer, body)

    async def fetch(
        self, url: str, part: Path, *, etag: str | None = None, known_bytes: int = 0, report: Report = unheard
    ) -> Fetched:
        """Stream `url` into the file `part`; goes on after `known_bytes` when the server still has the bytes of `etag`.

        Everything beyond `known_bytes` that `part` holds is overwritten. Memory stays at one read.
        """
        headers = self._headers_for(url)
        if known_bytes and etag:
            headers |= {"Range": f"bytes={known_bytes}-", "If-Range": etag}
        try:
            async with self._http.stream("GET", url, headers=headers) as answer:
                if answer.status_code == _RANGE_NOT_SATISFIABLE:
                    return Fetched(size_bytes=known_bytes, received_bytes=0, etag=etag)
                if not answer.is_success:
                    await answer.aread()
                    raise _error_of(answer, _json_of(answer))
                start = known_bytes if answer.status_code == _PARTIAL_CONTENT else 0
                total = start + int(answer.headers.get("content-length", 0))
                received = await self._receive(answer, part, start, total, report)
                if start + received != total:
                    raise BackendUnavailable(
                        f"{url} broke off after {start + received} of {total} bytes.", hint="Call again to go on."
                    )
                return Fetched(size_bytes=total, received_bytes=received, etag=answer.headers.get("etag"))
        except httpx.TransportError as error:
            raise self._translated(error) from error

    async def _receive(self, answer: httpx.Response, part: Path, start: int, total: int, report: Report) -> int:
        def opened() -> BinaryIO:
            file = part.open("r+b" if part.exists() else "wb")
            file.truncate(start)
            file.seek(start)
            return file

        received = 0
        file = await to_thread.run_sync(opened)
        try:
            async for data in answer.aiter_bytes(READ_BYTES):
                await to_thread.run_sync(file.write, data)
                received += len(data)
                await report(start + received, total, "downloading")
        finally:
            await to_thread.run_sync(file.close)
        return received

    def _headers_for(self, url: str) -> dict[str, str]:
        # The token is for this server alone, wherever the address in a result points.
        same = urlsplit(url)[:2] == urlsplit(self.base_url)[:2]
        return dict(self._headers) if same else {}

    def _translated(self, error: httpx.TransportError) -> ToolError:
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return TimedOut(f"{self.base_url} did not answer in time.", hint="Call again; nothing is lost.")
        return BackendUnavailable(
            f"{self.base_url} does not answer ({type(error).__name__}).",
            hint="Start that server, or give its right address.",
            details={"url": self.base_url},
        )


def _json_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        body: Any = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        body = None
    return cast(dict[str, Any], body) if isinstance(body, dict) else {}


def _error_of(answer: httpx.Response, body: Mapping[str, Any]) -> ToolError:
    told: Any = body.get("error")
    if not isinstance(told, dict):
        return BackendRejected(
            f"{answer.request.url} answered {answer.status_code}, and not as a tool server does.",
            hint="Check the address: it must be that of comfy_mcp or aitk_mcp.",
        )
    error = cast(dict[str, Any], told)
    by_code = {kind.code: kind for kind in _kinds(ToolError)}
    kind = by_code.get(str(error.get("code")), Internal)
    return kind(str(error.get("message")), hint=error.get("hint"), details=error.get("details"))


def _kinds(kind: type[ToolError]) -> list[type[ToolError]]:
    return [each for child in kind.__subclasses__() for each in (child, *_kinds(child))]
