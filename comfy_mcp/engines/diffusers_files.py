"""The pictures that the engine `diffusers` keeps on this disk. All of it blocks."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from comfy_mcp.engines.comfyui_history import OutputFile
from comfy_mcp.engines.diffusers_orders import NODE_ID, PictureOrder, parameters_text
from mcp_toolserver.errors import NotFound
from mcp_toolserver.files import make_folder, write_now

if TYPE_CHECKING:
    from PIL.Image import Image


def save_pictures(folder: Path, pictures: Sequence["Image"], order: PictureOrder) -> tuple[OutputFile, ...]:
    """Write pictures as PNG files that carry the order, and return them as files of a job."""
    from PIL.PngImagePlugin import PngInfo

    make_folder(folder)
    told = PngInfo()
    told.add_text("prompt", orjson.dumps(order.as_graph()).decode())
    told.add_text("parameters", parameters_text(order, *pictures[0].size))
    files: list[OutputFile] = []
    for index, picture in enumerate(pictures):
        name = f"{order.filename_prefix}_{index + 1:05}_.png"
        buffer = BytesIO()
        picture.save(buffer, "PNG", pnginfo=told)
        write_now(folder / name, buffer.getvalue())
        files.append(OutputFile(NODE_ID, name, "", "output", animated=False))
    return tuple(files)


def head_of(path: Path, size_bytes: int) -> bytes:
    """Return the first bytes of a file; empty where it is gone."""
    try:
        with path.open("rb") as file:
            return file.read(size_bytes)
    except FileNotFoundError:
        return b""


def keep_input(folder: Path, filename: str, content: bytes, *, overwrite: bool) -> str:
    """Store a picture under its name, or under a free one where other bytes have that; returns the name."""
    make_folder(folder)
    name = Path(filename)
    for number in range(10_000):
        path = folder / (f"{name.stem} ({number}){name.suffix}" if number else filename)
        if overwrite or not path.exists():
            write_now(path, content)
            return path.name
        if path.read_bytes() == content:
            return path.name
    raise FileExistsError(folder / filename)


def find_input(folders: Sequence[Path], name: str, field: str) -> Path:
    """Return the first picture of a name in folders; raises NotFound, also for a name that leads out of them."""
    parts = Path(name).parts
    if not Path(name).is_absolute() and ".." not in parts:
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
    raise NotFound(
        f"Argument `{field}` is {name!r}: there is no such picture on this disk.",
        hint="`upload-image` stores one, and returns the name to use; ComfyUI's own pictures are out of reach "
        "while it does not answer, unless COMFYUI_DIR names its folder.",
        details={"field": field, "value": name},
    )
