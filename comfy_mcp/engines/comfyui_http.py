"""Speak HTTP to ComfyUI and translate every way in which that can go wrong, once, at this edge."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
from anyio import to_thread

from mcp_toolserver.errors import BackendRejected, BackendUnavailable, TooLarge

Address = Callable[[], Awaitable[str]]
"""Return the address of the server, and raise BackendUnavailable where there is none (yet, or any more)."""

_CONNECT_TIMEOUT_S = 2.0
# HTTP_PROXY is often set without NO_PROXY, and no proxy reaches this machine's own loopback.
_PAST_PROXIES: dict[str, httpx.AsyncBaseTransport | None] = dict.fromkeys(
    ("all://127.0.0.1", "all://localhost", "all://[::1]")
)
_ANSWER_TIMEOUT_S = 30.0
_ANSWERS = frozenset({400, 404, 405})


class AnswerLost(BackendUnavailable):
    """Say that the request went out and its answer never came: whether it was obeyed is unknown."""


class ComfyHttp:
    """Send requests to one ComfyUI; every method raises BackendUnavailable or BackendRejected, never httpx's errors."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._is_open = False
        self._client: httpx.AsyncClient | None = None
        self._opening = anyio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Keep the connections open while the block runs."""
        self._is_open = True
        try:
            yield
        finally:
            self._is_open = False
            client, self._client = self._client, None
            if client is not None:
                with anyio.CancelScope(shield=True):
                    await client.aclose()

    async def get(self, path: str, *, timeout_s: float = _ANSWER_TIMEOUT_S) -> Any:
        """Return the JSON at `path`; None where the server says 404."""
        response = await self.send("GET", path, timeout_s=timeout_s)
        return None if response.status_code == 404 else self.json_of(response)

    async def post(self, path: str, body: object, *, timeout_s: float = _ANSWER_TIMEOUT_S) -> httpx.Response:
        """Post JSON and return the answer with status 2xx, or one that is an answer too: 400, 404, 405."""
        return await self.send("POST", path, json=body, timeout_s=timeout_s)

    async def send(
        self, method: str, path: str, *, timeout_s: float = _ANSWER_TIMEOUT_S, **content: Any
    ) -> httpx.Response:
        """Send a request and return the answer with status 2xx, or one that is an answer too: 400, 404, 405."""
        client, url = await self._target(path)
        try:
            response = await client.request(
                method, url, timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S)), **content
            )
        except httpx.HTTPError as error:
            raise unavailable(url, error) from error
        if response.is_success or response.status_code in _ANSWERS:
            return response
        raise refused(response)

    async def stream(self, path: str, params: Mapping[str, str], headers: Mapping[str, str]) -> httpx.Response:
        """Open a GET whose body the caller reads, and must close; any status comes back."""
        client, url = await self._target(path)
        try:
            return await client.send(
                client.build_request("GET", url, params=dict(params), headers=dict(headers)), stream=True
            )
        except httpx.HTTPError as error:
            raise unavailable(url, error) from error

    def json_of(self, response: httpx.Response) -> Any:
        """Return the JSON of an answer; raises BackendRejected for anything else, such as a proxy's HTML page."""
        try:
            return response.json()
        except ValueError:
            kind = response.headers.get("content-type", "no content type").partition(";")[0]
            raise BackendRejected(
                f"What answers at {origin_of(response.url)} is not ComfyUI: {response.url.path} gave {kind}, not JSON.",
                hint="Check COMFYUI_API_URL: it must be the address of ComfyUI itself, with its port.",
                details={"url": str(response.url), "status": response.status_code, "content_type": kind},
            ) from None

    async def _target(self, path: str) -> tuple[httpx.AsyncClient, httpx.URL]:
        address = await self._address()
        async with self._opening:
            if not self._is_open:
                raise BackendUnavailable(
                    "The connection to ComfyUI is closed.", hint="The server is stopping; call again."
                )
            if self._client is None:
                # Reading the certificates takes longer than the rest of the start, and plain HTTP needs none.
                verify = address.startswith("https") and await to_thread.run_sync(httpx.create_ssl_context)
                timeout = httpx.Timeout(_ANSWER_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
                self._client = httpx.AsyncClient(timeout=timeout, mounts=_PAST_PROXIES, verify=verify)
            return self._client, httpx.URL(address.rstrip("/") + path)


def fixed(url: str) -> Address:
    """Return an address that never changes."""

    async def address() -> str:
        return url

    return address


def is_loopback(url: str) -> bool:
    """Tell whether an address is this machine by name."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def origin_of(url: httpx.URL) -> str:
    """Return scheme, host and port."""
    return f"{url.scheme}://{url.netloc.decode()}"


def unavailable(url: httpx.URL, error: httpx.HTTPError) -> BackendUnavailable:
    """Translate a failure to get any answer."""
    origin = origin_of(url)
    details = {"url": origin, "reason": type(error).__name__}
    hint = f"Start ComfyUI there, or set COMFYUI_API_URL to where it runs (it is {origin} now), and call again."
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return BackendUnavailable(f"ComfyUI does not answer at {origin}.", hint=hint, details=details)
    if isinstance(error, httpx.TimeoutException):
        words = f"ComfyUI at {origin} took the request for {url.path} and did not answer in time."
        return AnswerLost(words, hint=hint, details=details)
    return AnswerLost(f"The connection to ComfyUI at {origin} broke during {url.path}.", hint=hint, details=details)


def refused(response: httpx.Response) -> BackendRejected | TooLarge:
    """Translate an error status that is no verdict on a graph."""
    lines = response.text.strip().splitlines() if "html" not in response.headers.get("content-type", "") else []
    said = lines[0][:200] if lines else response.reason_phrase
    details = {"url": str(response.url), "status": response.status_code}
    if response.status_code == 413:
        return TooLarge(
            f"ComfyUI takes no body of that size: {said}", hint="Raise ComfyUI's --max-upload-size.", details=details
        )
    hint = {
        401: "Something in front of ComfyUI wants a login; give COMFYUI_API_URL an address without one.",
        403: "ComfyUI refuses this Host or Origin; call it by the address that it listens on.",
    }.get(response.status_code, "ComfyUI's own log has the cause.")
    return BackendRejected(
        f"ComfyUI answered {response.url.path} with {response.status_code}: {said}.", hint=hint, details=details
    )
