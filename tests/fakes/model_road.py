"""An app before aitk_mcp's that watches how models are fetched, and breaks it off or holds it where a test says so."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PIECE_BYTES = 64 * 1024


@dataclass(slots=True)
class ModelRoad:
    """Pass requests on; those for models note the range that they ask for in `asked` (None for the whole).

    The next answers, as many as there are numbers in `cuts`, end after that many bytes. `at_piece` is called with how
    many bytes of an answer were sent before each further piece. `damage` is done to each piece.
    """

    app: ASGIApp
    cuts: list[int] = field(default_factory=list[int])
    at_piece: Callable[[int], Awaitable[None]] | None = None
    damage: Callable[[bytes], bytes] = bytes
    status: int | None = None
    asked: list[str | None] = field(default_factory=list[str | None])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/models/"):
            await self.app(scope, receive, send)
            return
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        self.asked.append(headers.get("range"))
        if self.status is not None:
            await send({"type": "http.response.start", "status": self.status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        end = self.cuts.pop(0) if self.cuts else None
        sent = 0

        async def passing(message: Message) -> None:
            nonlocal sent
            if message["type"] != "http.response.body":
                await send(message)
                return
            body = message.get("body", b"")
            for start in range(0, len(body), PIECE_BYTES):
                piece = body[start : start + PIECE_BYTES]
                if self.at_piece is not None:
                    await self.at_piece(sent)
                if end is not None and sent + len(piece) > end:
                    await send({"type": "http.response.body", "body": piece[: end - sent], "more_body": True})
                    raise ConnectionAbortedError
                await send({"type": "http.response.body", "body": self.damage(piece), "more_body": True})
                sent += len(piece)
            if not message.get("more_body", False):
                await send({"type": "http.response.body", "body": b""})

        # The app must not take a shorter way past this one.
        extensions = {key: value for key, value in scope.get("extensions", {}).items() if "send" not in key}
        await self.app({**scope, "extensions": extensions}, receive, passing)
