"""A server with the LoRA and upload tools, and the tus door, over one loras folder; no engine is needed for that."""

from collections.abc import Callable
from pathlib import Path

from starlette.types import ASGIApp

from comfy_mcp.loras.routes import lora_routes
from comfy_mcp.loras.uploads import LoraUploads
from comfy_mcp.tools.uploads import upload_tools
from mcp_toolserver.app import BackendState, ServerIdentity, ToolServer, create_server_app, door_policy
from mcp_toolserver.settings import ServerSettings
from mcp_toolserver.tools import Toolbox
from mcp_toolserver.uploads.tus import tus_routes
from tests.servers.loras import library_over, toolbox


async def no_backend() -> BackendState:
    """Have no engine."""
    return BackendState(state="ok", engine="none")


def lora_server(folder: Path, cache_file: Path, **given: object) -> ASGIApp:
    """Return an app over a loras folder; every app over one folder shares its uploads. `given` are settings."""
    library = library_over([folder], cache_file)
    uploads = LoraUploads(library)
    server = ToolServer(
        identity=ServerIdentity(name="comfy_mcp", title="Test", version="0", instructions=""),
        toolbox=Toolbox([*toolbox(library).tools, *upload_tools(uploads)]),
        backend=no_backend,
        routes=[*lora_routes(library), *tus_routes(uploads)],
    )
    return create_server_app(server, door_policy(ServerSettings.model_validate(given)))


Serve = Callable[[ASGIApp], str]
