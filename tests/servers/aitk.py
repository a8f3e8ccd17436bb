"""An aitk_mcp on a folder of its own, and the images that the tests feed it."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from aitk_mcp.app import build
from aitk_mcp.settings import AitkSettings
from mcp_toolserver.tools import Call, Toolbox


def settings_in(folder: Path, **given: Any) -> AitkSettings:
    """Return the settings of a server that keeps everything in `folder` and trains on the embedded engine."""
    return AitkSettings.model_validate({"data_dir": folder, "port": 0, "trainer": "embedded", **given})


def toolbox_in(folder: Path, **given: Any) -> Toolbox:
    """Return the tools of such a server."""
    return build(settings_in(folder, **given)).toolbox


async def call(toolbox: Toolbox, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool as every door does."""
    return await toolbox.call(tool, arguments, Call(base_url="http://127.0.0.1:8190"))


def image_bytes(
    width: int = 64, height: int = 48, colour: str = "teal", form: str = "PNG", orientation: int | None = None
) -> bytes:
    """Return the bytes of a plain image."""
    exif = Image.Exif()
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    file = BytesIO()
    Image.new("RGB", (width, height), colour).save(file, form, exif=exif)
    return file.getvalue()


def image(filename: str = "cat.png", caption: str | None = "a cat", **drawn: Any) -> dict[str, Any]:
    """Return an image as upload-dataset takes it."""
    content = base64.b64encode(image_bytes(**drawn)).decode()
    return {"filename": filename, "content": content, **({} if caption is None else {"caption": caption})}
