"""The aitk_mcp that LoRAs are imported from: what it says of a model, and the model's bytes."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from http.client import HTTPResponse
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from anyio import Lock, to_thread
from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator

from comfy_mcp.imports.parallel import by_several
from comfy_mcp.imports.reading import READING_ERRORS, answer_to_get
from mcp_toolserver.client import ToolClient
from mcp_toolserver.errors import BackendRejected, BackendUnavailable, Unauthorized

_SERVER = "aitk_mcp"
_MODELS = "/models/"
# Another length: without a tag, this is how another state of the model shows. 412 is how it does with one.
_OTHER_BYTES = (200, 206, 404, 412, 416)


class SourceChanged(Exception):
    """The model seems to have other bytes by now than those that the import began with; it says how that shows."""


class PeerModel(BaseModel, frozen=True):
    """A trained LoRA as aitk_mcp tells of it; `sha256` is in hex.

    `path` is where it lies on the machine that keeps it, and `etag` names the state that has the digest; a file here
    with that tag is the very one. `link_safe` is whether nobody will write into it.
    """

    model_path: str = Field(min_length=1)
    filename: str = Field(min_length=1)
    path: Path
    size_bytes: int = Field(ge=0, le=2**62, validation_alias="size")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    # One of an earlier version tells neither.
    etag: str | None = Field(None, pattern=r'^"[\x21\x23-\x7e]*"$')
    link_safe: bool = False
    training_config: dict[str, Any] | None

    @field_validator("path")
    @classmethod
    def _can_be(cls, value: Path) -> Path:
        if "\0" in str(value):
            raise ValueError("no path holds a NUL")
        return value

    @property
    def state(self) -> tuple[str, int, str | None]:
        """Return what differs once the bytes do."""
        return self.sha256, self.size_bytes, self.etag


class AitkPeer:
    """One aitk_mcp: the one that was configured, or whatever answers as one at the default address."""

    def __init__(self, url: str, token: SecretStr | None, *, is_configured: bool = True, connections: int = 1) -> None:
        self.url = url
        self._connections = connections
        self._is_configured = is_configured
        self._token = token.get_secret_value() if token else None
        self._client: ToolClient | None = None
        self._opening = Lock()
        self._is_known = False

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Keep a connection to the peer while the block runs."""
        try:
            yield
        finally:
            if self._client is not None:
                await self._client.__aexit__(None, None, None)
                self._client = None

    async def model(self, model_path: str, *, with_config: bool = True) -> PeerModel:
        """Ask for a model; its digest is computed now if nobody asked before.

        Raises NotFound with the closest names, BackendUnavailable where nobody answers, and BackendRejected where it is
        no aitk_mcp, or one that wants another token.
        """
        arguments = {"model_path": model_path, "format": "url", "include_metadata": with_config}
        try:
            client = await self._opened()
            await self._require_aitk(client)
            told = await client.call("download-model", arguments)
        except Unauthorized as error:
            raise BackendRejected(
                f"The aitk_mcp at {self.url} wants another token than this server was given.",
                hint="Who runs this server sets COMFY_MCP_AITK_TOKEN to the token of aitk_mcp.",
                details={"url": self.url, "setting": "COMFY_MCP_AITK_TOKEN"},
            ) from error
        except BackendUnavailable as error:
            raise self.silent(error.message) from error
        return model_told(told, self.url)

    def model_path_in(self, url: str) -> str | None:
        """Return which of the peer's models a URL leads to, or None where it leads elsewhere."""
        try:
            ours, theirs = urlsplit(self.url), urlsplit(url)
            same_port = ours.scheme == theirs.scheme and ours.port == theirs.port
        except ValueError:
            return None
        same_host = ours.hostname == theirs.hostname or (_is_loopback(ours.hostname) and _is_loopback(theirs.hostname))
        models = f"{ours.path}{_MODELS}"
        if not same_port or not same_host or not theirs.path.startswith(models):
            return None
        return unquote(theirs.path.removeprefix(models))

    def bytes_of(self, model: PeerModel, offset: int) -> AsyncGenerator[bytes]:
        """Yield a model's bytes from `offset` on.

        Raises SourceChanged where they are others by now, and BackendUnavailable where a connection breaks.
        """
        if self._connections == 1:
            return self._span(model, offset, model.size_bytes)
        return by_several(partial(self._span, model), offset, model.size_bytes, self._connections)

    async def _span(self, model: PeerModel, offset: int, end: int) -> AsyncGenerator[bytes]:
        authorization = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        headers = {"Accept-Encoding": "identity", **authorization}
        if offset or end < model.size_bytes:
            headers["Range"] = f"bytes={offset}-{end - 1}"
        if model.etag is not None:
            headers["If-Match"] = model.etag
        try:
            url = f"{self.url}{_MODELS}{quote(model.model_path)}"
            async with answer_to_get(url, headers) as body, aclosing(body.pieces()) as pieces:
                _require_bytes(body.answer, model, offset, end)
                async for piece in pieces:
                    offset += len(piece)
                    yield piece
        except READING_ERRORS as error:
            raise self.silent(f"the connection broke ({type(error).__name__}).") from error
        if offset < end:
            raise self.silent("the connection ended early.")

    async def _opened(self) -> ToolClient:
        async with self._opening:
            if self._client is None:
                # It reads the certificates of the system, which takes long enough to hold up everybody else.
                self._client = await to_thread.run_sync(ToolClient, self.url, self._token)
            return self._client

    async def _require_aitk(self, client: ToolClient) -> None:
        if self._is_known:
            return
        try:
            name = (await client.version())["server"]
        except BackendRejected:
            name = None
        self._is_known = name == _SERVER
        if not self._is_known:
            raise BackendRejected(
                f"What answers at {self.url} is no aitk_mcp{f', but {name}' if name else ''}.",
                hint="Who runs this server sets COMFY_MCP_AITK_URL to the address of aitk_mcp.",
                details={"url": self.url, "setting": "COMFY_MCP_AITK_URL"},
            )

    def contradicts(self, model: PeerModel, how: str) -> BackendRejected:
        """Say that the peer did not give the bytes of a model, which by its own word is what it was."""
        return BackendRejected(
            f"The aitk_mcp at {self.url} gives no bytes of `{model.model_path}` though it is unchanged: {how}.",
            hint="Check what stands between the two servers, and the log of aitk_mcp.",
            details={"url": self.url, "model_path": model.model_path, "problem": how},
        )

    def silent(self, reason: str) -> BackendUnavailable:
        """Say that the peer cannot be reached, and why."""
        if self._is_configured or self._is_known:
            said = f"The aitk_mcp at {self.url} cannot be reached: {reason}"
        else:
            said = f"No aitk_mcp is configured, and none answers at {self.url}."
        return BackendUnavailable(
            said,
            hint="Start aitk_mcp and call again: what has come is kept. Where it has another address, who runs this "
            "server sets COMFY_MCP_AITK_URL.",
            details={"url": self.url, "setting": "COMFY_MCP_AITK_URL"},
        )


