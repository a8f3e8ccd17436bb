"""Several at one upload at the same moment: each gets a true answer, and the file is right or not there."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest

from mcp_toolserver.errors import Conflict, InsufficientStorage, NotFound, ToolError
from mcp_toolserver.uploads.checksums import Checksum, ChecksumMismatch
from mcp_toolserver.uploads.incoming import BATCH_BYTES, SYNC_BYTES, Incoming
from mcp_toolserver.uploads.plan import Locked, State
from mcp_toolserver.uploads.progress import StartUpload
from tests.unit.uploads.conftest import UPLOAD_ID, Place, encoded

DATA = bytes(range(256)) * 64
CHUNK = 4096


async def start(place: Place, size: int = len(DATA)) -> None:
    """Begin an upload."""
    request = StartUpload(filename="a.bin", total_bytes=size, upload_id=UPLOAD_ID, chunk_bytes=CHUNK)
    await place.uploads.start(request)


async def body(*pieces: bytes) -> AsyncIterator[bytes]:
    """Send pieces."""
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("turn", range(8))
async def test_a_finish_raced_by_appends_publishes_the_right_file(place: Place, turn: int) -> None:
    await start(place)
    await place.uploads.receive(UPLOAD_ID, 0, body(DATA))
    other = Place(place.folder)
    refused: list[ToolError] = []

    async def append(index: int) -> None:
        try:
            await other.uploads.append(UPLOAD_ID, index, encoded(DATA[index * CHUNK : (index + 1) * CHUNK]))
        except Conflict as refusal:
            refused.append(refusal)

    async with anyio.create_task_group() as tasks:
        for index in range(4):
            tasks.start_soon(append, (index + turn) % 4)
            if index == turn % 4:
                tasks.start_soon(place.uploads.finish, UPLOAD_ID, place.publish)
    assert (place.folder / "a.bin").read_bytes() == DATA
    assert all("published" in refusal.message for refusal in refused)


@pytest.mark.parametrize("turn", range(8))
async def test_an_abort_raced_by_a_finish_leaves_all_or_nothing(place: Place, turn: int) -> None:
    await start(place)
    await place.uploads.receive(UPLOAD_ID, 0, body(DATA))
    other = Place(place.folder)
    outcomes: dict[str, str] = {}

    async def abort() -> None:
        try:
            await other.uploads.abort(UPLOAD_ID)
            outcomes["abort"] = "done"
        except Conflict:
            outcomes["abort"] = "refused"

    async def finish() -> None:
        try:
            await place.uploads.finish(UPLOAD_ID, place.publish)
            outcomes["finish"] = "done"
        except NotFound:
            outcomes["finish"] = "refused"

    async with anyio.create_task_group() as tasks:
        for work in (abort, finish) if turn % 2 else (finish, abort):
            tasks.start_soon(work)
    assert sorted(outcomes.values()) == ["done", "refused"]
    assert (place.folder / "a.bin").exists() == (outcomes["finish"] == "done")


async def test_of_two_streams_from_one_place_one_is_taken_and_one_is_refused(place: Place) -> None:
    await start(place)
    other = Place(place.folder)
    refused: list[Conflict] = []

    async def stream(place: Place) -> None:
        try:
            await place.uploads.receive(UPLOAD_ID, 0, body(DATA))
        except Conflict as refusal:
            refused.append(refusal)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream, place)
        tasks.start_soon(stream, other)
    assert len(refused) == 1
    assert refused[0].details["received_bytes"] == len(DATA)
    assert place.part.read_bytes() == DATA


async def test_a_stream_that_hangs_does_not_keep_its_caller_from_going_on(place: Place) -> None:
    data = bytes(BATCH_BYTES) + DATA
    await start(place, len(data))
    is_written, may_go_on = anyio.Event(), anyio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield data[:BATCH_BYTES]
        while (await place.uploads.status(UPLOAD_ID)).received_bytes < BATCH_BYTES:
            await anyio.lowlevel.checkpoint()
        is_written.set()
        await may_go_on.wait()
        yield data[BATCH_BYTES:]

    async def old_connection() -> None:
        with pytest.raises(Conflict, match=f"{len(data)} bytes have arrived|is published"):
            await place.uploads.receive(UPLOAD_ID, 0, hanging())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(old_connection)
        await is_written.wait()
        progress = await place.uploads.receive(UPLOAD_ID, BATCH_BYTES, body(data[BATCH_BYTES:]))
        assert progress.state is State.COMPLETE
        may_go_on.set()
    await place.uploads.finish(UPLOAD_ID, place.publish, sha256=hashlib.sha256(data).hexdigest())


async def test_nobody_builds_on_bytes_that_may_be_discarded(place: Place) -> None:
    data = bytes(BATCH_BYTES) + DATA
    await start(place, len(data))
    has_begun, may_go_on = anyio.Event(), anyio.Event()
    wrong = Checksum("sha1 " + encoded(hashlib.sha1(b"else").digest()))

    async def doubtful() -> AsyncIterator[bytes]:
        yield data[:BATCH_BYTES]
        while (await anyio.to_thread.run_sync(place.part.stat)).st_size < BATCH_BYTES:
            await anyio.lowlevel.checkpoint()
        has_begun.set()
        await may_go_on.wait()

    async def checked() -> None:
        with pytest.raises(ChecksumMismatch):
            await place.uploads.receive(UPLOAD_ID, 0, doubtful(), checksum=wrong)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(checked)
        await has_begun.wait()
        right = Checksum("sha1 " + encoded(hashlib.sha1(data).digest()))
        for rival in (place, Place(place.folder)):
            with pytest.raises(Locked, match="Another request works on") as refused:
                await rival.uploads.receive(UPLOAD_ID, 0, body(data), checksum=right)
            assert (refused.value.status, refused.value.retryable) == (423, True)
            assert (await rival.uploads.status(UPLOAD_ID)).received_bytes == 0, "told of what may be discarded"
            for asked in (
                rival.uploads.receive(UPLOAD_ID, 0, body(data)),
                rival.uploads.append(UPLOAD_ID, 0, encoded(data[:CHUNK])),
                rival.uploads.abort(UPLOAD_ID),
                start(rival, len(data)),
            ):
                with anyio.fail_after(10), pytest.raises(Locked):
                    await asked
        may_go_on.set()
    assert (await place.uploads.status(UPLOAD_ID)).received_bytes == 0


async def test_a_sender_that_falls_silent_is_taken_for_gone(place: Place) -> None:
    written: list[bytes] = []

    async def write(offset: int, pieces: Sequence[bytes]) -> None:
        assert offset == len(b"".join(written))
        written.extend(pieces)

    async def silent() -> AsyncIterator[bytes]:
        yield b"some"
        yield b" bytes"
        await anyio.sleep_forever()

    async def sync() -> None:
        raise AssertionError("so few bytes are made durable at the end")

    assert await Incoming(write, sync, 0, silence_s=0.01).take(silent()) == 10
    assert b"".join(written) == b"some bytes"


async def test_starts_of_one_id_at_once_are_one_upload_or_are_refused(place: Place) -> None:
    other = Place(place.folder)
    refused: list[Conflict] = []

    async def begin(place: Place, filename: str) -> None:
        request = StartUpload(filename=filename, total_bytes=5, upload_id=UPLOAD_ID)
        try:
            await place.uploads.start(request)
        except Conflict as refusal:
            refused.append(refusal)

    async with anyio.create_task_group() as tasks:
        for each in (place, other, place, other):
            tasks.start_soon(begin, each, "a.bin")
            tasks.start_soon(begin, each, "b.bin")
    assert len(refused) == 4
    assert {tuple(refusal.details["differing"]) for refusal in refused} == {("filename",)}
    assert len(await place.uploads.overview()) == 1


async def test_a_long_body_is_made_durable_on_its_way_and_a_failure_of_the_disk_ends_it() -> None:
    written: list[int] = []
    synced: list[int] = []

    async def write(offset: int, pieces: Sequence[bytes]) -> None:
        written.append(offset)
        await anyio.lowlevel.checkpoint()

    async def sync() -> None:
        synced.append(written[-1])

    async def refuse() -> None:
        raise InsufficientStorage("The server's disk is full.")

    piece = bytes(BATCH_BYTES)
    count = 3 * SYNC_BYTES // BATCH_BYTES
    assert await Incoming(write, sync, 0).take(body(*[piece] * count)) == 3 * SYNC_BYTES
    assert len(synced) == 3
    with pytest.raises(InsufficientStorage):
        await Incoming(write, refuse, 0).take(body(*[piece] * count))
    assert written[-1] < 2 * SYNC_BYTES


async def test_two_servers_that_wait_for_each_others_locks_do_not_stand_still(place: Place) -> None:
    other = Place(place.folder)
    ids = [str(uuid4()) for _ in range(100)]
    for upload_id in ids:
        request = StartUpload(filename=f"{upload_id}.bin", total_bytes=len(DATA), upload_id=upload_id)
        await place.uploads.start(request)
        await place.uploads.append(upload_id, 0, encoded(DATA))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for first, second in zip(ids, reversed(ids), strict=True):
                tasks.start_soon(place.uploads.finish, first, place.publish)
                tasks.start_soon(other.uploads.finish, second, other.publish)
    assert len(place.published) + len(other.published) == len(ids)
    assert len(list(place.folder.glob("*.bin"))) == len(ids)
