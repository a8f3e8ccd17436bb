"""Zips for datasets, sent to aitk_mcp by tus; each waits until it is imported."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from aitk_mcp.datasets.zip_uploads import ZipUploads
from aitk_mcp.settings import AitkSettings

TUS = {"Tus-Resumable": "1.0.0"}
ZIP = b"PK\x05\x06" + bytes(18)


def creation(filename: str, size: int = len(ZIP)) -> dict[str, str]:
    """Return the headers of a creation."""
    told = f"filename {base64.b64encode(filename.encode()).decode()}"
    return {**TUS, "Upload-Length": str(size), "Upload-Metadata": told}


@pytest.fixture
def url(tmp_path: Path, serve: Callable[[ASGIApp], str]) -> str:
    """Serve aitk_mcp on its embedded trainer."""
    return serve(create_app(AitkSettings(data_dir=tmp_path, trainer="embedded")))


async def test_a_zip_waits_until_it_is_taken(url: str, tmp_path: Path) -> None:
    async with httpx.AsyncClient() as http:
        created = await http.post(f"{url}/uploads", headers=creation("cats.zip"))
        assert created.status_code == 201, created.text
        where = created.headers["Location"]
        headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
        sent = await http.patch(where, headers=headers, content=ZIP)
        assert (sent.status_code, sent.headers["Upload-Offset"]) == (204, str(len(ZIP)))
        assert "Upload-Expires" in sent.headers
        assert (await http.head(where, headers=TUS)).headers["Upload-Offset"] == str(len(ZIP))
        async with ZipUploads(tmp_path / "uploads").taken(where.rpartition("/")[2]) as taken:
            assert taken.path.read_bytes() == ZIP
            assert taken.sha256 == hashlib.sha256(ZIP).hexdigest()
        assert (await http.delete(where, headers=TUS)).status_code == 409


@pytest.mark.parametrize("name", ["cats.tar", "../cats.zip", "cats"])
async def test_a_name_that_is_no_zips_is_refused(url: str, name: str) -> None:
    async with httpx.AsyncClient() as http:
        refused = await http.post(f"{url}/uploads", headers=creation(name))
        assert refused.status_code == 422
        assert "`filename`" in refused.json()["error"]["message"]


async def test_what_is_no_zip_is_refused_with_its_first_bytes(url: str) -> None:
    async with httpx.AsyncClient() as http:
        headers = {**creation("cats.zip", 1000), "Content-Type": "application/offset+octet-stream"}
        refused = await http.post(f"{url}/uploads", headers=headers, content=b"\x89PNG" + bytes(500))
        assert refused.status_code == 422
        assert "`cats.zip` is no zip" in refused.json()["error"]["message"]
