"""Run the server: `python -m comfy_mcp [--transport http|stdio] [--port N] [--data-dir DIR] [--backend B] …`."""

import argparse
from typing import Any

from mcp_toolserver.settings import configure_logging, problems_of


def main() -> None:
    """Serve until interrupted; options come before environment variables."""
    parser = argparse.ArgumentParser(prog="comfy_mcp", description="Serve ComfyUI as MCP tools.")
    parser.add_argument("--transport", choices=("http", "stdio"), default="http", help="how callers reach it")
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (8189); 0 takes a free one")
    parser.add_argument("--data-dir", help="folder for everything that the server keeps")
    parser.add_argument("--backend", choices=("auto", "comfyui", "embedded"), help="what renders (auto)")
    parser.add_argument("--comfyui-api-url", help="address of ComfyUI")
    parser.add_argument("--comfyui-dir", help="folder of ComfyUI on this machine")
    parser.add_argument("--aitk-url", help="address of the aitk_mcp that LoRAs are imported from")
    options = parser.parse_args()

    from pydantic import ValidationError

    from comfy_mcp.settings import ComfySettings

    given: dict[str, Any] = {
        name: value for name, value in vars(options).items() if value is not None and name != "transport"
    }
    try:
        settings = ComfySettings(**given)
    except ValidationError as error:
        parser.error(problems_of(error))
    # Before the SDK is imported: it would set up a log handler of its own.
    configure_logging(settings.log_level)

    from comfy_mcp.app import build
    from mcp_toolserver.app import run_http, run_stdio

    if options.transport == "http":
        run_http(build(settings), settings)
    else:
        import anyio

        anyio.run(run_stdio, build(settings), settings.public_url)


if __name__ == "__main__":
    main()