def model_told(told: Mapping[str, Any], url: str) -> PeerModel:
    """Return the model that the aitk_mcp at `url` tells of by `download-model`.

    Raises BackendRejected where it is not told as that tool does.
    """
    try:
        return PeerModel.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise BackendRejected(
            f"The aitk_mcp at {url} does not tell of a model as `download-model` does: `{name}` is "
            f"{'missing' if first['type'] == 'missing' else repr(first['input'])[:80]}.",
            hint="Check that its version goes with this server's, and that nothing on the way changes its answers.",
            details={"url": url, "field": name, "problem": first["msg"]},
        ) from None


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def _require_bytes(answer: HTTPResponse, model: PeerModel, offset: int, end: int) -> None:
    coding = answer.headers.get("content-encoding", "identity")
    if (offset, end) == (0, model.size_bytes):
        is_right = answer.status == 200 and answer.headers.get("content-length") == str(end)
    else:
        span = f"bytes {offset}-{end - 1}/{model.size_bytes}"
        is_right = answer.status == 206 and answer.headers.get("content-range") == span
    if is_right and coding == "identity":
        return
    if answer.status in _OTHER_BYTES and coding == "identity":
        length = answer.headers.get("content-range") or f"{answer.headers.get('content-length', 'unknown')} bytes"
        raise SourceChanged(f"it answered {answer.status} ({length}) where {end - offset} bytes were asked for")
    if answer.status >= 500 or answer.status == 429:
        raise BackendUnavailable(
            f"aitk_mcp answered {answer.status} for `{model.model_path}`.",
            hint="Call again in a moment: what has come is kept.",
            details={"http_status": answer.status},
        )
    coded = f", coded as `{coding[:40]}`," if coding != "identity" else ""
    raise BackendRejected(
        f"aitk_mcp answered {answer.status}{coded} for the bytes of `{model.model_path}`.",
        hint="Its log has the cause, or that of what stands before it.",
        details={"http_status": answer.status},
    )
