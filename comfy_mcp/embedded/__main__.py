"""Run the embedded ComfyUI: `python -m comfy_mcp.embedded --port N --data-dir DIR [--exit-with-stdin]`.

When it is ready it prints one line of JSON, `{"url": "http://127.0.0.1:PORT"}`; everything else goes to stderr.
"""

import argparse
import logging
import os
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

# Read by OpenBLAS when numpy is first imported. On matrices this small, a second thread costs more than it gives.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import uvicorn

from comfy_mcp.embedded.answers import dump_json
from comfy_mcp.embedded.app import create_app

HOST = "127.0.0.1"


class _Server(uvicorn.Server):
    """Says on stdout where it listens, as soon as it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            print(dump_json({"url": f"http://{HOST}:{port}"}).decode(), flush=True)


def main() -> None:
    """Serve until interrupted, or until stdin closes if asked to."""
    parser = argparse.ArgumentParser(prog="comfy_mcp.embedded", description="Speak ComfyUI's protocol; render tiny.")
    parser.add_argument("--port", type=int, default=8188, help="TCP port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--data-dir", type=Path, required=True, help="holds models/, input/, output/ and temp/")
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when stdin is closed")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="embedded engine: %(message)s")
    config = uvicorn.Config(
        create_app(arguments.data_dir),
        host=HOST,
        port=arguments.port,
        # httptools keeps white space at the end of header values.
        http="h11",
        ws="websockets-sansio",
        ws_max_size=1024 * 1024,
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    if arguments.exit_with_stdin:
        threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
    with suppress(KeyboardInterrupt):
        server.run()
    sys.exit(0 if server.started else 1)


def _end_with_stdin(server: uvicorn.Server) -> None:
    """Wait for the end of stdin, which comes with the end of the parent however that ends."""
    # Not through sys.stdin: a thread that holds its lock makes the interpreter abort on its way out.
    while os.read(0, 4096):
        pass
    server.should_exit = True


if __name__ == "__main__":
    main()
