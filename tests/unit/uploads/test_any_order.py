"""Whatever callers, crashes and repetitions do, an upload ends with the very bytes or with a clear refusal."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound
from mcp_toolserver.uploads.checksums import Checksum, ChecksumMismatch
from mcp_toolserver.uploads.digests import DigestMismatch
from mcp_toolserver.uploads.progress import StartUpload, UploadProgress
from tests.unit.uploads.conftest import UPLOAD_ID, Place, encoded


async def pieces_of(data: bytes) -> AsyncIterator[bytes]:
    """Send bytes one after the other."""
    for position in range(0, len(data), 5):
        yield data[position : position + 5]


class AnyOrder(RuleBasedStateMachine):
    """Model: how many bytes have arrived, whether the last of them are zeros that a power cut left, and the outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.place = Place(self.folder)
        self.data = b""
        self.chunk_bytes = 1
        self.started = False
        self.received = 0
        self.damaged_from: int | None = None
        self.restarted = False
        self.published = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def ask(self, name: str, *given: Any, **named: Any) -> Any:
        """Call a coroutine method of the uploads."""
        return anyio.run(partial(getattr(self.place.uploads, name), *given, **named))

    def chunk(self, index: int) -> bytes:
        return self.data[index * self.chunk_bytes : (index + 1) * self.chunk_bytes]

    @property
    def total_chunks(self) -> int:
        return -(-len(self.data) // self.chunk_bytes)

    @property
    def is_open(self) -> bool:
        return self.started and not self.published

    @initialize(data=st.binary(min_size=1, max_size=60), chunk_bytes=st.integers(1, 12))
    def draw_a_file(self, data: bytes, chunk_bytes: int) -> None:
        self.data, self.chunk_bytes = data, chunk_bytes

    @property
    def is_intact(self) -> bool:
        return self.damaged_from is None

    @property
    def next_index(self) -> int:
        return self.total_chunks if self.received == len(self.data) else self.received // self.chunk_bytes

    @rule()
    def start(self) -> None:
        request = StartUpload(
            filename="file.bin", total_bytes=len(self.data), upload_id=UPLOAD_ID, chunk_bytes=self.chunk_bytes
        )
        progress: UploadProgress = self.ask("start", request)
        self.started = True
        assert progress.received_bytes == self.received, "an acknowledged byte was lost"
        assert progress.next_chunk_index == self.next_index

    @rule(index=st.integers(0, 70), lies=st.booleans())
    def append(self, index: int, lies: bool) -> None:
        sent = self.chunk(index)
        sent = bytes([sent[0] ^ 1]) + sent[1:] if lies and sent and index * self.chunk_bytes < self.received else sent
        end = (index + 1) * self.chunk_bytes
        try:
            progress: UploadProgress = self.ask("append", UPLOAD_ID, index, encoded(sent))
        except NotFound:
            assert not self.started
        except InvalidArguments:
            assert index >= self.total_chunks
        except Conflict as refusal:
            is_repeated_damage = self.damaged_from is not None and end > self.damaged_from
            assert self.published or index > self.next_index or sent != self.chunk(index) or is_repeated_damage
            assert self.published or refusal.details["expected_chunk_index"] == self.next_index
        else:
            assert self.is_open
            assert sent == self.chunk(index)
            self.received = max(self.received, min(end, len(self.data)))
            assert (progress.received_bytes, progress.next_chunk_index) == (self.received, self.next_index)

    @precondition(lambda self: self.is_open and self.received < len(self.data))
    @rule()
    def append_the_next(self) -> None:
        self.append(self.next_index, lies=False)

    @rule(size=st.integers(0, 20), gap=st.sampled_from([0, 0, 0, 1, -1]), is_checked=st.booleans())
    def stream(self, size: int, gap: int, is_checked: bool) -> None:
        offset = max(0, self.received + gap)
        sent = self.data[offset : offset + size]
        checksum = Checksum("sha1 " + encoded(hashlib.sha1(sent).digest())) if is_checked else None
        try:
            progress: UploadProgress = self.ask("receive", UPLOAD_ID, offset, pieces_of(sent), checksum=checksum)
        except NotFound:
            assert not self.started
        except Conflict:
            assert self.published or offset != self.received
        else:
            assert self.is_open
            self.received += len(sent)
            assert progress.received_bytes == self.received

    @precondition(lambda self: self.is_open and self.received < len(self.data))
    @rule(size=st.integers(1, 20))
    def stream_something_else_than_its_checksum(self, size: int) -> None:
        checksum = Checksum("sha256 " + encoded(hashlib.sha256(b"else").digest()))
        body = pieces_of(self.data[self.received : self.received + size])
        with pytest.raises(ChecksumMismatch):
            self.ask("receive", UPLOAD_ID, self.received, body, checksum=checksum)

    @precondition(lambda self: self.is_open and self.received < len(self.data))
    @rule(torn=st.integers(0, 12))
    def die_while_writing(self, torn: int) -> None:
        torn = min(torn, len(self.data) - self.received)
        # As everybody does before appending.
        self.place.store.look(UPLOAD_ID).discard_unverified()
        with self.place.part.open("ab") as part:
            part.write(self.data[self.received : self.received + torn])
        self.received += torn
        self.place.reopen()

    @precondition(lambda self: self.is_open and self.received < len(self.data))
    @rule(torn=st.binary(max_size=12))
    def die_before_a_checksum_is_compared(self, torn: bytes) -> None:
        self.place.store.look(UPLOAD_ID).doubt(self.received)
        with self.place.part.open("ab") as part:
            part.write(torn)
        self.place.reopen()

    @precondition(lambda self: self.is_open and self.received < len(self.data))
    @rule(torn=st.integers(0, 12))
    def lose_power_while_writing(self, torn: int) -> None:
        torn = min(torn, len(self.data) - self.received)
        # As everybody does before appending.
        self.place.store.look(UPLOAD_ID).discard_unverified()
        with self.place.part.open("ab") as part:
            part.write(bytes(torn))
        if self.is_intact and self.data[self.received : self.received + torn] != bytes(torn):
            self.damaged_from = self.received
        self.received += torn
        manifest = self.place.part.with_name("manifest.json")
        told = json.loads(manifest.read_bytes())
        manifest.write_text(json.dumps(told | {"boot_id": "an earlier run of this machine"}))
        self.restarted = True
        self.place.reopen()

    @precondition(lambda self: self.is_open and self.received < len(self.data))
    @rule()
    def die_before_the_answer(self) -> None:
        self.append_the_next()
        self.place.reopen()

    @rule()
    def finish_without_a_digest(self) -> None:
        try:
            receipt = self.ask("finish", UPLOAD_ID, self.place.publish)
        except NotFound:
            assert not self.started
        except Conflict:
            assert self.is_open
            assert self.received < len(self.data) or self.restarted
        else:
            assert receipt.sha256 == hashlib.sha256(self.data).hexdigest()
            self.published = True

    @rule()
    def finish(self) -> None:
        digest = hashlib.sha256(self.data).hexdigest()
        try:
            receipt = self.ask("finish", UPLOAD_ID, self.place.publish, sha256=digest)
        except NotFound:
            assert not self.started
        except DigestMismatch:
            assert self.received == len(self.data)
            assert not self.is_intact
        except Conflict as refusal:
            assert self.is_open
            assert refusal.details["next_chunk_index"] == self.next_index < self.total_chunks
        else:
            assert receipt.sha256 == digest
            self.published = True

    @rule()
    def abort(self) -> None:
        try:
            self.ask("abort", UPLOAD_ID)
        except NotFound:
            assert not self.started
        except Conflict:
            assert self.published
        else:
            self.started, self.received, self.damaged_from, self.restarted = False, 0, None, False

    @invariant()
    def nothing_is_visible_but_the_whole_file(self) -> None:
        visible = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        assert [path.name for path in visible] == (["file.bin"] if self.published else [])
        assert all(path.read_bytes() == self.data for path in visible)


AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase
