"""Whatever callers, crashes and repetitions do, an upload ends with the very bytes or with a clear refusal."""

import hashlib
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound
from mcp_toolserver.uploads.progress import StartUpload, UploadProgress
from tests.unit.uploads.conftest import UPLOAD_ID, Place, encoded


class AnyOrder(RuleBasedStateMachine):
    """Model: how many chunks were acknowledged, and whether the file was published."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.place = Place(self.folder)
        self.data = b""
        self.chunk_bytes = 1
        self.started = False
        self.acknowledged = 0
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

    @rule()
    def start(self) -> None:
        request = StartUpload(
            filename="file.bin", total_bytes=len(self.data), upload_id=UPLOAD_ID, chunk_bytes=self.chunk_bytes
        )
        progress: UploadProgress = self.ask("start", request)
        self.started = True
        assert progress.next_chunk_index >= self.acknowledged, "an acknowledged chunk was lost"
        self.acknowledged = progress.next_chunk_index

    @rule(index=st.integers(0, 70), lies=st.booleans())
    def append(self, index: int, lies: bool) -> None:
        sent = self.chunk(index)
        sent = bytes([sent[0] ^ 1]) + sent[1:] if lies and sent and index < self.acknowledged else sent
        try:
            progress: UploadProgress = self.ask("append", UPLOAD_ID, index, encoded(sent))
        except NotFound:
            assert not self.started
        except InvalidArguments:
            assert index >= self.total_chunks
        except Conflict as refusal:
            assert self.published or index > self.acknowledged or sent != self.chunk(index)
            assert self.published or refusal.details["expected_chunk_index"] == self.acknowledged
        else:
            assert self.is_open
            assert sent == self.chunk(index)
            self.acknowledged = max(self.acknowledged, index + 1)
            assert progress.next_chunk_index == self.acknowledged

    @precondition(lambda self: self.is_open and self.acknowledged < self.total_chunks)
    @rule()
    def append_the_next(self) -> None:
        self.append(self.acknowledged, lies=False)

    @precondition(lambda self: self.is_open and self.acknowledged < self.total_chunks)
    @rule(torn=st.integers(0, 12), garbage=st.booleans())
    def die_while_writing(self, torn: int, garbage: bool) -> None:
        chunk = self.chunk(self.acknowledged)
        torn = min(torn, len(chunk) - 1)
        with self.place.part.open("rb+") as part:
            part.truncate(self.acknowledged * self.chunk_bytes)
            part.seek(0, os.SEEK_END)
            part.write(bytes(torn) if garbage else chunk[:torn])
        self.place.reopen()

    @precondition(lambda self: self.is_open and self.acknowledged < self.total_chunks)
    @rule()
    def die_before_the_answer(self) -> None:
        self.ask("append", UPLOAD_ID, self.acknowledged, encoded(self.chunk(self.acknowledged)))
        self.acknowledged += 1
        self.place.reopen()

    @rule()
    def finish(self) -> None:
        digest = hashlib.sha256(self.data).hexdigest()
        try:
            receipt = self.ask("finish", UPLOAD_ID, self.place.publish, sha256=digest)
        except NotFound:
            assert not self.started
        except Conflict as refusal:
            assert self.is_open
            assert refusal.details["next_chunk_index"] == self.acknowledged < self.total_chunks
        else:
            assert (receipt.sha256, receipt.checksum_verified) == (digest, True)
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
            self.started, self.acknowledged = False, 0

    @invariant()
    def nothing_is_visible_but_the_whole_file(self) -> None:
        visible = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        assert [path.name for path in visible] == (["file.bin"] if self.published else [])
        assert all(path.read_bytes() == self.data for path in visible)


AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase
