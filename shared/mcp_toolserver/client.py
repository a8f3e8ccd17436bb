"""Call the tools of a server over REST, and its other routes, with its errors raised as what they are."""

from collections.abc import AsyncIterable, Mapping
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httpx
import orjson

from mcp_toolserver.errors import BackendRejected, BackendUnavailable, Internal, TimedOut, ToolError

_FOR_A_WHILE = (429, 502, 503, 504)


class ToolClient:
    """A caller of one server; use it as a context manager.

    `base_url` is the server's address without `/mcp`. Every ToolError of the server is raised here as the same class;
    a server that does not answer is BackendUnavailable, and one that does not answer in time is TimedOut.
    """

    def __init__(self, base_url: str, token: str | None = None, *, timeout_s: float = 120.0) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A proxy from the environment is for the world outside: it does not lead back to this machine.
        is_here = urlsplit(self.base_url).hostname in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(timeout_s, connect=5.0), trust_env=not is_here)

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
        answer = await self._ask("POST", "/mcp/tool", content, {"Content-Type": "application/json"})
        body = _json_of(answer)
        result = body.get("result")
        if answer.is_success and body.get("success") and isinstance(result, dict):
            return cast(dict[str, Any], result)
        raise _error_of(answer, body)

    async def version(self) -> dict[str, Any]:
        """Return what the server says of itself: its name as `server`, its versions, its backend."""
        answer = await self._ask("GET", "/mcp/version")
        body = _json_of(answer)
        if answer.is_success and "server" in body:
            return body
        raise _error_of(answer, body)

    async def send(
        self, method: str, path: str, headers: Mapping[str, str], content: AsyncIterable[bytes] | None = None
    ) -> Mapping[str, str]:
        """Make a request beside the tools, such as one of tus, and return the headers of its answer.

        Raises as `call` does; what `content` raises passes through.
        """
        answer = await self._ask(method, path, content, headers)
        if not answer.is_success:
            raise _error_of(answer, _json_of(answer))
        return answer.headers

    async def _ask(
        self,
        method: str,
        path: str,
        content: bytes | AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            return await self._http.request(
                method, f"{self.base_url}{path}", content=content, headers={**self._headers, **(headers or {})}
            )
        except httpx.TransportError as error:
            raise self._translated(error) from error

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
    if not isinstance(told, dict) and answer.status_code in _FOR_A_WHILE:
        return BackendUnavailable(
            f"{answer.request.url} answered {answer.status_code}: something before the server cannot reach it now.",
            hint="Try again in a moment; if it stays so, check that the server runs.",
            details={"url": str(answer.request.url), "http_status": answer.status_code},
        )
    if not isinstance(told, dict):
        return BackendRejected(
            f"{answer.request.url} answered {answer.status_code}, and not as a tool server does.",
            hint="Check the address: it must be that of comfy_mcp or aitk_mcp.",
        )
    error = cast(dict[str, Any], told)
    # Their subclasses are the servers' own business.
    by_code = {kind.code: kind for kind in ToolError.__subclasses__()}
    kind = by_code.get(str(error.get("code")), Internal)
    if error.get("retryable") and not kind.retryable:
        # Such as an upload that another request holds at this moment.
        kind = BackendUnavailable
    return kind(str(error.get("message")), hint=error.get("hint"), details=error.get("details"))
