"""Images as AI Toolkit takes them: which files count, whether one really decodes, and its size once turned upright."""

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

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
    """Return the size of an opened image after its EXIF orientation, without decoding it."""
    turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED_SIDEWAYS
    return ImageSize(*(image.size[::-1] if turned else image.size))


def read_size(path: Path) -> ImageSize | None:
    """Return the upright size of an image file, or None where Pillow cannot read it; blocks."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return upright_size(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def check_image(data: bytes) -> ImageSize:
    """Decode an image completely and return its upright size; raises BadImage. Blocks."""
    image, size = open_image(data, enough=1)
    image.close()
    return size


def open_image(data: bytes, *, enough: int) -> tuple[Image.Image, ImageSize]:
    """Decode an image completely and return it with its own upright size; raises BadImage. Blocks.

    `enough` is the side in pixels that the caller wants at least: every byte of a JPEG is decoded all the same, but it
    may come out scaled down to a half, a quarter or an eighth, which takes much less time.

    A header alone does not prove an image: one that was cut off opens, and then stops the training hours later.
    """
    if not data:
        raise BadImage("it is empty")
    try:
        with warnings.catch_warnings():
            # The bound below takes the place of Pillow's own warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data))
            if image.format not in _FORMATS:
                raise BadImage(f"it is a {image.format} image; AI Toolkit trains on JPEG, PNG and WebP")
            size = upright_size(image)
            if size.width * size.height > MAX_PIXELS:
                raise BadImage(f"{size.width} x {size.height} pixels are more than {MAX_PIXELS // 10**6} million")
            image.draft(None, (enough, enough))
            image.load()
    except Image.UnidentifiedImageError:
        raise BadImage(_what_it_is(data)) from None
    except Image.DecompressionBombError:
        raise BadImage(f"it has more than {MAX_PIXELS // 10**6} million pixels") from None
    except BadImage:
        raise
    # Pillow's decoders raise these three for damaged files.
    except (OSError, ValueError, SyntaxError) as error:
        raise BadImage(f"it does not decode: {error}") from None
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
