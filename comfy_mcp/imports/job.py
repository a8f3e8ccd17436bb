"""One import: what is wanted, how far it is, and its bytes on their way."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

import anyio

from comfy_mcp.imports.peer import PeerModel, SourceChanged
from comfy_mcp.loras.info import LoraInfo
from mcp_toolserver.errors import BackendRejected, BackendUnavailable, ToolError

Method = Literal["reflink", "link", "copy", "pull"]
Choice = Literal["auto", "link", "copy", "pull"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which model is to come, by which way, and under which name; that of the model where it is None.

    With `sha256` (hex) only that state of the model will do.
    """

    model_path: str
    filename: str | None = None
    sha256: str | None = None
    overwrite: bool = False
    way: Choice = "auto"


@dataclass(slots=True)
class Import:
    """One import: how far it is, and how it ended; `upload_id` is the upload that its bytes go through.

    `is_compared`: the bytes were read on this side, and have the digest that was given.
    """

    wanted: Wanted
    caller: str | None
    filename: str | None = None
    model: PeerModel | None = None
    method: Method | None = None
    upload_id: str | None = None
    received_bytes: int = 0
    lora: LoraInfo | None = None
    already_there: bool = False
    is_compared: bool = False
    seconds: float | None = None
    error: ToolError | None = None
    changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def is_over(self) -> bool:
        """Tell whether it ended, well or not."""
        return self.lora is not None or self.error is not None

    def note(self) -> None:
        """Wake those who wait for news."""
        self.changed.set()
        self.changed = anyio.Event()


class ImportedBody:
    """A model's bytes on their way into an upload: what is received is counted, and what breaks it off is kept."""

    def __init__(self, source: AsyncGenerator[bytes], job: Import) -> None:
        self._source = source
        self._job = job
        self.failure: BackendUnavailable | BackendRejected | SourceChanged | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the bytes, and end early where they break off: what came until then is kept."""
        try:
            async with aclosing(self._source):
                async for piece in self._source:
                    yield piece
                    self._job.received_bytes += len(piece)
                    self._job.note()
        except (BackendUnavailable, BackendRejected, SourceChanged) as error:
            self.failure = error
