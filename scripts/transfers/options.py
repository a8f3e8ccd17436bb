"""What a transfer is asked for, and what it did."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mcp_toolserver.errors import ToolError

Method = Literal["link", "pull", "tus", "chunked", "direct"]
Choice = Literal["auto", "link", "pull", "tus", "chunked", "direct"]


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """What to move, from where to where: `name` is that in ComfyUI, `state_dir` keeps what resuming needs.

    `comfyui_dir` and `comfyui_url` are for the method `direct`, which takes no notice of `comfy_url`.
    """

    aitk_url: str = "http://127.0.0.1:8190"
    comfy_url: str = "http://127.0.0.1:8189"
    aitk_token: str | None = None
    comfy_token: str | None = None
    comfyui_dir: Path | None = None
    comfyui_url: str | None = None
    model: str | None = None
    name: str | None = None
    method: Choice = "auto"
    chunk_bytes: int = 256 * 1024
    retries: int = 5
    first_wait_s: float = 0.5
    overwrite: bool = False
    verify: bool = True
    dry_run: bool = False
    state_dir: Path


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """What was done.

    `method` is `none` when nothing had to be sent, and `how` what ComfyUI's side did of it: reflink, link (a hard
    link), copy or pull. `checksum_verified` is true when digests agreed. `listed` is None where nobody looked.
    `seconds` are those of all, and `mb_per_s` (1 MB is 10^6 bytes) is None where no byte was moved.
    """

    method: Method | Literal["none"]
    how: str | None
    model_path: str
    name: str
    size_bytes: int
    sha256: str
    checksum_verified: bool
    listed: bool | None
    already_there: bool
    resumed_at_bytes: int
    dry_run: bool
    seconds: float
    mb_per_s: float | None
    warnings: list[str]


class WrongBytes(Exception):
    """The bytes that arrived are not those that were sent."""


class NoWay(Exception):
    """One way cannot be gone here; `cause` says why.

    `whole_peer`: comfy_mcp has no way at all to that aitk_mcp.
    """

    def __init__(self, way: Method, cause: ToolError, *, whole_peer: bool = False) -> None:
        super().__init__(f"`{way}` cannot be used here. {cause.as_text()}")
        self.way = way
        self.cause = cause
        self.whole_peer = whole_peer
