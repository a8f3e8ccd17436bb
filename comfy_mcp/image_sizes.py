"""Read how large a picture is from the first bytes of its file."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from comfy_mcp.engines.comfyui_history import OutputFile
from comfy_mcp.engines.port import Engine

if TYPE_CHECKING:
    from PIL.Image import Image

# PNG says its size in the first bytes; a JPEG may carry a thumbnail and a colour profile before it.
_PNG_HEAD_BYTES = 24
_HEAD_BYTES = 128 * 1024
_ORIENTATION = 0x0112
_TURNED_SIDEWAYS = (5, 6, 7, 8)
_PNG = b"\x89PNG\r\n\x1a\n"


async def size_of(engine: Engine, file: OutputFile) -> tuple[int, int] | None:
    """Return width and height in pixels of a picture that an engine holds, or None when it is no picture.

    Raises BackendUnavailable when the engine does not answer, or its answer breaks off.
    """
    is_png = file.filename.lower().endswith(".png")
    head = await engine.head(file, _PNG_HEAD_BYTES if is_png else _HEAD_BYTES)
    return size_from(head) if head.startswith(_PNG) else await to_thread.run_sync(size_from, head)


def size_from(head: bytes) -> tuple[int, int] | None:
    """Return width and height from the beginning of an image file, or None when it is none; PNG without Pillow."""
    if head.startswith(_PNG) and len(head) >= _PNG_HEAD_BYTES:
        return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(head)) as image:
            return image.size
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None


async def input_size(engine: Engine, name: str) -> tuple[int, int] | None:
    """Return width and height in pixels of a picture as LoadImage, which takes `name`, gives it; None where it is none.

    Raises BackendUnavailable when the engine does not answer, or its answer breaks off.
    """
    folder, _, filename = name.rpartition("/")
    head = await engine.head(OutputFile("", filename, folder, "input", animated=False), _HEAD_BYTES)
    return await to_thread.run_sync(_upright_size_from, head)


def size_of_file(path: Path) -> tuple[int, int] | None:
    """Return width and height in pixels of a picture file after the turn of its EXIF, or None for no picture; blocks.

    Raises OSError where it cannot be opened.
    """
    with path.open("rb") as file:
        return _upright_size_from(file.read(_HEAD_BYTES))


def upright_size(image: "Image") -> tuple[int, int]:
    """Return width and height in pixels after the turn that EXIF asks for, as every renderer here makes it."""
    from PIL.Image import Image

    # Pillow has turned a TIFF already. `getexif` of PNG would read all pixels, in search of a chunk behind them.
    sideways = image.format != "TIFF" and Image.getexif(image).get(_ORIENTATION) in _TURNED_SIDEWAYS
    return (image.height, image.width) if sideways else image.size


def _upright_size_from(head: bytes) -> tuple[int, int] | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(head)) as image:
            return upright_size(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
