"""What a picture carries beside its pixels: the graph that made it, and a small copy to look at."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from comfy_mcp.workflows.graphs import Graph, is_object
from mcp_toolserver.errors import InvalidArguments, NotFound, TooLarge

LONGEST_SIDE = 512
MOST_GRAPH_CHARACTERS = 1_000_000
_JPEG_QUALITY = 80
_PNG = b"\x89PNG\r\n\x1a\n"
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True, slots=True)
class CarriedGraphs:
    """The graphs in a picture: `graph` can be run, `page` is as ComfyUI's page saves it; None where there is none."""

    graph: Graph | None
    page: Mapping[str, Any] | None


def graphs_in(content: bytes) -> CarriedGraphs:
    """Return the graphs that ComfyUI wrote into the text chunks of a PNG; blocks.

    Raises InvalidArguments for what is no PNG, NotFound, with the chunks that there are, for one without a graph, and
    TooLarge for graphs that no answer should hold.
    """
    texts = _texts(content)
    characters = sum(len(texts.get(name, "")) for name in ("prompt", "workflow"))
    if characters > MOST_GRAPH_CHARACTERS:
        raise TooLarge(
            f"The picture carries graphs of {characters} characters, and {MOST_GRAPH_CHARACTERS} are given at most.",
            hint="Open the picture in ComfyUI's page.",
            details={"characters": characters, "limit": MOST_GRAPH_CHARACTERS},
        )
    carried = CarriedGraphs(_graph(texts.get("prompt")), _object(texts.get("workflow")))
    if carried.graph is None and carried.page is None:
        found = ", ".join(f"`{name[:40]}`" for name in list(texts)[:8])
        raise NotFound(
            "The picture carries no graph of ComfyUI" + (f", only {found}." if found else ": it has no text chunks."),
            hint="Sites and editors strip them: use the file as ComfyUI saved it. ComfyUI writes none when it was "
            "started with --disable-metadata.",
            details={"text_chunks": list(texts)[:50]},
        )
    return carried


def small_copy(content: bytes) -> bytes | None:
    """Return a picture as a JPEG of at most 512 x 512 pixels, or None for what is no picture; blocks."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content), formats=_FORMATS) as image:
            image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            encoded = BytesIO()
            small.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return None
    return encoded.getvalue()


def _texts(content: bytes) -> dict[str, str]:
    from PIL import Image, PngImagePlugin, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            assert isinstance(image, PngImagePlugin.PngImageFile)
            # Those behind the pixels are read with them.
            return {str(name): str(text) for name, text in image.text.items()}
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        if not isinstance(error, UnidentifiedImageError):
            said = f"It is no PNG that can be read: {(str(error).splitlines() or [type(error).__name__])[0]}."
        elif content.startswith(_PNG):
            said = "It is no PNG that can be read: it breaks off, or is damaged."
        else:
            said = f"It is no PNG but {_kind_of(content)}, and the graph is read from PNGs alone."
        raise InvalidArguments(
            said,
            hint="Send the PNG as ComfyUI saved it; other formats keep no graph in text chunks.",
            details={"field": "content", "size_bytes": len(content)},
        ) from None


def _kind_of(content: bytes) -> str:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content), formats=_FORMATS) as image:
            return f"a picture in the format {image.format}"
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return "a file of no picture format known here"


def _object(text: str | None) -> Mapping[str, Any] | None:
    try:
        # ComfyUI writes NaN, which is no JSON, for nodes that never count as the same.
        value: Any = json.loads(text or "null", parse_constant=lambda word: None)
    except (ValueError, RecursionError):
        return None
    return value if is_object(value) and value else None


def _graph(text: str | None) -> Graph | None:
    value = _object(text)
    return dict(value) if value is not None and all(is_object(node) for node in value.values()) else None
