"""What there is: node classes, models, folders, the machine."""

import os
import platform
import stat
import sys
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from comfy_mcp.embedded.answers import empty_answer, json_answer, trouble
from comfy_mcp.embedded.folders import FOLDERS, MODEL_EXTENSIONS, Folders, is_inside
from comfy_mcp.embedded.nodes.catalogue import NODES
from comfy_mcp.embedded.routes.sockets import FEATURES
from lora_files.header import BadSafetensors, read_header

PROTOCOL_VERSION = "0.30.0"
"""The release of ComfyUI whose protocol is spoken here."""

MAX_METADATA_BYTES = 1024 * 1024


def listing_routes(folders: Folders) -> list[Route]:
    """Return the routes, without the `/api` under which each is found too; they read the disk, in threads."""

    def node_classes(request: Request) -> Response:
        return json_answer({name: definition.describe(folders) for name, definition in NODES.items()})

    def node_class(request: Request) -> Response:
        name = request.path_params["node_class"]
        return json_answer({name: NODES[name].describe(folders)} if name in NODES else {})

    def kinds(request: Request) -> Response:
        return json_answer(list(FOLDERS))

    def models(request: Request) -> Response:
        kind = request.path_params["folder"]
        return json_answer(folders.model_names(kind)) if kind in FOLDERS else empty_answer(404)

    def kinds_with_folders(request: Request) -> Response:
        return json_answer(
            [
                {"name": kind, "folders": _paths(folders, kind), "extensions": sorted(MODEL_EXTENSIONS)}
                for kind in FOLDERS
                if kind != "configs"
            ]
        )

    def models_with_sizes(request: Request) -> Response:
        kind = request.path_params["folder"]
        return json_answer(_sized(folders, kind)) if kind in FOLDERS else empty_answer(404)

    def metadata(request: Request) -> Response:
        return _metadata(folders, request.path_params["folder"], request.query_params.get("filename"))

    def system(request: Request) -> Response:
        return json_answer(_system(folders))

    def features(request: Request) -> Response:
        return json_answer(FEATURES)

    def embeddings(request: Request) -> Response:
        return json_answer([str(Path(name).with_suffix("")) for name in folders.model_names("embeddings")])

    return [
        Route("/object_info", node_classes),
        Route("/object_info/{node_class}", node_class),
        Route("/models", kinds),
        Route("/models/{folder}", models),
        Route("/experiment/models", kinds_with_folders),
        Route("/experiment/models/{folder}", models_with_sizes),
        Route("/view_metadata/{folder}", metadata),
        Route("/embeddings", embeddings),
        Route("/system_stats", system),
        Route("/features", features),
    ]


def internal_routes(folders: Folders) -> list[Route]:
    """Return the routes that ComfyUI keeps for itself, and has under no other address."""

    def folder_paths(request: Request) -> Response:
        return json_answer({kind: _paths(folders, kind) for kind in FOLDERS})

    def files(request: Request) -> Response:
        folder_type = request.path_params["folder_type"]
        folder = folders.of_type(folder_type)
        if folder is None:
            return json_answer({"error": "Invalid directory type"}, 400)
        found = sorted((path for path in folder.iterdir() if path.is_file()), key=_modified, reverse=True)
        return json_answer([f"{path.name} [{folder_type}]" for path in found if not path.name.startswith(".")])

    return [Route("/internal/folder_paths", folder_paths), Route("/internal/files/{folder_type}", files)]


def asset_routes() -> list[Route]:
    """Return the route of assets, which exists under `/api` alone, and is off as without --enable-assets."""

    def disabled(request: Request) -> Response:
        message = "Assets system is disabled. Start the server with --enable-assets to use this feature."
        return json_answer({"error": {"code": "SERVICE_DISABLED", "message": message, "details": {}}}, 503)

    return [Route("/api/assets", disabled, methods=["GET", "POST"])]


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _paths(folders: Folders, kind: str) -> list[str]:
    return [str(folder) for folder in folders.model_folders(kind)]


def _sized(folders: Folders, kind: str) -> list[dict[str, Any]]:
    sized: list[dict[str, Any]] = []
    for file in folders.model_files(kind):
        try:
            state = file.path.stat()
        except OSError:
            # A broken link, or a file that has just been deleted; ComfyUI leaves both out of this list.
            continue
        hidden = any(part.startswith(".") for part in file.name.split("/"))
        if stat.S_ISREG(state.st_mode) and not hidden:
            sized.append(
                {
                    "name": file.name,
                    "pathIndex": file.path_index,
                    "modified": state.st_mtime,
                    "created": state.st_ctime,
                    "size": state.st_size,
                }
            )
    return sized


def _metadata(folders: Folders, kind: str, name: str | None) -> Response:
    if kind not in FOLDERS or name is None or not name.endswith(".safetensors"):
        return empty_answer(404)
    for folder in folders.model_folders(kind):
        path = folder / name
        if is_inside(path, folder) and path.is_file():
            try:
                header = read_header(path)
            except BadSafetensors:
                # ComfyUI's own reader trips over such a file too.
                return trouble()
            if not header.metadata or header.header_bytes > MAX_METADATA_BYTES:
                return empty_answer(404)
            return json_answer(dict(header.metadata))
    return empty_answer(404)


def _system(folders: Folders) -> dict[str, Any]:
    total_bytes, free_bytes = _memory_bytes()
    return {
        "system": {
            "os": sys.platform,
            "ram_total": total_bytes,
            "ram_free": free_bytes,
            "comfyui_version": PROTOCOL_VERSION,
            "embedded": True,
            "engine": "embedded",
            "note": "Not ComfyUI: a server that speaks its protocol and renders 32 x 32 pixels with tinyflux.",
            "python_version": sys.version,
            "pytorch_version": None,
            "embedded_python": False,
            "argv": ["comfy_mcp.embedded", "--base-directory", str(folders.root)],
        },
        "devices": [
            {
                "name": platform.processor() or platform.machine(),
                "type": "cpu",
                "index": None,
                "vram_total": total_bytes,
                "vram_free": free_bytes,
                "torch_vram_total": total_bytes,
                "torch_vram_free": free_bytes,
            }
        ],
    }


def _memory_bytes() -> tuple[int, int]:
    """Return the machine's memory and what of it is free; zeros where the system does not say."""
    names = {"SC_PAGE_SIZE", "SC_PHYS_PAGES", "SC_AVPHYS_PAGES"}
    if not names <= set(getattr(os, "sysconf_names", ())):
        return 0, 0
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return page_bytes * os.sysconf("SC_PHYS_PAGES"), page_bytes * os.sysconf("SC_AVPHYS_PAGES")
