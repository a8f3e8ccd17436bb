"""Starts that are never finished: how many there may be, of one caller and of all, and what room they may claim."""

import os
import shutil
from dataclasses import replace

import anyio
import pytest

from mcp_toolserver.errors import InsufficientStorage, RateLimited
from mcp_toolserver.uploads.limits import UploadLimits
from mcp_toolserver.uploads.progress import StartUpload
from mcp_toolserver.uploads.uploads import Uploads
from tests.unit.uploads.conftest import UPLOAD_ID, Place, encoded

LIMITS = UploadLimits(most_open=12, most_open_of_one_caller=8)
START = StartUpload(filename="a.bin", total_bytes=5)


@pytest.fixture
def uploads(place: Place) -> Uploads:
    """Return uploads with low limits."""
    return Uploads(place.store, limits=LIMITS)


async def test_ten_thousand_starts_leave_as_many_as_there_may_be(uploads: Uploads) -> None:
    refused: list[str] = []

    async def start(caller: str, count: int) -> None:
        for _ in range(count):
            try:
                await uploads.start(replace(START, caller=caller))
            except RateLimited as refusal:
                refused.append(refusal.message)
                assert refusal.hint is not None
                assert "list-uploads" in refusal.hint

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(start, "10.0.0.1", 1250)
    assert refused[-1] == "There are 8 unfinished uploads of 10.0.0.1, and 8 are the most."
    assert len(await uploads.overview()) == 8
    await start("10.0.0.2", 5000)
    assert refused[-1] == "There are 12 unfinished uploads here, and 12 are the most."
    assert len(refused) == 10_000 - 12
    assert len(await uploads.overview()) == 12


async def test_a_place_is_free_again_after_an_abort_or_a_finish(uploads: Uploads, place: Place) -> None:
    first = await uploads.start(replace(START, upload_id=UPLOAD_ID))
    others = [(await uploads.start(START)).manifest.upload_id for _ in range(7)]
    with pytest.raises(RateLimited):
        await uploads.start(START)
    assert (await uploads.start(replace(START, upload_id=UPLOAD_ID))).manifest == first.manifest, (
        "to resume is no start"
    )
    await uploads.abort(others[0])
    await uploads.start(START)
    with pytest.raises(RateLimited):
        await uploads.start(START)
    await uploads.append(UPLOAD_ID, 0, encoded(b"12345"))
    await uploads.finish(UPLOAD_ID, place.publish)
    await uploads.start(START)
    with pytest.raises(RateLimited):
        await uploads.start(START)


async def test_what_uploads_under_way_still_need_is_not_given_twice(uploads: Uploads, place: Place) -> None:
    free = await anyio.to_thread.run_sync(lambda: shutil.disk_usage(place.folder).free)
    half = free * 3 // 5
    await uploads.start(replace(START, total_bytes=half, upload_id=UPLOAD_ID))
    with pytest.raises(InsufficientStorage, match=f"still need {half} of them") as refused:
        await uploads.start(replace(START, total_bytes=half))
    assert refused.value.details["reserved_bytes"] == half
    await anyio.to_thread.run_sync(os.utime, place.part, (1, 1))
    await uploads.start(replace(START, total_bytes=half))
