"""Make a server's disk another machine's: every path that it hears or tells begins as there, and leads nowhere here."""

from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class OtherMachine:
    """Pass requests on to an app, with `there` in paths for what is `here` on this disk."""

    def __init__(self, app: ASGIApp, there: str, here: str) -> None:
        self._app, self._there, self._here = app, there, here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "path": scope["path"].replace(self._there, self._here)}
        kinds = [value for name, value in scope["headers"] if name == b"content-type"]
        if kinds == [b"application/json"]:
            receive = await self._translated(receive)
        await self._app(scope, receive, _Teller(send, self._here, self._there).send)

    async def _translated(self, receive: Receive) -> Receive:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        for there, here in ((self._there, self._here), (quote(self._there), quote(self._here))):
            body = body.replace(there.encode(), here.encode())
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return messages.pop() if messages else await receive()

        return again


class _Teller:
    """Send JSON with the paths of the other machine, and everything else as it is."""

    def __init__(self, send: Send, here: str, there: str) -> None:
        self._send, self._here, self._there = send, here, there
        self._start: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if (b"content-type", b"application/json") not in message["headers"]:
                await self._send(message)
            else:
                self._start = message
            return
        if self._start is None:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        body = self._body.replace(self._here.encode(), self._there.encode())
        headers = [(name, value) for name, value in self._start["headers"] if name != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await self._send({**self._start, "headers": [*headers, length]})
        await self._send({"type": "http.response.body", "body": body})
