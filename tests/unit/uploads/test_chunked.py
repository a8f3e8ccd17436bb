"""The use case over a real disk: resuming, refusing, publishing once."""

import errno
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel
import pytest

from mcp_toolserver.errors import (
    Conflict,
    Forbidden,
    InsufficientStorage,
    InvalidArguments,
    NotFound,
    TooLarge,
    ToolError,
)
from mcp_toolserver.uploads.folder import Manifest
from mcp_toolserver.uploads.plan import State
from mcp_toolserver.uploads.progress import StartUpload, UploadProgress
from mcp_toolserver.uploads.steps import MAX_CHUNK_BYTES
from mcp_toolserver.uploads.store import disk_errors
from tests.fakes.disk_faults import largest_file
from tests.unit.uploads.conftest import UPLOAD_ID, Place, encoded

DATA = bytes(range(256)) * 4
SHA256 = hashlib.sha256(DATA).hexdigest()
CHUNK = 300


async def start(place: Place, **given: Any) -> UploadProgress:
    request = StartUpload(filename="a.bin", total_bytes=len(DATA), upload_id=UPLOAD_ID, chunk_bytes=CHUNK)
    return await place.uploads.start(replace(request, **given))


async def send(place: Place, *indices: int) -> UploadProgress:
    for index in indices:
        await place.uploads.append(UPLOAD_ID, index, encoded(DATA[index * CHUNK : (index + 1) * CHUNK]))
    return await place.uploads.status(UPLOAD_ID)


async def test_a_file_arrives_and_is_published_once(place: Place) -> None:
    progress = await start(place)
    assert (progress.received_bytes, progress.next_chunk_index, progress.manifest.plan.total_chunks) == (0, 0, 4)
    progress = await send(place, 0, 1, 2, 3)
    assert (progress.state, progress.complete, progress.next_chunk_index) == (State.COMPLETE, True, 4)
    receipt = await place.uploads.finish(UPLOAD_ID, place.publish, sha256=SHA256)
    assert (place.folder / "a.bin").read_bytes() == DATA
    assert (receipt.sha256, receipt.checksum_verified, receipt.size_bytes) == (SHA256, True, len(DATA))
    place.reopen()
    assert await place.uploads.finish(UPLOAD_ID, place.publish) == receipt
    assert place.published == [SHA256]
    assert (await start(place)).state is State.PUBLISHED
    with pytest.raises(Conflict, match="published"):
        await send(place, 3)
    with pytest.raises(Conflict, match="published"):
        await place.uploads.abort(UPLOAD_ID)
    with pytest.raises(Conflict, match="another sha256"):
        await place.uploads.finish(UPLOAD_ID, place.publish, sha256="0" * 64)


async def test_the_same_start_resumes_in_any_spelling_of_the_id(place: Place) -> None:
    await start(place)
    await send(place, 0, 1)
    place.reopen()
    for spelling in (UPLOAD_ID.upper(), UPLOAD_ID.replace("-", ""), f"{{{UPLOAD_ID}}}"):
        progress = await start(place, upload_id=spelling, chunk_bytes=None)
        assert (progress.received_bytes, progress.manifest.upload_id) == (2 * CHUNK, UPLOAD_ID)


async def test_an_id_is_made_for_who_brings_none(place: Place) -> None:
    made = (await start(place, upload_id=None)).manifest.upload_id
    assert str(UUID(made)) == made
    with pytest.raises(InvalidArguments, match="which is no UUID"):
        await start(place, upload_id="../../etc")


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("filename", "b.bin", "filename"),
        ("total_bytes", 5, "total_size"),
        ("chunk_bytes", 7, "chunk_size"),
        ("sha256", "0" * 64, "sha256"),
        ("overwrite", True, "overwrite"),
        ("metadata", {"a": 1}, "metadata"),
    ],
)
async def test_another_start_under_the_same_id_is_refused(place: Place, field: str, value: object, name: str) -> None:
    await start(place)
    with pytest.raises(Conflict, match=name) as refused:
        await start(place, **{field: value})
    assert refused.value.details["differing"] == [name]


async def test_bytes_of_half_a_chunk_count_and_the_chunk_adds_the_rest(place: Place) -> None:
    await start(place)
    await send(place, 0, 1)
    with place.part.open("ab") as part:
        part.write(DATA[2 * CHUNK : 2 * CHUNK + 7])
    place.reopen()
    progress = await start(place)
    assert (progress.received_bytes, progress.next_chunk_index) == (2 * CHUNK + 7, 2)
    with pytest.raises(Conflict, match="with other bytes") as refused:
        await place.uploads.append(UPLOAD_ID, 2, encoded(bytes(CHUNK)))
    assert refused.value.details["expected_chunk_index"] == 2
    assert (await send(place, 2)).received_bytes == 3 * CHUNK
    await send(place, 3)
    await place.uploads.finish(UPLOAD_ID, place.publish, sha256=SHA256)


