"""An upload whose record cannot be read: it stands in nobody's way, and can be got rid of."""

from dataclasses import replace
from pathlib import Path

import pytest
from anyio import to_thread

from mcp_toolserver.errors import Conflict, RateLimited
from mcp_toolserver.uploads.limits import UploadLimits
from mcp_toolserver.uploads.progress import StartUpload
from mcp_toolserver.uploads.uploads import Uploads
from tests.unit.uploads.conftest import UPLOAD_ID, Place, encoded

START = StartUpload(filename="a.bin", total_bytes=5, chunk_bytes=2)
DAY_S = 24 * 3600.0
BROKEN = [b"", b"{", b"\xff", b'{"upload_id":1}', b'{"a":' * 250 + b"1" + b"}" * 250]


async def broken(place: Place, content: bytes = b"") -> Path:
    """Begin an upload, send two bytes, and break its manifest; returns that."""
    await place.uploads.start(replace(START, upload_id=UPLOAD_ID))
    await place.uploads.append(UPLOAD_ID, 0, encoded(b"12"))
    manifest = place.part.with_name("manifest.json")
    manifest.write_bytes(content)
    return manifest


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: repr(content[:12]))
async def test_the_others_go_on_and_it_can_be_aborted(place: Place, content: bytes) -> None:
    await broken(place, content)
    place.reopen()
    other = (await place.uploads.start(START)).manifest
    assert [each.manifest for each in await place.uploads.overview()] == [other]
    for asked in (
        place.uploads.status(UPLOAD_ID),
        place.uploads.append(UPLOAD_ID, 1, encoded(b"34")),
        place.uploads.start(replace(START, upload_id=UPLOAD_ID)),
        place.uploads.finish(UPLOAD_ID, place.publish),
    ):
        with pytest.raises(Conflict, match=r"`manifest\.json` of upload .* cannot be read") as refused:
            await asked
        assert "Abort it" in (refused.value.hint or "")
    dropped = await place.uploads.abort(UPLOAD_ID)
    assert (dropped.filename, dropped.received_bytes) == (None, 2)
    assert not place.part.parent.exists()


async def test_it_takes_a_place_until_it_is_old(place: Place) -> None:
    manifest = await broken(place)
    uploads = Uploads(place.store, limits=UploadLimits(most_open=1))
    with pytest.raises(RateLimited, match="There are 1 unfinished uploads here"):
        await uploads.start(START)
    now_s = (await to_thread.run_sync(manifest.stat)).st_mtime
    assert await to_thread.run_sync(place.store.sweep, now_s + DAY_S, 7 * DAY_S, DAY_S) == []
    assert await to_thread.run_sync(place.store.sweep, now_s + 8 * DAY_S, 7 * DAY_S, DAY_S) == [UPLOAD_ID]
    await uploads.start(START)


async def test_a_receipt_that_cannot_be_read_is_no_upload_that_was_published(place: Place) -> None:
    await place.uploads.start(replace(START, upload_id=UPLOAD_ID, total_bytes=2))
    await place.uploads.append(UPLOAD_ID, 0, encoded(b"12"))
    await place.uploads.finish(UPLOAD_ID, place.publish)
    place.part.with_name("receipt.json").write_bytes(b"{")
    with pytest.raises(Conflict, match=r"`receipt\.json`"):
        await place.uploads.finish(UPLOAD_ID, place.publish)
    await place.uploads.abort(UPLOAD_ID)
    assert (place.folder / "a.bin").read_bytes() == b"12"
