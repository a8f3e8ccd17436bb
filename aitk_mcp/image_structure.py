"""Follow an image file by its own structure, to see that nothing is missing: nothing is decoded."""

import re
from zlib import crc32

# In a JPEG's pixels 0xff is followed by 0, or by the number of a restart; anything else ends them.
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_START_OF_SCAN, _END = b"\xda", b"\xd9"
_WITHOUT_LENGTH = (b"\x01", b"\xd8")
_PNG_START_BYTES, _PNG_FRAME_BYTES = 8, 12
_PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


def is_whole_jpeg(data: bytes) -> bool:
    """Tell whether a JPEG has pixels and goes on to its end marker; what may stand behind that does not matter."""
    at, has_pixels = 2, False
    while found := _JPEG_MARKER.search(data, at):
        at, marker = found.end(), found[1]
        if marker == _END:
            return has_pixels
        if marker not in _WITHOUT_LENGTH:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
        has_pixels = has_pixels or marker == _START_OF_SCAN
    return False


def is_whole_png(data: bytes) -> bool:
    """Tell whether every chunk of a PNG matches its checksum up to the last, and its metadata precede its pixels.

    Metadata behind the pixels, which are rare, may turn the image: Pillow finds them only by decoding it.
    """
    view, at, has_pixels = memoryview(data), _PNG_START_BYTES, False
    while at + _PNG_FRAME_BYTES <= len(data):
        kind = data[at + 4 : at + 8]
        end = at + _PNG_FRAME_BYTES + int.from_bytes(view[at : at + 4], "big")
        if crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big") or end > len(data):
            return False
        if kind == b"IEND":
            return has_pixels
        if has_pixels and kind in _PNG_METADATA:
            return False
        has_pixels = has_pixels or kind == b"IDAT"
        at = end
    return False
