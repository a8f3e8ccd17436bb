"""Find AI Toolkit's server, and the folders that it shares with this one."""

from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from aitk_mcp.trainers.ui_http import UiHttp
from mcp_toolserver.app import BackendState
from mcp_toolserver.errors import BackendUnavailable, ToolError

_PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class SharedFolders:
    """Where datasets and outputs lie, for AI Toolkit as for this server."""

    datasets: Path
    outputs: Path


async def shared_folders(http: UiHttp) -> SharedFolders:
    """Return the folders of a server; raises BackendUnavailable where it is away, or they are not on this machine."""
    found = await http.folders(timeout_s=_PROBE_TIMEOUT_S)
    # AI Toolkit makes its folder of datasets when somebody asks what is in it.
    await http.get("/api/datasets/list", timeout_s=_PROBE_TIMEOUT_S)
    folders = SharedFolders(Path(found.datasets), Path(found.training))
    if not await to_thread.run_sync(folders.datasets.is_dir):
        raise BackendUnavailable(
            f"AI Toolkit at {http.url} keeps its datasets in {folders.datasets}, and this machine has no such folder.",
            hint="Run this server on AI Toolkit's machine, or mount its folders here under the same paths.",
            details={"url": http.url, "folder": str(folders.datasets)},
        )
    return folders


async def ui_state(http: UiHttp) -> BackendState:
    """Tell how a server is."""
    try:
        await http.get("/api/auth", timeout_s=_PROBE_TIMEOUT_S)
    except ToolError as error:
        return BackendState(state="unavailable", engine="ui", url=http.url, detail=error.as_text())
    return BackendState(state="ok", engine="ui", url=http.url)
