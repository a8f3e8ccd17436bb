"""A complete upload in the hands of whoever makes something else of it."""

import hashlib
import json

import pytest

from mcp_toolserver.errors import Conflict, NotFound
from mcp_toolserver.uploads.digests import DigestMismatch
from mcp_toolserver.uploads.plan import State
from mcp_toolserver.uploads.progress import StartUpload
from tests.unit.uploads.conftest import UPLOAD_ID, Place, encoded

DATA = b"images in a zip"
SHA256 = hashlib.sha256(DATA).hexdigest()


async def complete(place: Place) -> None:
    """Bring an upload to where only its use is missing."""
    request = StartUpload(filename="a.zip", total_bytes=len(DATA), upload_id=UPLOAD_ID)
    await place.uploads.start(request)
    await place.uploads.append(UPLOAD_ID, 0, encoded(DATA))


async def test_it_is_lent_verified_and_settled_after_success(place: Place) -> None:
    await complete(place)
    async with place.uploads.taken(UPLOAD_ID, sha256=SHA256) as taken:
        assert taken.path.read_bytes() == DATA
        assert (taken.filename, taken.sha256) == ("a.zip", SHA256)
        assert place.store.hold(UPLOAD_ID, wait=False) is None, "nobody else may touch it"
    assert not place.part.exists()
    assert (await place.uploads.status(UPLOAD_ID)).state is State.PUBLISHED
    with pytest.raises(Conflict, match="published"):
        async with place.uploads.taken(UPLOAD_ID):
            pass


async def test_it_stays_complete_when_its_use_fails(place: Place) -> None:
    await complete(place)
    with pytest.raises(RuntimeError, match="bad image"):
        async with place.uploads.taken(UPLOAD_ID):
            raise RuntimeError("bad image")
    assert (await place.uploads.status(UPLOAD_ID)).state is State.COMPLETE
    async with place.uploads.taken(UPLOAD_ID) as taken:
        assert taken.path.read_bytes() == DATA


async def test_it_is_not_lent_before_it_is_whole_and_right(place: Place) -> None:
    with pytest.raises(NotFound, match="no upload"):
        async with place.uploads.taken(UPLOAD_ID):
            pass
    await place.uploads.start(StartUpload(filename="a.zip", total_bytes=len(DATA), upload_id=UPLOAD_ID))
    with pytest.raises(Conflict, match="15 of 15 bytes are missing"):
        async with place.uploads.taken(UPLOAD_ID):
            pass
    await complete(place)
    with pytest.raises(DigestMismatch):
        async with place.uploads.taken(UPLOAD_ID, sha256="0" * 64):
            pass


async def test_after_a_restart_of_the_machine_only_a_digest_tells_whether_it_is_right(place: Place) -> None:
    await complete(place)
    manifest = place.part.with_name("manifest.json")
    told = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps(told | {"boot_id": "an earlier run of this machine"}))
    place.reopen()
    with pytest.raises(Conflict, match="started anew during upload"):
        async with place.uploads.taken(UPLOAD_ID):
            pass
    async with place.uploads.taken(UPLOAD_ID, sha256=SHA256) as taken:
        assert taken.sha256 == SHA256
