"""Read how large a picture is from the first bytes of its file."""

from io import BytesIO

from anyio import to_thread

from comfy_mcp.engines.comfyui_history import OutputFile
from comfy_mcp.engines.port import Engine

# PNG says its size in the first bytes; a JPEG may carry a thumbnail and a colour profile before it.
_PNG_HEAD_BYTES = 24
_HEAD_BYTES = 128 * 1024
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
