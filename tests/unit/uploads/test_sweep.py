"""Sweeping: only what is old beyond doubt goes."""

import json
import os
from pathlib import Path

import anyio
import pytest

from mcp_toolserver.uploads.progress import StartUpload
from tests.unit.uploads.conftest import UPLOAD_ID, Place

DAY_S = 24 * 3600.0


@pytest.fixture
async def folder(place: Place) -> Path:
    """Return the folder of an upload that was started just now."""
    await place.uploads.start(StartUpload(filename="a.bin", total_bytes=5, upload_id=UPLOAD_ID))
    folder = place.folder / ".uploads" / UPLOAD_ID
    moved_to_an_earlier_run(folder)
    return folder


def moved_to_an_earlier_run(folder: Path) -> None:
    """Let the machine have been started anew since the upload began."""
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"boot_id": "an earlier run"}))


def age(folder: Path) -> None:
    """Let everything in the folder look very old."""
    for path in (*folder.iterdir(), folder):
        os.utime(path, (1, 1))


def now_s(folder: Path) -> float:
    """Return the time of the last change in the folder."""
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))


def test_what_is_old_goes_and_what_is_young_stays(place: Place, folder: Path) -> None:
    assert place.store.sweep(now_s(folder) + DAY_S - 1, DAY_S, DAY_S) == []
    assert place.store.sweep(now_s(folder) + DAY_S + 1, DAY_S, DAY_S) == [UPLOAD_ID]
    assert not folder.exists()


def test_a_start_that_died_halfway_goes_too(place: Place, folder: Path) -> None:
    (folder / "manifest.json").unlink()
    assert place.store.sweep(now_s(folder) + DAY_S + 1, DAY_S, DAY_S) == [UPLOAD_ID]


def test_in_doubt_everything_stays(place: Place, folder: Path) -> None:
    late_s = now_s(folder) + 365 * DAY_S
    held = place.store.hold(UPLOAD_ID)
    assert held is not None
    assert place.store.sweep(late_s, DAY_S, DAY_S) == [], "somebody works on it"
    held.release()
    assert place.store.sweep(now_s(folder) - 10, 0.0, 0.0) == [], "the clock stands before the last change"
    (folder / "notes.txt").write_text("mine")
    assert place.store.sweep(late_s, DAY_S, DAY_S) == [], "a stranger's file lies there"
    (folder / "notes.txt").unlink()
    (folder.parent / "something else").mkdir()
    assert place.store.sweep(late_s, DAY_S, DAY_S) == [UPLOAD_ID]
    assert (folder.parent / "something else").is_dir()


def test_a_resumed_start_makes_an_upload_young_again(place: Place, folder: Path) -> None:
    age(folder)
    anyio.run(place.uploads.start, StartUpload(filename="a.bin", total_bytes=5, upload_id=UPLOAD_ID))
    assert place.store.sweep(now_s(folder) + DAY_S - 1, DAY_S, DAY_S) == []


def test_an_upload_without_a_byte_has_its_own_age(place: Place, folder: Path) -> None:
    assert place.store.sweep(now_s(folder) + DAY_S + 1, 7 * DAY_S, 2 * DAY_S) == []
    (folder / "data.part").write_bytes(b"1")
    assert place.store.sweep(now_s(folder) + DAY_S + 1, 7 * DAY_S, DAY_S) == []
    assert place.store.sweep(now_s(folder) + 7 * DAY_S + 1, 7 * DAY_S, DAY_S) == [UPLOAD_ID]


def test_a_clock_that_jumps_ahead_takes_nothing_away(place: Place) -> None:
    anyio.run(place.uploads.start, StartUpload(filename="a.bin", total_bytes=5, upload_id=UPLOAD_ID))
    folder = place.folder / ".uploads" / UPLOAD_ID
    assert place.store.sweep(now_s(folder) + 3650 * DAY_S, DAY_S, DAY_S) == [], "the machine does not run that long"


async def test_a_server_sweeps_when_an_upload_starts(place: Place, folder: Path) -> None:
    await anyio.to_thread.run_sync(age, folder)
    place.reopen()
    await place.uploads.start(StartUpload(filename="b.bin", total_bytes=5))
    assert [each.manifest.filename for each in await place.uploads.overview()] == ["b.bin"]
