"""The plan of a chunked upload: which bytes belong to which chunk, and what follows what."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound
from mcp_toolserver.uploads.plan import (
    NEXT,
    ChunkPlan,
    Event,
    State,
    Step,
    incomplete,
    next_step,
    require,
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
@given(plans, st.integers(0, 20_000))
def test_bytes_that_count_end_with_a_whole_chunk(plan: ChunkPlan, on_disk: int) -> None:
    whole = plan.whole_bytes(on_disk)
    assert whole <= on_disk
    assert plan.offset_of(plan.next_index(whole)) == whole or whole == plan.total_bytes
    assert plan.whole_bytes(whole) == whole
    assert on_disk - whole < plan.chunk_bytes or on_disk > plan.total_bytes


@settings(deadline=None)
@given(plans, st.data())
def test_a_chunk_is_written_once_compared_before_and_refused_beyond(plan: ChunkPlan, data: st.DataObject) -> None:
    expected = data.draw(st.integers(0, plan.total_chunks))
    received = min(plan.offset_of(expected), plan.total_bytes)
    index = data.draw(st.integers(0, plan.total_chunks - 1))
    if index > expected:
        with pytest.raises(Conflict) as refused:
            next_step(plan, received, index, plan.size_of(index))
        assert refused.value.details["expected_chunk_index"] == expected
    else:
        step = next_step(plan, received, index, plan.size_of(index))
        assert step is (Step.WRITE if index == expected else Step.COMPARE)


@settings(deadline=None)
@given(plans, st.data())
def test_a_chunk_of_another_size_is_refused_with_the_right_one(plan: ChunkPlan, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, plan.total_chunks - 1))
    size = data.draw(st.integers(0, 6_000).filter(lambda size: size != plan.size_of(index)))
    with pytest.raises(InvalidArguments) as refused:
        next_step(plan, 0, index, size)
    assert refused.value.details["expected_size_bytes"] == plan.size_of(index)


def test_an_index_past_the_last_chunk_is_refused_with_the_range() -> None:
    with pytest.raises(InvalidArguments, match="has 3 chunks, 0 to 2"):
        next_step(ChunkPlan(10, 4), 0, 3, 4)


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
