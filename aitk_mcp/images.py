"""Images as AI Toolkit takes them: which files count, whether one is whole, and its size once turned upright."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from aitk_mcp.image_structure import is_whole_jpeg, is_whole_png

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
_FORMATS = {"JPEG", "MPO", "PNG", "WEBP"}
_TURNED_SIDEWAYS = (5, 6, 7, 8)
MAX_PIXELS = 100_000_000
THUMBNAIL_SIDE = 256
_THUMBNAIL_QUALITY = 80


class BadImage(ValueError):
    """Say in a few words why bytes are no image to train on."""


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Width and height in pixels after the EXIF orientation was applied, as the trainer sees the image."""

    width: int
    height: int


def is_image(name: str) -> bool:
    """Tell whether AI Toolkit takes a file of this name for an image of a dataset."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def upright_size(image: Image.Image) -> ImageSize:
    """Return the size of an opened image after its EXIF orientation."""
    return _turned(image, image.getexif())


def read_size(path: Path) -> ImageSize | None:
    """Return the upright size of an image file, or None where Pillow cannot read it; blocks."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return upright_size(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def size_in(beginning: bytes) -> ImageSize | None:
    """Return the upright size of an image by its first bytes, or None where they do not tell it; blocks."""
    try:
        with warnings.catch_warnings(), Image.open(BytesIO(beginning)) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # PNG's own getexif decodes the image, of which more may be missing.
            return _turned(image, Image.Image.getexif(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def check_image(data: bytes) -> ImageSize:
    """Prove that an image is whole and return its upright size; raises BadImage. Blocks.

    A header alone proves nothing: an image that was cut off opens, and then stops the training hours later. Where the
    structure of the file proves it whole it is not decoded, which takes a hundred times as long for a WebP.
    """
    with _explained(data), _opened(data) as image:
        if _is_whole(image.format, data):
            # PNG's own getexif decodes the image, in search of what its structure shows not to be there.
            return _turned(image, Image.Image.getexif(image))
        size = upright_size(image)
        _decode(image, enough=1)
    return size


def open_image(data: bytes, *, enough: int) -> tuple[Image.Image, ImageSize]:
    """Decode an image completely and return it with its own upright size; raises BadImage. Blocks.

    `enough` is the side in pixels that the caller wants at least: every byte of a JPEG is decoded all the same, but it
    may come out scaled down to a half, a quarter or an eighth, which takes much less time.
    """
    with _explained(data):
        image = _opened(data)
        size = upright_size(image)
        _decode(image, enough=enough)
    return image, size


def thumbnail(data: bytes) -> bytes:
    """Return an image as a JPEG of at most 256 x 256, turned upright; raises BadImage. Blocks."""
    image, _ = open_image(data, enough=2 * THUMBNAIL_SIDE)
    with image:
        small = ImageOps.exif_transpose(image).convert("RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    file = BytesIO()
    small.save(file, "JPEG", quality=_THUMBNAIL_QUALITY)
    return file.getvalue()


def _opened(data: bytes) -> Image.Image:
    if not data:
        raise BadImage("it is empty")
    image = Image.open(BytesIO(data))
    if image.format not in _FORMATS:
        raise BadImage(f"it is a {image.format} image; AI Toolkit trains on JPEG, PNG and WebP")
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS // 10**6} million")
    return image


def _is_whole(form: str | None, data: bytes) -> bool:
    if form == "WEBP":
        # libwebp opens no file that ends before its chunks do.
        return True
    return is_whole_png(data) if form == "PNG" else is_whole_jpeg(data)


def _turned(image: Image.Image, exif: Image.Exif) -> ImageSize:
    sideways = exif.get(ExifTags.Base.Orientation) in _TURNED_SIDEWAYS
    return ImageSize(*(image.size[::-1] if sideways else image.size))


def _decode(image: Image.Image, *, enough: int) -> None:
    image.draft(None, (enough, enough))
    image.load()


@contextmanager
def _explained(data: bytes) -> Generator[None]:
    try:
        with warnings.catch_warnings():
            # MAX_PIXELS takes the place of Pillow's own warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except Image.UnidentifiedImageError:
        raise BadImage(_what_it_is(data)) from None
    except Image.DecompressionBombError:
        raise BadImage(f"it has more than {MAX_PIXELS // 10**6} million pixels") from None
    except BadImage:
        raise
    # Pillow's decoders raise these three for damaged files.
    except (OSError, ValueError, SyntaxError) as error:
        raise BadImage(f"it does not decode: {error}") from None


def _what_it_is(data: bytes) -> str:
    start = data[:256].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "it is a web page, no image"
    if start.startswith(b"<svg") or b"<svg" in start:
        return "it is an SVG drawing; render it to PNG first"
    if data[:2] == b"PK":
        return "it is a zip archive"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "it is a HEIC photo; convert it to JPEG first"
    return "it is no image that can be read"
