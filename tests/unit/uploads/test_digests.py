"""The digest of an upload is known when its last byte is there, if all of them came through this process in order."""

import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from mcp_toolserver.uploads.digests import RunningDigests
from mcp_toolserver.uploads.folder import Manifest
from mcp_toolserver.uploads.progress import StartUpload
from tests.unit.uploads.conftest import UPLOAD_ID, Place, encoded

CHUNK = 200_000
DATA = os.urandom(5 * CHUNK)
MANIFEST = Manifest(
    upload_id=UPLOAD_ID,
    filename="a.bin",
    total_bytes=len(DATA),
    chunk_bytes=CHUNK,
    sha256=None,
    overwrite=False,
    metadata=None,
    started=datetime(2026, 1, 1, tzinfo=UTC),
)


async def start(place: Place) -> None:
    await place.uploads.start(
        StartUpload(filename="a.bin", total_bytes=len(DATA), upload_id=UPLOAD_ID, chunk_bytes=CHUNK)
    )


async def send(place: Place, *indices: int) -> None:
    for index in indices:
        await place.uploads.append(UPLOAD_ID, index, encoded(DATA[index * CHUNK : (index + 1) * CHUNK]))


async def stream(place: Place, offset: int, end: int) -> None:
    async def body() -> AsyncIterator[bytes]:
        for position in range(offset, end, 70_000):
            yield DATA[position : min(position + 70_000, end)]

    await place.uploads.receive(UPLOAD_ID, offset, body())


async def finish(place: Place) -> list[str | None]:
    """Finish, compare the digest, and return what was reported."""
    said: list[str | None] = []

    async def report(done: float, /, total: float | None = None, message: str | None = None) -> None:
        said.append(message)

    receipt = await place.uploads.finish(UPLOAD_ID, place.publish, report=report)
    assert receipt.sha256 == hashlib.sha256(DATA).hexdigest()
    return said


async def test_chunks_and_streams_in_turn_need_no_second_pass(place: Place) -> None:
    await start(place)
    await send(place, 0, 1, 0, 1)
    await stream(place, 2 * CHUNK, 3 * CHUNK)
    await send(place, 2, 3)
    await stream(place, 4 * CHUNK, len(DATA))
    assert await finish(place) == ["sha256 known from receiving"]


async def test_what_another_process_received_is_read_again(place: Place) -> None:
    await start(place)
    await send(place, 0, 1)
    place.reopen()
    await send(place, 2, 3, 4)
    assert "sha256 known from receiving" not in await finish(place)


@pytest.mark.parametrize("settled", ["at once", "aside", "with the next"])
def test_bytes_count_in_their_order_whenever_they_are_hashed(settled: str) -> None:
    digests = RunningDigests()
    for offset in range(0, len(DATA), CHUNK):
        digests.feed(MANIFEST, offset, [DATA[offset : offset + 7], DATA[offset + 7 : offset + CHUNK]])
        if settled == "at once":
            digests.settle(UPLOAD_ID)
        elif settled == "aside":
            digests.settle_aside(UPLOAD_ID)
    assert digests.of(MANIFEST) == hashlib.sha256(DATA).hexdigest()


def test_a_gap_or_another_start_of_the_same_id_leaves_no_digest() -> None:
    digests = RunningDigests()
    digests.feed(MANIFEST, 0, [DATA[:CHUNK]])
    digests.feed(MANIFEST, 2 * CHUNK, [DATA[2 * CHUNK :]])
    assert digests.of(MANIFEST) is None
    digests.feed(MANIFEST, 0, [DATA])
    later = MANIFEST.model_copy(update={"started": datetime(2026, 1, 2, tzinfo=UTC)})
    assert digests.of(later) is None
    assert digests.of(MANIFEST) == hashlib.sha256(DATA).hexdigest()
