"""Run one upload again and again, and let the disk or the process fail at every effect in turn: a program of its own.

`python -m tests.unit.uploads.disk_fault_loop FAULT WAY FOLDER`; FAULT is `die-before`, `die-after`, `full` or
`read-only`; WAY is `parts`, or `whole` for one call, which replaces a LoRA that is there. Prints how many effects had
their turn. It forks, and so has no threads itself.
"""

import errno
import hashlib
import mmap
import os
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import numpy as np

from comfy_mcp.loras.uploads import LoraUploads
from mcp_toolserver.errors import Forbidden, InsufficientStorage
from mcp_toolserver.uploads.checksums import Checksum
from mcp_toolserver.uploads.past_cache import BLOCK_BYTES, WORTH_IT_BYTES
from mcp_toolserver.uploads.plan import State
from mcp_toolserver.uploads.progress import StartUpload
from tests.fakes.disk_faults import FaultAt
from tests.servers.loras import TINY, library_over
from tests.unit.lora_files.files import Tensors, pairs, write
from tests.unit.uploads.conftest import UPLOAD_ID, encoded

DIED = 9
_LARGE_RANK = 2500
_OLD = {"cat.safetensors": b"an older one"}


class Ledger:
    """What a caller was told, in memory that outlives the process which it was told by."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    @property
    def received_bytes(self) -> int:
        """Return how many bytes were acknowledged."""
        return int.from_bytes(self._shared[:8])

    def note(self, received_bytes: int) -> None:
        """Keep an acknowledgement."""
        assert received_bytes >= self.received_bytes, "an acknowledged byte was lost"
        self._shared[:8] = received_bytes.to_bytes(8)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """Send bytes in pieces."""
    for position in range(0, len(data), 10_000):
        yield data[position : position + 10_000]


async def upload(loras: Path, data: bytes, told: Ledger) -> None:
    """Begin or resume, send by chunks and streams in turn, and finish."""
    uploads = LoraUploads(library_over([loras]))
    chunk_bytes = len(data) // 3
    request = StartUpload(
        filename="cat.safetensors",
        total_bytes=len(data),
        upload_id=UPLOAD_ID,
        chunk_bytes=chunk_bytes,
        sha256=hashlib.sha256(data).hexdigest(),
        metadata={"trained": "today"},
    )
    progress = await uploads.start(request)
    told.note(progress.received_bytes)
    store = await uploads.uploads()
    while progress.state is State.RECEIVING:
        received = progress.received_bytes
        if received % chunk_bytes == 0:
            end = min(len(data), received + chunk_bytes // 2)
            digest = encoded(hashlib.sha256(data[received:end]).digest())
            checksum = Checksum(f"sha256 {digest}") if received == 0 else None
            progress = await store.receive(UPLOAD_ID, received, pieces(data[received:end]), checksum=checksum)
        else:
            index = progress.next_chunk_index
            chunk = data[index * chunk_bytes : (index + 1) * chunk_bytes]
            progress = await store.append(UPLOAD_ID, index, encoded(chunk))
        told.note(progress.received_bytes)
    done = await uploads.finish(UPLOAD_ID, sha256=None, verify_checksum=True)
    assert done.receipt.checksum_verified
    assert done.lora.supplied == {"trained": "today"}


async def replace_whole(loras: Path, data: bytes, told: Ledger) -> None:
    """Send everything in one call, in the place of what is there."""
    request = StartUpload(
        filename="cat.safetensors", total_bytes=len(data), overwrite=True, metadata={"trained": "today"}
    )
    done = await LoraUploads(library_over([loras])).receive_whole(request, data)
    assert done.lora.supplied == {"trained": "today"}


Send = Callable[[Path, bytes, Ledger], Awaitable[None]]
WAYS: dict[str, Send] = {"parts": upload, "whole": replace_whole}


async def send_in_spite(
    at: FaultAt, error: type[Exception], send: Send, loras: Path, data: bytes, told: Ledger
) -> None:
    """Send, and once more after the error that the fault is to become; any other is a defect."""
    try:
        await send(loras, data, told)
    except error:
        assert visible(loras) in ({}, _OLD, {"cat.safetensors": data})
        store = await LoraUploads(library_over([loras])).uploads()
        progress = await store.find(UPLOAD_ID)
        received = progress.received_bytes if progress else 0
        assert received >= told.received_bytes
        assert at.effect is not os.fdatasync or received == told.received_bytes, "bytes count that nothing confirmed"
        await send(loras, data, told)


def visible(loras: Path) -> dict[str, bytes]:
    """Return what ComfyUI would see."""
    return {path.name: path.read_bytes() for path in loras.glob("*.safetensors")}


def in_a_child(fault: str, send: Send, nth: int, loras: Path, data: bytes, told: Ledger) -> int:
    """Run the upload in a process of its own with a fault at the n-th effect (0: none); returns its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        status = with_fault(fault, send, nth, loras, data, told)
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def with_fault(fault: str, send: Send, nth: int, loras: Path, data: bytes, told: Ledger) -> int:
    """Run the upload with a fault; returns 0, or 3 when there were fewer effects than that."""

    def refuse(code: int) -> None:
        raise OSError(code, os.strerror(code))

    if nth == 0:
        anyio.run(send, loras, data, told)
        return 0
    if fault.startswith("die"):
        at = FaultAt(nth, partial(os._exit, DIED), after=fault == "die-after")
        anyio.run(send, loras, data, told)
    else:
        code = errno.ENOSPC if fault == "full" else errno.EROFS
        at = FaultAt(nth, partial(refuse, code), only_writing=True)
        error = InsufficientStorage if fault == "full" else Forbidden
        anyio.run(send_in_spite, at, error, send, loras, data, told)
    return 0 if at.happened else 3


def loop(fault: str, way: str, folder: Path) -> int:
    """Give every effect its turn; returns how many there were."""
    # Large enough that its parts go past the page cache, and no two blocks are alike.
    dice = np.random.default_rng(1)
    tensors: Tensors = {
        name: dice.random(tensor.shape).astype(np.float16) for name, tensor in pairs(TINY, rank=_LARGE_RANK).items()
    }
    data = write(folder / "source.safetensors", tensors).read_bytes()
    assert len(data) // 6 > WORTH_IT_BYTES + BLOCK_BYTES
    nth = 0
    while True:
        nth += 1
        loras = folder / f"{nth}" / "loras"
        loras.mkdir(parents=True)
        before = _OLD if way == "whole" else {}
        for name, content in before.items():
            (loras / name).write_bytes(content)
        told = Ledger()
        status = in_a_child(fault, WAYS[way], nth, loras, data, told)
        if status == DIED:
            assert visible(loras) in (before, {"cat.safetensors": data}), f"effect {nth}: a partial file is visible"
            status = in_a_child(fault, WAYS[way], 0, loras, data, told)
        assert status in (0, 3), f"effect {nth}: failed"
        assert visible(loras) == {"cat.safetensors": data}, f"effect {nth}: another file"
        if status == 3:
            return nth - 1


if __name__ == "__main__":
    print(loop(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
