"""Decide what a chunked upload does next; pure, from numbers alone. The store keeps the bytes.

    state        start       append                  finish               take        abort
    ─────────    ─────────   ─────────────────────   ──────────────────   ─────────   ───────
    absent       receiving   refused                 refused              refused     refused
    receiving    (resumed)   receiving or complete   refused: incomplete  refused     absent
    complete     (resumed)   complete (repeats)      published            published   absent
    published    (answered)  refused                 (answered)           refused     refused

What is in brackets changes nothing: the same question gets the same answer, so that a caller who lost an answer may
always ask again. `NEXT` is this table as data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, TooLarge


class State(Enum):
    """Where an upload is. The values are the words of the wire; `absent` never crosses it."""

    ABSENT = "absent"
    RECEIVING = "receiving"
    COMPLETE = "complete"
    PUBLISHED = "published"


class Event(Enum):
    """What a caller may ask of an upload."""

    START = "start"
    APPEND = "append"
    FINISH = "finish"
    TAKE = "take"
    ABORT = "abort"


NEXT: Mapping[tuple[State, Event], frozenset[State]] = MappingProxyType(
    {
        (State.ABSENT, Event.START): frozenset({State.RECEIVING}),
        (State.RECEIVING, Event.START): frozenset({State.RECEIVING}),
        (State.RECEIVING, Event.APPEND): frozenset({State.RECEIVING, State.COMPLETE}),
        (State.RECEIVING, Event.ABORT): frozenset({State.ABSENT}),
        (State.COMPLETE, Event.START): frozenset({State.COMPLETE}),
        (State.COMPLETE, Event.APPEND): frozenset({State.COMPLETE}),
        (State.COMPLETE, Event.FINISH): frozenset({State.PUBLISHED}),
        (State.COMPLETE, Event.TAKE): frozenset({State.PUBLISHED}),
        (State.COMPLETE, Event.ABORT): frozenset({State.ABSENT}),
        (State.PUBLISHED, Event.START): frozenset({State.PUBLISHED}),
        (State.PUBLISHED, Event.FINISH): frozenset({State.PUBLISHED}),
    }
)
"""State and event to the states that may follow; a pair that is missing is refused."""


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """Say which bytes belong to which chunk of a file; all chunks are alike but the last, which holds the rest."""

    total_bytes: int
    chunk_bytes: int

    @property
    def total_chunks(self) -> int:
        """Return how many chunks make the file."""
        return -(-self.total_bytes // self.chunk_bytes)

    def offset_of(self, index: int) -> int:
        """Return where a chunk begins, in bytes."""
        return index * self.chunk_bytes

    def size_of(self, index: int) -> int:
        """Return how many bytes a chunk must have."""
        return min(self.chunk_bytes, self.total_bytes - self.offset_of(index))

    def next_index(self, received_bytes: int) -> int:
        """Return the index of the chunk to send next, which holds the first missing byte; `total_chunks` at the end."""
        return self.total_chunks if received_bytes >= self.total_bytes else received_bytes // self.chunk_bytes


def state_of(plan: ChunkPlan | None, received_bytes: int | None, *, has_receipt: bool) -> State:
    """Derive the state from what is on disk: the plan of the manifest, the bytes that count, and the receipt.

    The receipt is written before the file is published, and publishing takes the bytes away: a receipt alone is a
    published file, a receipt beside bytes is a publication that failed or never happened.
    """
    if plan is None:
        return State.ABSENT
    if received_bytes is None:
        return State.PUBLISHED if has_receipt else State.RECEIVING
    return State.COMPLETE if received_bytes == plan.total_bytes else State.RECEIVING


def require(state: State, event: Event, upload_id: str) -> None:
    """Raise NotFound or Conflict when `NEXT` has no such step."""
    if (state, event) in NEXT:
        return
    if state is State.ABSENT:
        raise absent(upload_id)
    raise Conflict(
        f"Upload `{upload_id}` is {state.value}: there is nothing to {event.value}.",
        hint="To send another file, start an upload with another `upload_id`.",
        details={"upload_id": upload_id, "status": state.value},
    )


def absent(upload_id: str) -> NotFound:
    """Return the refusal of anything but a start, when there is no such upload."""
    return NotFound(
        f"There is no upload `{upload_id}`.",
        hint="It was never started, was aborted, or was swept as too old: start it (again).",
        details={"upload_id": upload_id},
    )


class Locked(Conflict):
    """Ask the caller to come back when another request has let go of an upload."""

    status = 423
    retryable = True


def locked(upload_id: str) -> Locked:
    """Return the refusal of whatever would build on bytes, or drop them, that another request may discard."""
    return Locked(
        f"Another request works on upload `{upload_id}`.",
        hint="Wait until it is over, ask for the offset (HEAD), then go on.",
        details={"upload_id": upload_id},
    )


def known_bytes(plan: ChunkPlan, received_bytes: int, index: int, size_bytes: int) -> int:
    """Return how many of a chunk's first bytes have arrived before: they are compared, and the others are appended.

    All of them have when a chunk is repeated; some, when other ways in have left the upload in the middle of a chunk.
    Raises Conflict for a gap, and InvalidArguments for an index or a size that this upload cannot have.
    """
    expected = plan.next_index(received_bytes)
    if index >= plan.total_chunks:
        raise InvalidArguments(
            f"`chunk_index` is {index}, but this upload has {plan.total_chunks} chunks, 0 to {plan.total_chunks - 1}.",
            hint="Indices begin at 0; `total_size` and `chunk_size` of the start decide how many there are.",
            details={
                "chunk_index": index,
                "expected_chunk_index": expected,
                "total_chunks": plan.total_chunks,
                "chunk_size": plan.chunk_bytes,
            },
        )
    if size_bytes != plan.size_of(index):
        raise InvalidArguments(
            f"Chunk {index} holds {size_bytes} bytes, but it must hold {plan.size_of(index)}.",
            hint=f"Cut the file every {plan.chunk_bytes} bytes (only the last chunk is shorter), "
            "or start an upload with the `chunk_size` that you send.",
            details={
                "chunk_index": index,
                "size_bytes": size_bytes,
                "expected_size_bytes": plan.size_of(index),
                "chunk_size": plan.chunk_bytes,
                "total_size": plan.total_bytes,
            },
        )
    if index > expected:
        raise Conflict(
            f"Chunk {index} came, but chunk {expected} is the next one.",
            hint=f"Send chunk {expected} first; chunks are taken in order.",
            details={"chunk_index": index, "expected_chunk_index": expected, "received_bytes": received_bytes},
        )
    return min(size_bytes, max(0, received_bytes - plan.offset_of(index)))


def other_bytes(plan: ChunkPlan, received_bytes: int, index: int) -> Conflict:
    """Return the refusal of a repeated chunk that differs from what arrived under its index."""
    expected = plan.next_index(received_bytes)
    return Conflict(
        f"Chunk {index} came before, with other bytes.",
        hint=f"Go on with chunk {expected}; if the file itself changed, abort this upload and start another.",
        details={"chunk_index": index, "expected_chunk_index": expected, "received_bytes": received_bytes},
    )


def require_offset(plan: ChunkPlan, received_bytes: int, offset: int) -> None:
    """Raise Conflict when a caller goes on anywhere but at the end of what has arrived."""
    if offset != received_bytes:
        raise Conflict(
            f"The bytes sent begin at {offset}, but {received_bytes} bytes have arrived.",
            hint=f"Go on at {received_bytes}: ask for the offset (HEAD), then send from there.",
            details={"offset": offset, "received_bytes": received_bytes, "total_size": plan.total_bytes},
        )


def require_room(plan: ChunkPlan, end: int) -> None:
    """Raise TooLarge when bytes would lie behind the end that the start announced."""
    if end > plan.total_bytes:
        raise TooLarge(
            f"The upload was announced with {plan.total_bytes} bytes, and more than that were sent.",
            hint="Start an upload of the right size; of this one, what `HEAD` or its status counts has arrived.",
            details={"total_size": plan.total_bytes},
        )


def incomplete(plan: ChunkPlan, received_bytes: int) -> Conflict:
    """Return the refusal to finish a file of which bytes are missing, and say how many."""
    expected = plan.next_index(received_bytes)
    missing = plan.total_bytes - received_bytes
    return Conflict(
        f"{missing} of {plan.total_bytes} bytes are missing.",
        hint=f"Send chunks {expected} to {plan.total_chunks - 1}, then finish again.",
        details={
            "missing_bytes": missing,
            "received_bytes": received_bytes,
            "total_size": plan.total_bytes,
            "next_chunk_index": expected,
            "expected_chunk_index": expected,
            "total_chunks": plan.total_chunks,
        },
    )