async def test_a_chunk_in_the_last_place_may_be_short(place: Place) -> None:
    await start(place)
    await send(place, 0, 1, 2)
    with pytest.raises(InvalidArguments, match="must hold 124"):
        await place.uploads.append(UPLOAD_ID, 3, encoded(bytes(CHUNK)))


async def test_a_repeated_chunk_is_compared(place: Place) -> None:
    await start(place)
    await send(place, 0, 1)
    assert (await send(place, 0)).next_chunk_index == 2
    with pytest.raises(Conflict, match="with other bytes") as refused:
        await place.uploads.append(UPLOAD_ID, 0, encoded(bytes(CHUNK)))
    assert refused.value.details["expected_chunk_index"] == 2


async def test_a_damaged_chunk_is_noticed_at_once(place: Place) -> None:
    await start(place)
    good = hashlib.sha256(DATA[:CHUNK]).hexdigest()
    with pytest.raises(InvalidArguments, match="damaged"):
        await place.uploads.append(UPLOAD_ID, 0, encoded(bytes(CHUNK)), good)
    assert (await place.uploads.append(UPLOAD_ID, 0, encoded(DATA[:CHUNK]), good.upper())).received_bytes == CHUNK


async def test_a_wrong_digest_refuses_and_keeps_the_bytes(place: Place) -> None:
    await start(place)
    await send(place, 0, 1, 2, 3)
    with pytest.raises(Conflict, match="another sha256") as refused:
        await place.uploads.finish(UPLOAD_ID, place.publish, sha256="0" * 64)
    assert refused.value.details["actual_sha256"] == SHA256
    unverified = await place.uploads.finish(UPLOAD_ID, place.publish, sha256="0" * 64, verify_checksum=False)
    assert not unverified.checksum_verified


async def test_the_digest_of_the_start_counts_too(place: Place) -> None:
    await start(place, sha256=SHA256)
    await send(place, 0, 1, 2, 3)
    with pytest.raises(InvalidArguments, match="not the one that the start gave"):
        await place.uploads.finish(UPLOAD_ID, place.publish, sha256="0" * 64)
    assert (await place.uploads.finish(UPLOAD_ID, place.publish)).checksum_verified


async def test_without_a_digest_nothing_counts_as_verified(place: Place) -> None:
    await start(place)
    await send(place, 0, 1, 2, 3)
    assert not (await place.uploads.finish(UPLOAD_ID, place.publish)).checksum_verified


async def test_a_finish_too_early_says_where_to_go_on(place: Place) -> None:
    await start(place)
    await send(place, 0)
    with pytest.raises(Conflict, match="724 of 1024 bytes are missing") as refused:
        await place.uploads.finish(UPLOAD_ID, place.publish)
    assert refused.value.details["next_chunk_index"] == 1


async def test_publishing_that_fails_leaves_the_upload_complete(place: Place) -> None:
    await start(place)
    await send(place, 0, 1, 2, 3)
    (place.folder / "a.bin").write_bytes(b"taken")
    with pytest.raises(Conflict, match="exists already"):
        await place.uploads.finish(UPLOAD_ID, place.publish)
    assert (await place.uploads.status(UPLOAD_ID)).state is State.COMPLETE
    (place.folder / "a.bin").unlink()
    await place.uploads.finish(UPLOAD_ID, place.publish)
    assert (place.folder / "a.bin").read_bytes() == DATA


async def test_a_death_between_publishing_and_the_answer_counts_as_published(place: Place) -> None:
    async def die_after(manifest: Manifest, part: Path, sha256: str) -> None:
        await place.publish(manifest, part, sha256)
        raise RuntimeError("the server is gone")

    await start(place)
    await send(place, 0, 1, 2, 3)
    with pytest.raises(RuntimeError, match="gone"):
        await place.uploads.finish(UPLOAD_ID, die_after, sha256=SHA256)
    place.reopen()
    assert (await place.uploads.status(UPLOAD_ID)).state is State.PUBLISHED
    assert (await place.uploads.finish(UPLOAD_ID, place.publish)).checksum_verified
    assert (place.folder / "a.bin").read_bytes() == DATA


async def test_a_death_between_the_two_names_of_a_published_file_is_made_good(place: Place) -> None:
    await start(place)
    await send(place, 0, 1, 2, 3)
    os.link(place.part, place.folder / "a.bin")
    await place.uploads.finish(UPLOAD_ID, place.publish)
    assert not place.part.exists()
    assert (place.folder / "a.bin").read_bytes() == DATA


async def test_a_file_that_is_published_stays_when_an_abort_died_halfway_and_its_id_begins_anew(place: Place) -> None:
    await start(place)
    await send(place, 0, 1, 2, 3)
    os.link(place.part, place.folder / "a.bin")
    place.part.with_name("manifest.json").unlink()
    place.reopen()
    assert (await start(place, filename="b.bin")).received_bytes == 0
    assert (place.folder / "a.bin").read_bytes() == DATA


