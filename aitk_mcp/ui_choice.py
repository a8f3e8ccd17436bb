"""Find AI Toolkit's server, and whether its disk is this machine's."""

from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Literal

from anyio import to_thread

from aitk_mcp.trainers.ui_datasets import UiDatasets
from aitk_mcp.trainers.ui_disk import UiDisk
from aitk_mcp.trainers.ui_http import UiHttp
from mcp_toolserver.app import BackendState
from mcp_toolserver.errors import BackendRejected, BackendUnavailable, ToolError
from mcp_toolserver.files import make_folder

_PROBE_TIMEOUT_S = 2.0
_PROBE_BYTES = 64


@dataclass(frozen=True, slots=True)
class UiPlace:
    """Where a server keeps datasets and outputs, on its own machine, and whether that is the disk of this one."""

    datasets: Path
    outputs: Path
    is_here: bool


async def find_place(http: UiHttp, disk: Literal["auto", "shared", "remote"]) -> UiPlace:
    """Return the folders of a server; `disk` is what is known of them.

    Raises BackendUnavailable where it is away, or where its folders should be here and are not.
    """
    told = await http.folders(timeout_s=_PROBE_TIMEOUT_S)
    # AI Toolkit makes its folder of datasets when somebody asks what is in it.
    await UiDatasets(http).names()
    if not told.datasets.startswith("/") or not told.training.startswith("/"):
        raise BackendRejected(
            f"AI Toolkit at {http.url} keeps its datasets in {told.datasets}, which is no path of Linux or macOS.",
            hint="Run this server where paths are like those of AI Toolkit's machine.",
            details={"url": http.url, "folder": told.datasets},
        )
    datasets, outputs = Path(told.datasets), Path(told.training)
    if disk == "auto":
        is_here = await _is_read_there(http, datasets) and await _is_read_there(http, outputs, make=True)
        return UiPlace(datasets, outputs, is_here)
    if disk == "shared" and not await to_thread.run_sync(datasets.is_dir):
        raise BackendUnavailable(
            f"AI Toolkit at {http.url} keeps its datasets in {datasets}, and this machine has no such folder.",
            hint="Mount its folders here under the same paths, or set AITK_MCP_UI_DISK to `remote`.",
            details={"url": http.url, "folder": str(datasets)},
        )
    return UiPlace(datasets, outputs, is_here=disk == "shared")


async def _is_read_there(http: UiHttp, folder: Path, *, make: bool = False) -> bool:
    """Tell whether the server reads in a folder what is written to it here.

    That both have a folder of that path proves nothing: many machines and containers do.
    """
    written = token_hex(_PROBE_BYTES // 2).encode()
    probe = folder / f".loraloop-{token_hex(8)}"
    is_new = make and not await to_thread.run_sync(folder.is_dir)
    try:
        if is_new:
            await to_thread.run_sync(make_folder, folder)
        await to_thread.run_sync(probe.write_bytes, written)
    except OSError:
        return False
    try:
        is_same = await UiDisk(http).read(str(probe), most_bytes=_PROBE_BYTES) == written
    except (FileNotFoundError, BackendRejected):
        is_same = False
    finally:
        await to_thread.run_sync(lambda: probe.unlink(missing_ok=True))
    if is_new and not is_same:
        await to_thread.run_sync(folder.rmdir)
    return is_same


async def ui_state(http: UiHttp) -> BackendState:
    """Tell how a server is."""
    try:
        await http.get("/api/auth", timeout_s=_PROBE_TIMEOUT_S)
    except ToolError as error:
        return BackendState(state="unavailable", engine="ui", url=http.url, detail=error.as_text())
    return BackendState(state="ok", engine="ui", url=http.url)
