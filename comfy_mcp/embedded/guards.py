"""What stands before every route: who may call, and how much they may send."""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfy_mcp.embedded.answers import empty_answer
from comfy_mcp.embedded.routes.sockets import MAX_UPLOAD_BYTES


class SameOrigin:
    """Answer 403 to web pages of other origins, and to requests that were not meant for this machine by name.

    The first is ComfyUI's own rule; the second keeps a page from reaching the port through a name that it controls.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan" or is_welcome(Headers(scope=scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            # Closing before accepting is how a server refuses the handshake, with a 403.
            await receive()
            await send({"type": "websocket.close"})
        else:
            await empty_answer(403)(scope, receive, send)


def is_welcome(headers: Mapping[str, str]) -> bool:
    """Say whether a request with these headers comes from a program on this machine, or from a page of this server."""
    host = headers.get("host", "")
    if not _is_loopback(urlsplit(f"//{host}").hostname or ""):
        return False
    if headers.get("sec-fetch-site") == "cross-site":
        return False
    origin = urlsplit(headers.get("origin", "")).netloc
    return origin in {"", host}


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class _TooMuch(Exception):
    """End the reading of a body that is over the limit."""


class BodyLimit:
    """Answer 413 to a body over the limit, after taking it in, so that the sender gets to read the answer."""

    def __init__(self, app: ASGIApp, limit_bytes: int = MAX_UPLOAD_BYTES) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its bytes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received_bytes = 0
        more = True

        async def counted() -> Message:
            nonlocal received_bytes, more
            message = await receive()
            received_bytes += len(message.get("body", b""))
            more = message.get("more_body", False)
            if received_bytes > self._limit_bytes:
                raise _TooMuch
            return message

        try:
            if int(Headers(scope=scope).get("content-length", "0")) > self._limit_bytes:
                raise _TooMuch
            await self._app(scope, counted, send)
        except _TooMuch:
            while more:
                more = (await receive()).get("more_body", False)
            words = f"Maximum request body size {self._limit_bytes} exceeded."
            await Response(words, 413, media_type="text/plain")(scope, receive, send)
