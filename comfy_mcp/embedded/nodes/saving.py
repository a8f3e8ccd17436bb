"""Where a saved picture goes, and what is written into it."""

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfy_mcp.embedded.folders import is_inside

_BATCH_NUMBER = "%batch_num%"
_PLACEHOLDER = re.compile(r"%(width|height|year|month|day|hour|minute|second)%")


class SavedSeries:
    """A series of numbered files `prefix_00001_.png`, continued behind the highest number that is there."""

    def __init__(self, folder: Path, prefix: str, width_px: int, height_px: int) -> None:
        """Read where `prefix` leads below the folder; raises ValueError when it leads out of it."""
        wanted = os.path.normpath(_fill_in(prefix, width_px, height_px))
        target = folder / Path(wanted).parent
        if not is_inside(target, folder):
            raise ValueError(f"Saving image outside the output folder is not allowed: {prefix!r} leads to {target}.")
        self.subfolder = Path(wanted).parent.as_posix().removeprefix(".")
        self._target = target
        self._name = Path(wanted).name
        target.mkdir(parents=True, exist_ok=True)
        self._counter = self._highest() + 1

    def save(self, pixels: NDArray[np.uint8], texts: PngInfo, batch_number: int) -> str:
        """Write one picture (H, W, 3), visible only when it is whole, and return its file name."""
        stem = self._name.replace(_BATCH_NUMBER, str(batch_number))
        name = f"{stem}_{self._counter:05}_.png"
        self._counter += 1
        part = self._target / f".{name}.part"
        with part.open("wb") as file:
            Image.fromarray(pixels).save(file, "PNG", pnginfo=texts, compress_level=4)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._target / name)
        return name

    def _highest(self) -> int:
        stem = r"\d+".join(re.escape(part) for part in self._name.split(_BATCH_NUMBER))
        pattern = re.compile(stem + r"_(\d+)_?.*")
        numbers = (pattern.fullmatch(path.name) for path in self._target.iterdir())
        return max((int(match[1]) for match in numbers if match), default=0)


def png_texts(entries: Mapping[str, Any], origin: str | None) -> PngInfo:
    """Return the text chunks of a picture: JSON per entry, and which engine made it, when that was this one."""
    info = PngInfo()
    for key, value in entries.items():
        info.add_text(key, json.dumps(value))
    if origin is not None:
        info.add_text("engine", "embedded")
        info.add_text("note", origin)
    return info


def _fill_in(prefix: str, width_px: int, height_px: int) -> str:
    now = datetime.now().astimezone()
    values = {
        "width": str(width_px),
        "height": str(height_px),
        "year": f"{now.year}",
        "month": f"{now.month:02}",
        "day": f"{now.day:02}",
        "hour": f"{now.hour:02}",
        "minute": f"{now.minute:02}",
        "second": f"{now.second:02}",
    }
    return _PLACEHOLDER.sub(lambda match: values[match[1]], prefix)
