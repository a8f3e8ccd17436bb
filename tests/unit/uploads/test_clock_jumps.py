"""The clock of the machine jumps, ahead or back, at any time of an upload: nothing is lost, and nothing goes wrong."""

import hashlib
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from mcp_toolserver.uploads.folder import Manifest
from mcp_toolserver.uploads.limits import UploadLimits
from mcp_toolserver.uploads.plan import State
from mcp_toolserver.uploads.progress import StartUpload
from mcp_toolserver.uploads.uploads import Uploads
from tests.unit.uploads.conftest import UPLOAD_ID, Place, encoded

DATA = b"ten bytes."
YEARS_S = 10 * 365 * 24 * 3600.0
START = StartUpload(filename="a.bin", total_bytes=len(DATA), upload_id=UPLOAD_ID, chunk_bytes=4)


@pytest.fixture(params=[YEARS_S, -YEARS_S], ids=["back", "ahead"])
async def jumped(request: pytest.FixtureRequest, place: Place) -> Place:
    """Return an upload with some bytes whose times are all years from now: in the future, where the clock went back.

    To a server, a clock that jumped and files whose times did are the same.
    """
    await place.uploads.start(START)
    await place.uploads.append(UPLOAD_ID, 0, encoded(DATA[:4]))
    await anyio.to_thread.run_sync(move, place.part.parent, request.param)
    place.reopen()
    return place


def move(folder: Path, by_s: float) -> None:
    """Move every time of an upload."""
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    started = datetime.now(UTC) + timedelta(seconds=by_s)
    (folder / "manifest.json").write_text(manifest.model_copy(update={"started": started}).model_dump_json())
    now_s = time.time() + by_s
    for path in (*folder.iterdir(), folder):
        os.utime(path, (now_s, now_s))


async def test_the_upload_goes_on_and_its_receipt_is_sane(jumped: Place) -> None:
    assert (await jumped.uploads.start(START)).received_bytes == 4
    await jumped.uploads.append(UPLOAD_ID, 1, encoded(DATA[4:8]))
    await jumped.uploads.append(UPLOAD_ID, 2, encoded(DATA[8:]))
    receipt = await jumped.uploads.finish(UPLOAD_ID, jumped.publish, sha256=hashlib.sha256(DATA).hexdigest())
    assert receipt.seconds >= 0
    assert (jumped.folder / "a.bin").read_bytes() == DATA
    jumped.reopen()
    assert await jumped.uploads.finish(UPLOAD_ID, jumped.publish) == receipt


async def test_nothing_is_swept(jumped: Place) -> None:
    assert await jumped.uploads.sweep() == []
    other = await jumped.uploads.start(StartUpload(filename="b.bin", total_bytes=1))
    assert (await jumped.uploads.status(UPLOAD_ID)).received_bytes == 4
    told = [each.manifest.upload_id for each in await jumped.uploads.overview()]
    assert sorted(told) == sorted([UPLOAD_ID, other.manifest.upload_id])


async def test_a_published_one_is_not_forgotten(jumped: Place) -> None:
    for index in (1, 2):
        await jumped.uploads.append(UPLOAD_ID, index, encoded(DATA[4 * index : 4 * index + 4]))
    receipt = await jumped.uploads.finish(UPLOAD_ID, jumped.publish)
    for by_s in (YEARS_S, -YEARS_S):
        await anyio.to_thread.run_sync(move, jumped.part.parent, by_s)
        assert await jumped.uploads.sweep() == []
        assert (await jumped.uploads.status(UPLOAD_ID)).state is State.PUBLISHED
        assert await jumped.uploads.finish(UPLOAD_ID, jumped.publish) == receipt


async def test_a_lock_has_no_age(jumped: Place) -> None:
    held = await anyio.to_thread.run_sync(lambda: jumped.store.hold(UPLOAD_ID))
    assert held is not None
    with held:
        assert await anyio.to_thread.run_sync(lambda: jumped.store.hold(UPLOAD_ID, wait=False)) is None
    await jumped.uploads.append(UPLOAD_ID, 1, encoded(DATA[4:8]))


async def test_those_that_nobody_touches_are_swept_and_make_place(place: Place) -> None:
    limits = UploadLimits(most_open=3, most_open_of_one_caller=3)
    uploads = Uploads(place.store, limits=limits)
    for _ in range(3):
        await uploads.start(StartUpload(filename="a.bin", total_bytes=5))

    def grow_old() -> None:
        for folder in place.store.root.iterdir():
            manifest = folder / "manifest.json"
            manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"boot_id": "an earlier run"}))
            move(folder, -YEARS_S)

    await anyio.to_thread.run_sync(grow_old)
    started = await Uploads(place.store, limits=limits).start(START)
    assert [each.manifest for each in await uploads.overview()] == [started.manifest]
