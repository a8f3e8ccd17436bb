"""Speak HTTP to AI Toolkit's server and translate every way in which that can go wrong, once, at this edge."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
from anyio import to_thread
from pydantic import SecretStr

from mcp_toolserver.errors import BackendRejected, BackendUnavailable

DEFAULT_URL = "http://127.0.0.1:8675"

_CONNECT_TIMEOUT_S = 2.0
_ANSWER_TIMEOUT_S = 30.0
# HTTP_PROXY is often set without NO_PROXY, and no proxy reaches this machine's own loopback.
_PAST_PROXIES: dict[str, httpx.AsyncBaseTransport | None] = dict.fromkeys(
    ("all://127.0.0.1", "all://localhost", "all://[::1]")
)


class UiRefused(BackendRejected):
    """Say that AI Toolkit answered with an error status; `answer_status` is that status."""

    def __init__(self, answer_status: int, said: str, url: str, hint: str) -> None:
        super().__init__(
            f"AI Toolkit answered {url} with {answer_status}: {said}.",
            hint=hint,
            details={"url": url, "status": answer_status},
        )
        self.answer_status = answer_status
        self.said = said


@dataclass(frozen=True, slots=True)
class UiFolders:
    """Where AI Toolkit keeps jobs and datasets, as paths on its own machine."""

    training: str
    datasets: str


class UiHttp:
    """Send requests to one AI Toolkit server; every method raises BackendUnavailable or BackendRejected."""

    def __init__(self, url: str = DEFAULT_URL, token: SecretStr | None = None) -> None:
        """Take the address of the server, and what its AI_TOOLKIT_AUTH was set to."""
        self.url = url.rstrip("/")
        self._token = token

    @property
    def is_on_this_machine(self) -> bool:
        """Tell whether the address is this machine by name."""
        host = urlsplit(self.url).hostname or ""
        return host in {"localhost", "::1"} or host.startswith("127.")

    async def get(
        self, path: str, params: Mapping[str, str | int] | None = None, *, timeout_s: float = _ANSWER_TIMEOUT_S
    ) -> Any:
        """Return the JSON at `path`."""
        return self._json_of(await self._send("GET", path, timeout_s, params=dict(params or {})))

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post JSON and return the JSON of the answer."""
        return self._json_of(await self._send("POST", path, _ANSWER_TIMEOUT_S, json=body))

    async def post_stream(
        self, path: str, content: AsyncGenerator[bytes], headers: Mapping[str, str], *, timeout_s: float
    ) -> Any:
        """Post a body as it is made, and return the JSON of the answer."""
        return self._json_of(await self._send("POST", path, timeout_s, content=content, headers=headers))

    @asynccontextmanager
    async def opened(
        self, method: str, path: str, *, timeout_s: float = _ANSWER_TIMEOUT_S, **content: Any
    ) -> AsyncGenerator[httpx.Response]:
        """Send a request and give its answer before its body is read; what breaks while that is read is told too."""
        headers = dict(content.pop("headers", {}))
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        # Reading the certificates takes long, and plain HTTP needs none.
        verify = self.url.startswith("https") and await to_thread.run_sync(httpx.create_ssl_context)
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S))
        try:
            async with (
                httpx.AsyncClient(timeout=timeout, mounts=_PAST_PROXIES, verify=verify) as client,
                client.stream(method, self.url + path, headers=headers, **content) as response,
            ):
                if not response.is_success:
                    await response.aread()
                    raise self._refused(path, response)
                yield response
        except httpx.DecodingError as error:
            raise self.strange(path, "the answer is broken") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unavailable(path, error) from error

    async def folders(self, *, timeout_s: float = _ANSWER_TIMEOUT_S) -> UiFolders:
        """Return the folders from the settings; the access token that stands beside them goes no further."""
        found = await self.get("/api/settings", timeout_s=timeout_s)
        try:
            return UiFolders(str(found["TRAINING_FOLDER"]), str(found["DATASETS_FOLDER"]))
        except (TypeError, KeyError):
            raise self.strange("/api/settings", "it names no folders") from None

    def strange(self, path: str, why: str) -> BackendRejected:
        """Return the error for an answer that AI Toolkit would not give."""
        return BackendRejected(
            f"What answers at {self.url} is not AI Toolkit as this server knows it: {path}: {why}.",
            hint="Check AITK_UI_URL: it must be the address of AI Toolkit's own server (port 8675 by default).",
            details={"url": self.url + path},
        )

    async def _send(self, method: str, path: str, timeout_s: float, **content: Any) -> httpx.Response:
        async with self.opened(method, path, timeout_s=timeout_s, **content) as response:
            await response.aread()
        return response

    def _json_of(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError:
            kind = response.headers.get("content-type", "no content type").partition(";")[0]
            raise self.strange(response.url.path, f"{kind} that is not whole JSON") from None

    def _unavailable(self, path: str, error: Exception) -> BackendUnavailable:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL):
            words = f"AI Toolkit does not answer at {self.url}."
        elif isinstance(error, httpx.TimeoutException):
            words = f"AI Toolkit at {self.url} took the request for {path} and did not answer in time."
        else:
            words = f"The connection to AI Toolkit at {self.url} broke during {path}."
        return BackendUnavailable(
            words,
            hint="Start AI Toolkit's server there (`npm run start` in its `ui` folder), or set AITK_UI_URL to where it"
            " runs, and call again.",
            details={"url": self.url, "reason": type(error).__name__},
        )

    def _refused(self, path: str, response: httpx.Response) -> UiRefused:
        hint = {
            401: "Set AI_TOOLKIT_AUTH to the token that AI Toolkit was started with.",
            404: "Check AITK_UI_URL and the version of AI Toolkit: 0.12 is what this server knows.",
        }.get(response.status_code, "AI Toolkit's own log has the cause.")
        return UiRefused(response.status_code, _said(response), self.url + path, hint)


def _said(response: httpx.Response) -> str:
    """Return AI Toolkit's own words, or those of the status for a page or nothing."""
    try:
        found: Any = response.json()
    except ValueError:
        found = None
    if isinstance(found, Mapping):
        return str(cast(Mapping[str, Any], found).get("error") or response.reason_phrase)[:200]
    lines = [] if "html" in response.headers.get("content-type", "") else response.text.strip().splitlines()
    return lines[0][:200] if lines else response.reason_phrase
