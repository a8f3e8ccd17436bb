"""The homes of datasets that the same tests run against: a folder here, and the disk behind AI Toolkit's API.

The last is a stand-in whose disk is another machine's, or the real one where AITK_UI_URL is set.
"""

import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from pydantic import SecretStr

from aitk_mcp.datasets.datasets import Datasets
from aitk_mcp.datasets.port import DatasetHome
from aitk_mcp.datasets.remote import RemoteDatasets
from aitk_mcp.images import BadImage
from aitk_mcp.trainers.ui_http import UiHttp
from tests.fakes.aitk_ui import FakeAitkUi

HOMES = ["here", "remote", *(["ai-toolkit-ui"] if os.environ.get("AITK_UI_URL") else [])]


@dataclass(frozen=True)
class Drawn:
    """An image to upload; None for `content` is one that cannot be read."""

    filename: str
    caption: str | None
    content: bytes | None

    def read(self) -> bytes:
        """Return its bytes."""
        if self.content is None:
            raise BadImage("it is no image that can be read")
        return self.content


def drawn(
    filename: str,
    caption: str | None = "a cat",
    *,
    colour: str = "teal",
    side: int = 64,
    orientation: int = 1,
) -> Drawn:
    """Draw an image of one colour, half as high as wide."""
    form = {"jpg": "JPEG", "webp": "WEBP"}.get(filename.rpartition(".")[2].lower(), "PNG")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = BytesIO()
    Image.new("RGB", (side, side // 2), colour).save(file, form, exif=exif)
    return Drawn(filename, caption, file.getvalue())


class Users:
    """Say which jobs read a dataset, as a trainer would."""

    def __init__(self) -> None:
        self.job_ids: list[str] = []

    async def using(self, folder: Path) -> list[str]:
        """Return the ids of the jobs."""
        return self.job_ids


@pytest.fixture
def users() -> Users:
    """Give who reads the datasets: nobody, unless a test says so."""
    return Users()


@pytest.fixture
def far_away(tmp_path: Path) -> FakeAitkUi:
    """Give a stand-in for AI Toolkit's server on another machine, which does not serve yet."""
    return FakeAitkUi(tmp_path / "toolkit", machine="/far/away")


@pytest.fixture(params=HOMES)
async def home(
    request: pytest.FixtureRequest, users: Users, far_away: FakeAitkUi, tmp_path: Path
) -> AsyncGenerator[DatasetHome]:
    """Give a home of each kind, and delete what a test left in a real one."""
    if request.param == "here":
        yield Datasets(tmp_path / "datasets", users.using)
    elif request.param == "remote":
        with far_away.serving() as url:
            yield RemoteDatasets(UiHttp(url), Path("/far/away/datasets"), tmp_path / "copies", users.using)
    else:
        token = os.environ.get("AI_TOOLKIT_AUTH")
        http = UiHttp(os.environ["AITK_UI_URL"], SecretStr(token) if token else None)
        real = RemoteDatasets(http, Path((await http.folders()).datasets), tmp_path / "copies", users.using)
        before = {each.name for each in await real.all()}
        yield real
        users.job_ids = []
        for each in await real.all():
            if each.name not in before:
                await real.delete(each.name)
