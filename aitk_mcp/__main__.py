"""Run aitk_mcp: `python -m aitk_mcp [--transport http|stdio] [--host H] [--port N] [--data-dir DIR] [--trainer T]`."""

import argparse
from typing import Any

from mcp_toolserver.settings import configure_logging, problems_of


def main() -> None:
    """Serve until interrupted; options come before environment variables."""
    parser = argparse.ArgumentParser(prog="aitk_mcp", description="Serve AI Toolkit as MCP tools.")
    parser.add_argument("--transport", choices=("http", "stdio"), default="http", help="how callers reach it")
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (8190); 0 takes a free one")
    parser.add_argument("--data-dir", help="folder for everything that the server keeps")
    parser.add_argument("--trainer", choices=("auto", "ui", "cli", "embedded"), help="what trains (auto)")
    options = parser.parse_args()

    from pydantic import ValidationError

    from aitk_mcp.settings import AitkSettings

    given: dict[str, Any] = {
        name: value for name in ("host", "port", "data_dir", "trainer") if (value := getattr(options, name)) is not None
    }
    try:
        settings = AitkSettings(**given)
    except ValidationError as error:
        parser.error(problems_of(error))
    # Before the SDK is imported: it would set up a log handler of its own.
    configure_logging(settings.log_level)

    from aitk_mcp.app import build
    from mcp_toolserver.app import run_http, run_stdio

    if options.transport == "http":
        run_http(build(settings), settings)
    else:
        import anyio

        anyio.run(run_stdio, build(settings), settings.public_url)


if __name__ == "__main__":
    main()
