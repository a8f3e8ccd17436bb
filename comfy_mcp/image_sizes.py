"""Read how large a picture is from the first bytes of its file."""

from io import BytesIO

from anyio import to_thread

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_history import OutputFile

# PNG says its size in the first 24 bytes; a JPEG may carry a thumbnail and a colour profile before it.
_HEAD_BYTES = 128 * 1024
_PNG = b"\x89PNG\r\n\x1a\n"


async def size_of(comfyui: ComfyUI, file: OutputFile) -> tuple[int, int] | None:
    """Return width and height in pixels of a picture that ComfyUI holds, or None when it is no picture."""
    response = await comfyui.open_file(file)
    try:
        head = b""
        if response.is_success:
            async for piece in response.aiter_raw():
                head += piece
                if len(head) >= _HEAD_BYTES or (head.startswith(_PNG) and len(head) >= 24):
                    break
    finally:
        await response.aclose()
    return size_from(head) if head.startswith(_PNG) else await to_thread.run_sync(size_from, head)


def size_from(head: bytes) -> tuple[int, int] | None:
    """Return width and height from the beginning of an image file, or None when it is none; PNG without Pillow."""
    if head.startswith(_PNG) and len(head) >= 24:
        return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(head)) as image:
            return image.size
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None
