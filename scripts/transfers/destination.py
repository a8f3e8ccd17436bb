"""ComfyUI as a transfer sees it: behind comfy_mcp, or, by the method `direct`, without any server of ours."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from pydantic import SecretStr, ValidationError

from mcp_toolserver.client import ToolClient
from mcp_toolserver.errors import BackendUnavailable, InvalidArguments
from mcp_toolserver.tools import Call
from mcp_toolserver.uploads.sender import CallTool
from transfers.options import TransferOptions
from transfers.servers import Server

if TYPE_CHECKING:
    from mcp_toolserver.app import ToolServer


@dataclass(frozen=True, slots=True)
class Destination:
    """Tools of comfy_mcp, whoever runs them; `served` is the server that does, None where this process does.

    `address` tells one destination from another.
    """

    call: CallTool
    address: str
    served: ToolClient | None


@asynccontextmanager
async def destination_of(options: TransferOptions) -> AsyncGenerator[Destination]:
    """Open the destination that the options name."""
    if options.method != "direct":
        async with Server("comfy_mcp", options.comfy_url, options.comfy_token) as client:
            yield Destination(client.call, options.comfy_url, client)
        return
    # To import all that comfy_mcp is made of takes a while, and reads many files.
    server = await to_thread.run_sync(_comfy_mcp_for, options)

    async def call(tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await server.toolbox.call(tool, arguments, Call())
        except BackendUnavailable as error:
            if options.comfyui_dir or options.comfyui_url or "setting" in error.details:
                raise
            raise BackendUnavailable(
                error.message,
                hint="Start ComfyUI, or say where it is: --comfyui-dir DIR (COMFYUI_DIR) names its folder, "
                "--comfyui-url URL (COMFYUI_API_URL) its address.",
                details=error.details,
            ) from error

    failure: Exception | None = None
    async with server.lifespan():
        try:
            yield Destination(call, f"{options.comfyui_dir or options.comfyui_url}", None)
        except Exception as error:
            # The lifespan has tasks of its own, which would make a group of it.
            failure = error
    if failure is not None:
        raise failure


def _comfy_mcp_for(options: TransferOptions) -> "ToolServer":
    from comfy_mcp.app import build
    from comfy_mcp.settings import ComfySettings

    try:
        settings = ComfySettings(
            backend="comfyui",
            comfyui_dir=options.comfyui_dir,
            comfyui_api_url=options.comfyui_url,
            aitk_url=options.aitk_url,
            aitk_token=SecretStr(options.aitk_token) if options.aitk_token else None,
            data_dir=options.state_dir / "comfyui",
        )
    except ValidationError as error:
        problem = error.errors()[0]
        raise InvalidArguments(
            f"{problem['loc'][0]}: {problem['msg'].removeprefix('Value error, ')}.",
            hint="Check --comfyui-url and --comfyui-dir.",
            details={"field": str(problem["loc"][0])},
        ) from None
    return build(settings)
