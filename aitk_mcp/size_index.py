"""The `.aitk_size.json` of a dataset: AI Toolkit's cache of image sizes, byte for byte as it writes it itself.

One line of JSON, `__version__` first, then `"/path/from/the/dataset.png": [width, height, "bytes:mtime"]` in the order
of os.walk. AI Toolkit trusts an entry whose signature matches the file, reads any other anew, and drops an image whose
entry has another form: so only complete entries are ever written, and a file that cannot be read gets none.
Source: toolkit/data_loader.py and toolkit/data_transfer_object/data_loader.py of AI Toolkit 0.12.26. Everything here
blocks.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from aitk_mcp.images import ImageSize, is_image, read_size
from mcp_toolserver.files import write_now

FILE_NAME = ".aitk_size.json"
VERSION = "0.1.2"


def image_files(folder: Path) -> Iterator[Path]:
    """Yield the images of a dataset as AI Toolkit finds them: all levels, nothing hidden, no control images."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if Path(parent).name != "_controls":
            yield from (Path(parent, name) for name in files if is_image(name))


def signature_of(path: Path) -> str:
    """Return what tells AI Toolkit that a file is unchanged: size in bytes and whole seconds of its mtime."""
    found = path.stat()
    # int() of the float, as there: dividing the nanoseconds can differ by one at the end of a second.
    return f"{found.st_size}:{int(found.st_mtime)}"


def key_of(path: Path, folder: Path) -> str:
    """Return the key of an image: its path with every occurrence of the dataset's path taken out, as there."""
    return str(path).replace(str(folder), "")


def read_index(folder: Path) -> dict[str, tuple[ImageSize, str]]:
    """Return the entries of a dataset's index that AI Toolkit would use, by key; a broken file has none."""
    try:
        loaded: Any = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(loaded, dict):
        return {}
    entries = cast(dict[str, Any], loaded)
    if entries.get("__version__") != VERSION:
        return {}
    return {key: entry for key, value in entries.items() if (entry := _entry(value)) is not None}


def sizes_of(folder: Path) -> dict[Path, ImageSize | None]:
    """Return the upright size of each image, None where it cannot be read; from the index where that is fresh."""
    known = read_index(folder)
    sizes: dict[Path, ImageSize | None] = {}
    for path in image_files(folder):
        size, signature = known.get(key_of(path, folder), (None, None))
        sizes[path] = size if signature == signature_of(path) else read_size(path)
    return sizes


def render_index(folder: Path, sizes: Mapping[Path, ImageSize | None]) -> bytes:
    """Return the bytes of the index for these images, in their order."""
    entries: dict[str, Any] = {"__version__": VERSION}
    for path, size in sizes.items():
        if size is not None:
            entries[key_of(path, folder)] = [size.width, size.height, signature_of(path)]
    return json.dumps(entries).encode("ascii")


def write_index(folder: Path) -> Path:
    """Write the index of a dataset anew and return where it lies."""
    target = folder / FILE_NAME
    write_now(target, render_index(folder, sizes_of(folder)))
    return target


def _entry(value: Any) -> tuple[ImageSize, str] | None:
    if not isinstance(value, list):
        return None
    items = cast(list[Any], value)
    if len(items) < 3 or not all(type(side) is int and side > 0 for side in items[:2]) or type(items[2]) is not str:
        return None
    return ImageSize(items[0], items[1]), items[2]
