"""Read how large a picture is from the first bytes of its file."""

from http import HTTPStatus
from io import BytesIO

import httpx
from anyio import to_thread

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_history import OutputFile
from comfy_mcp.engines.comfyui_http import unavailable

# PNG says its size in the first bytes; a JPEG may carry a thumbnail and a colour profile before it.
_PNG_HEAD_BYTES = 24
_HEAD_BYTES = 128 * 1024
_PNG = b"\x89PNG\r\n\x1a\n"


async def size_of(comfyui: ComfyUI, file: OutputFile) -> tuple[int, int] | None:
    """Return width and height in pixels of a picture that ComfyUI holds, or None when it is no picture.

    Raises BackendUnavailable when the server does not answer, or its answer breaks off.
    """
    wanted_bytes = _PNG_HEAD_BYTES if file.filename.lower().endswith(".png") else _HEAD_BYTES
    response = await comfyui.open_file(file, {"range": f"bytes=0-{wanted_bytes - 1}"})
    try:
        head = b""
        if response.is_success:
            async for piece in response.aiter_raw():
                head += piece
                # An answer that is read to its end leaves the connection open, and the next one would cost more
                # than all of this; only a server without ranges has a whole file to send.
                if response.status_code != HTTPStatus.PARTIAL_CONTENT and len(head) >= wanted_bytes:
                    break
    except httpx.HTTPError as error:
        raise unavailable(response.url, error) from error
    finally:
        await response.aclose()
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
