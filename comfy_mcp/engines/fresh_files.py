"""Files that ComfyUI has just written, where its folder is on this disk: reading one is faster than asking. Blocks."""

import time
from pathlib import Path

from comfy_mcp.engines.comfyui_history import OutputFile

_FRESH_S = 60.0
_KINDS = ("output", "temp")


def fresh_head(comfyui_dir: Path, file: OutputFile, size_bytes: int) -> bytes:
    """Return the first bytes of a file, or nothing where it is not surely the one that was written just now.

    A server that was told to write elsewhere leaves files of the same names here, from other days.
    """
    path = comfyui_dir / file.kind / file.subfolder / file.filename
    if file.kind not in _KINDS or ".." in path.parts:
        return b""
    try:
        with path.open("rb") as opened:
            if time.time() - path.stat().st_mtime > _FRESH_S:
                return b""
            return opened.read(size_bytes)
    except OSError:
        return b""
