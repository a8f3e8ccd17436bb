"""The plan of a chunked upload: which bytes belong to which chunk, and what follows what."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, TooLarge
from mcp_toolserver.uploads.plan import (
    NEXT,
    ChunkPlan,
    Event,
    State,
    incomplete,
    known_bytes,
    require,
    require_offset,
    require_room,
    state_of,
)

plans = st.builds(ChunkPlan, st.integers(1, 10_000), st.integers(1, 3_000))


@settings(deadline=None)
@given(plans)
def test_the_chunks_are_the_file_without_gap_or_overlap(plan: ChunkPlan) -> None:
    position = 0
    for index in range(plan.total_chunks):
        assert plan.offset_of(index) == position
        assert 1 <= plan.size_of(index) <= plan.chunk_bytes
        position += plan.size_of(index)
    assert position == plan.total_bytes


@settings(deadline=None)
@given(plans, st.data())
def test_the_next_chunk_holds_the_first_missing_byte(plan: ChunkPlan, data: st.DataObject) -> None:
    received = data.draw(st.integers(0, plan.total_bytes))
    index = plan.next_index(received)
    if received == plan.total_bytes:
        assert index == plan.total_chunks
    else:
        assert plan.offset_of(index) <= received < plan.offset_of(index) + plan.size_of(index)


@settings(deadline=None)
@given(plans, st.data())
def test_of_a_chunk_the_bytes_that_arrived_are_known_and_a_gap_is_refused(plan: ChunkPlan, data: st.DataObject) -> None:
    received = data.draw(st.integers(0, plan.total_bytes))
    index = data.draw(st.integers(0, plan.total_chunks - 1))
    expected, size = plan.next_index(received), plan.size_of(index)
    if index > expected:
        with pytest.raises(Conflict) as refused:
            known_bytes(plan, received, index, size)
        assert refused.value.details["expected_chunk_index"] == expected
    else:
        known = known_bytes(plan, received, index, size)
        assert 0 <= known <= size
        assert (known == size) == (index < expected)
        assert known == size or plan.offset_of(index) + known == received


def test_a_stream_goes_on_where_the_bytes_end_and_nowhere_else() -> None:
    plan = ChunkPlan(10, 4)
    require_offset(plan, 7, 7)
    for offset in (0, 4, 8, 10, 2**70):
        with pytest.raises(Conflict, match="7 bytes have arrived") as refused:
            require_offset(plan, 7, offset)
        assert refused.value.details["received_bytes"] == 7


def test_no_byte_lies_behind_the_end_that_was_announced() -> None:
    require_room(ChunkPlan(10, 4), 10)
    with pytest.raises(TooLarge, match="announced with 10 bytes"):
        require_room(ChunkPlan(10, 4), 11)


@settings(deadline=None)
@given(plans, st.data())
def test_a_chunk_of_another_size_is_refused_with_the_right_one(plan: ChunkPlan, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, plan.total_chunks - 1))
    size = data.draw(st.integers(0, 6_000).filter(lambda size: size != plan.size_of(index)))
    with pytest.raises(InvalidArguments) as refused:
        known_bytes(plan, 0, index, size)
    assert refused.value.details["expected_size_bytes"] == plan.size_of(index)


def test_an_index_past_the_last_chunk_is_refused_with_the_range() -> None:
    with pytest.raises(InvalidArguments, match="has 3 chunks, 0 to 2"):
        known_bytes(ChunkPlan(10, 4), 0, 3, 4)


def test_a_finish_too_early_says_what_is_missing() -> None:
    refusal = incomplete(ChunkPlan(10, 4), 4)
    assert refusal.message == "6 of 10 bytes are missing."
    assert (refusal.details["missing_bytes"], refusal.details["next_chunk_index"]) == (6, 1)
    assert refusal.hint == "Send chunks 1 to 2, then finish again."


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_the_table_decides_what_may_be_asked(state: State, event: Event) -> None:
    if (state, event) in NEXT:
        require(state, event, "x")
    else:
        with pytest.raises(NotFound if state is State.ABSENT else Conflict):
            require(state, event, "x")


def test_every_state_can_be_reached_and_left() -> None:
    reached = {state for states in NEXT.values() for state in states}
    assert reached == set(State)
    assert {state for state, _ in NEXT} == set(State)


def test_the_state_is_derived_from_what_lies_on_disk() -> None:
    plan = ChunkPlan(10, 4)
    assert state_of(None, None, has_receipt=False) is State.ABSENT
    assert state_of(plan, 8, has_receipt=False) is State.RECEIVING
    assert state_of(plan, 10, has_receipt=False) is State.COMPLETE
    assert state_of(plan, 10, has_receipt=True) is State.COMPLETE, "a publication that failed"
    assert state_of(plan, None, has_receipt=True) is State.PUBLISHED
    assert state_of(plan, None, has_receipt=False) is State.RECEIVING, "somebody took the bytes away"
