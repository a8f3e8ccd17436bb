"""An upload store on a real disk, and a place to publish to."""

import base64
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mcp_toolserver.files import publish
from mcp_toolserver.uploads.folder import Manifest
from mcp_toolserver.uploads.store import UploadStore
from mcp_toolserver.uploads.uploads import Uploads

UPLOAD_ID = "11111111-2222-4333-8444-555555555555"


@dataclass
class Place:
    """A folder with a store inside; `reopened` is what a server finds that was started anew."""

    folder: Path
    published: list[str] = field(default_factory=list[str])
    uploads: Uploads = field(init=False)

    def __post_init__(self) -> None:
        self.reopen()

    def reopen(self) -> None:
        """Forget everything that is only in memory."""
        self.uploads = Uploads(self.store)

    @property
    def store(self) -> UploadStore:
        """Return the store."""
        return UploadStore(self.folder / ".uploads")

    @property
    def part(self) -> Path:
        """Return where the bytes of the one upload lie."""
        return self.folder / ".uploads" / UPLOAD_ID / "data.part"

    async def publish(self, manifest: Manifest, part: Path, sha256: str) -> None:
        """Give a file its name."""
        await publish(part, self.folder / manifest.filename, overwrite=manifest.overwrite)
        self.published.append(sha256)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return an empty place."""
    return Place(tmp_path)


def encoded(data: bytes) -> str:
    """Return bytes as they travel in JSON."""
    return base64.b64encode(data).decode()
