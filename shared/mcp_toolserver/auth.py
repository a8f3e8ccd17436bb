"""The guard in front of EVERY route: request id, Host, Origin, bearer token, size of the body."""

import hmac
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_toolserver.envelope import error_response
from mcp_toolserver.errors import Forbidden, TooLarge, ToolError, Unauthorized
from mcp_toolserver.settings import LOOPBACK_HOSTS

log = logging.getLogger(__name__)

# How much of a body that is refused is read all the same, and for how long.
_DROPPED_BYTES = 64 * 1024 * 1024
_DROPPED_S = 10.0
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class DoorPolicy:
    """Who may call, and how much they may send.

    `allowed_hosts` are Host names without port; `*` stands for any. `unbounded_paths` maps a path prefix to its own
    limit in bytes for the body (None: no limit), for routes that stream to disk. `env_prefix` begins the names of the
    server's settings.
    """

    token: SecretStr | None = None
    allowed_hosts: tuple[str, ...] = LOOPBACK_HOSTS
    allowed_origins: tuple[str, ...] = ()
    max_body_bytes: int = 8 * 1024 * 1024
    unbounded_paths: Mapping[str, int | None] = field(default_factory=dict[str, int | None])
    env_prefix: str = ""

    def body_limit(self, path: str) -> int | None:
        """Return the limit in bytes for a request to `path`, or None."""
        for prefix, limit in self.unbounded_paths.items():
            if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
                return limit
        return self.max_body_bytes

    def too_large(self, limit: int) -> TooLarge:
        """Return the refusal of a body over `limit` bytes."""
        setting = f"{self.env_prefix}MAX_BODY_BYTES"
        streamed = next((prefix for prefix, most in self.unbounded_paths.items() if most is None), None)
        by_tus = f"Files that this server takes by tus go to `{streamed}`, at any size. " if streamed else ""
        return TooLarge(
            f"The request is larger than {limit} bytes.",
            hint=f"{by_tus}Anything else, such as a picture in base64, must be smaller, or {setting} larger.",
            details={"max_body_bytes": limit, "setting": setting},
        )

    def check(self, headers: Headers) -> None:
        """Raise Forbidden or Unauthorized when the caller may not come in."""
        self._check_host(headers.get("host", ""))
        self._check_origin(headers.get("origin"), headers.get("host", ""))
        self._check_token(headers.get("authorization", ""))

    def _check_host(self, host: str) -> None:
        name = _without_port(host)
        if "*" not in self.allowed_hosts and name not in self.allowed_hosts:
            raise Forbidden(
                f"This server does not answer to the Host name `{name}`.",
                hint=f"Call it as {self.allowed_hosts[0]}, or add `{name}` to the setting "
                f"{self.env_prefix}ALLOWED_HOSTS.",
                details={"host": host, "allowed_hosts": list(self.allowed_hosts)},
            )

    def _check_origin(self, origin: str | None, host: str) -> None:
        if origin is None or origin in self.allowed_origins or "*" in self.allowed_origins:
            return
        parts = urlsplit(origin)
        same_origin = parts.netloc == host
        loopback = parts.scheme in ("http", "https") and _without_port(parts.netloc) in LOOPBACK_HOSTS
        if not same_origin and not loopback:
            raise Forbidden(
                f"Pages from `{origin}` may not call this server.",
                hint=f"Add `{origin}` to the setting {self.env_prefix}ALLOWED_ORIGINS of this server if you trust it.",
                details={"origin": origin},
            )

    def _check_token(self, authorization: str) -> None:
        if self.token is None:
            return
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            given.strip().encode(), self.token.get_secret_value().encode()
        ):
            raise Unauthorized(
                "This server wants a bearer token." if not given else "The bearer token is not the right one.",
                hint="Send the header `Authorization: Bearer TOKEN` with the token that the server was started with.",
            )


class Guard:
    """Check every request before any route sees it, give it an id, and count what it sends (an ASGI middleware)."""

    def __init__(self, app: ASGIApp, policy: DoorPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if _SANE_REQUEST_ID.fullmatch(asked) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            try:
                self._policy.check(headers)
            except ToolError:
                await _hear_out(headers, receive)
                raise
            await self._app(scope, await self._counted(scope, headers, receive), send_with_id)
        except ToolError as error:
            if status or scope["type"] != "http":
                raise
            await error_response(error, request_id=request_id)(scope, receive, send_with_id)
        finally:
            milliseconds = round((time.perf_counter() - started) * 1000, 2)
            log.debug(
                "request",
                extra={"path": scope["path"], "status": status, "ms": milliseconds, "request_id": request_id},
            )

    async def _counted(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        limit = self._policy.body_limit(scope["path"])
        if limit is None:
            return receive
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            await _hear_out(headers, receive)
            raise self._policy.too_large(limit)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                if message.get("more_body"):
                    await _drop_body(receive)
                raise self._policy.too_large(limit)
            return message

        return counted


async def _hear_out(headers: Headers, receive: Receive) -> None:
    """Drop the body of a request that is refused, unless its sender asks whether to send it at all."""
    if headers.get("expect", "").lower() != "100-continue":
        await _drop_body(receive)


async def _drop_body(receive: Receive) -> None:
    """Read a body to its end, within bounds: most callers read no answer before they have sent everything."""
    dropped = 0
    with anyio.move_on_after(_DROPPED_S):
        while dropped < _DROPPED_BYTES:
            message = await receive()
            dropped += len(message.get("body", b""))
            if not message.get("more_body"):
                return


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
