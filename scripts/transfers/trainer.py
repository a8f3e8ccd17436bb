"""The models of aitk_mcp: which there are, what is told of one, and its bytes."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pydantic import SecretStr

from comfy_mcp.imports.peer import AitkPeer, PeerModel, model_told
from mcp_toolserver.errors import BackendUnavailable
from mcp_toolserver.uploads.sender import CallTool


class Trainer:
    """One aitk_mcp; `call` runs its tools."""

    def __init__(self, url: str, token: str | None, call: CallTool) -> None:
        self._url = url
        self._call = call
        self._peer = AitkPeer(url.rstrip("/"), SecretStr(token) if token else None)

    async def finished(self) -> list[dict[str, Any]]:
        """Return the finished models as list-exported-models has them, the newest first."""
        return (await self._call("list-exported-models", {"finished": True, "limit": 1000}))["models"]

    async def told(self, model_path: str) -> PeerModel:
        """Return what is told of a model, its digest included; raises NotFound with the closest names."""
        told = await self._call("download-model", {"model_path": model_path, "format": "url"})
        return model_told(told, self._url)

    async def pieces(self, model: PeerModel, offset: int) -> AsyncGenerator[bytes]:
        """Yield a model's bytes from `offset` on.

        Raises SourceChanged where they are others by now, and BackendUnavailable where the connection breaks.
        """
        try:
            async with aclosing(self._peer.bytes_of(model, offset)) as pieces:
                async for piece in pieces:
                    yield piece
        except BackendUnavailable as error:
            # Its own hint is for who configures comfy_mcp.
            raise BackendUnavailable(
                error.message, hint="Start it and run again: what has arrived is kept.", details={"url": self._url}
            ) from error