async def test_an_abort_forgets_and_the_id_is_free_again(place: Place) -> None:
    await start(place)
    await send(place, 0)
    assert (await place.uploads.abort(UPLOAD_ID)).received_bytes == CHUNK
    with pytest.raises(NotFound, match="no upload"):
        await place.uploads.status(UPLOAD_ID)
    assert (await start(place, filename="other.bin")).received_bytes == 0
    assert [each.manifest.filename for each in await place.uploads.overview()] == ["other.bin"]


async def test_the_same_chunks_from_two_callers_at_once_are_one_file(place: Place) -> None:
    await start(place)
    other = Place(place.folder)
    answers: list[str] = []

    async def caller(place: Place) -> None:
        for index in range(4):
            await place.uploads.append(UPLOAD_ID, index, encoded(DATA[index * CHUNK : (index + 1) * CHUNK]))

    async def finisher(place: Place) -> None:
        answers.append((await place.uploads.finish(UPLOAD_ID, place.publish)).sha256)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller, place)
        tasks.start_soon(caller, other)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(finisher, place)
            tasks.start_soon(finisher, other)
    assert answers == [SHA256] * 6
    assert place.published + other.published == [SHA256]


async def test_a_lock_holds_against_another_process(place: Place) -> None:
    await start(place)
    script = (
        "import sys; from pathlib import Path; from mcp_toolserver.uploads.store import UploadStore\n"
        f"held = UploadStore(Path({str(place.folder / '.uploads')!r})).hold({UPLOAD_ID!r})\n"
        "print('held', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        await anyio.to_thread.run_sync(holder.stdout.readline)
        assert place.store.hold(UPLOAD_ID, wait=False) is None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, place, 0)
            await anyio.lowlevel.checkpoint()
            holder.stdin.close()
    assert (await place.uploads.status(UPLOAD_ID)).received_bytes == CHUNK


async def test_a_whole_file_in_one_piece_leaves_nothing_behind(place: Place) -> None:
    request = StartUpload(filename="a.bin", total_bytes=len(DATA), sha256=SHA256)
    assert (await place.uploads.receive_whole(request, DATA, place.publish)).checksum_verified
    assert (place.folder / "a.bin").read_bytes() == DATA
    with pytest.raises(Conflict, match="exists already"):
        await place.uploads.receive_whole(request, DATA, place.publish)
    assert await place.uploads.overview() == []


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        ("YW\nFi", "white space at character 2"),
        ("YW-i", "URL alphabet"),
        ("YWFiY", "no multiple of 4"),
        ("YQ==YQ==", "padding in the middle, at character 2"),
        ("YWé=", "character 2 is 'é'"),
        ("Y===", "its padding is wrong"),
    ],
)
async def test_bad_base64_is_refused_with_its_fault(place: Place, chunk: str, words: str) -> None:
    await start(place)
    with pytest.raises(InvalidArguments, match=words):
        await place.uploads.append(UPLOAD_ID, 0, chunk)


async def test_a_data_url_is_taken_and_a_huge_chunk_is_not(place: Place) -> None:
    await start(place)
    prefix = "data:application/octet-stream;base64,"
    assert (await place.uploads.append(UPLOAD_ID, 0, prefix + encoded(DATA[:CHUNK]))).received_bytes == CHUNK
    with pytest.raises(TooLarge, match="holds more than 4194304 bytes"):
        await place.uploads.append(UPLOAD_ID, 1, encoded(bytes(MAX_CHUNK_BYTES + 1)))


async def test_no_room_on_the_disk_is_said_before_a_byte_was_sent(place: Place) -> None:
    with pytest.raises(InsufficientStorage, match="do not fit") as refused:
        await start(place, total_bytes=2**60)
    assert refused.value.details["needed_bytes"] == 2**60
    assert await place.uploads.overview() == []


async def test_a_disk_that_fills_up_loses_nothing_and_is_resumed(place: Place) -> None:
    await start(place)
    await send(place, 0, 1)
    with largest_file(2 * CHUNK + 10), pytest.raises(InsufficientStorage):
        await send(place, 2)
    assert (await place.uploads.status(UPLOAD_ID)).received_bytes == 2 * CHUNK + 10, "what fitted counts"
    assert (await send(place, 2, 3)).complete
    await place.uploads.finish(UPLOAD_ID, place.publish, sha256=SHA256)


@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, InsufficientStorage), (errno.EROFS, Forbidden), (errno.EACCES, Forbidden)]
)
def test_what_the_disk_refuses_has_a_name(code: int, error: type[ToolError]) -> None:
    with pytest.raises(error), disk_errors():
        raise OSError(code, os.strerror(code))


def test_what_is_no_fault_of_the_disk_is_not_renamed() -> None:
    with pytest.raises(IsADirectoryError), disk_errors():
        raise IsADirectoryError(errno.EISDIR, "a folder")
