"""Trying again: only what may succeed, with growing waits, and without end while there is progress."""

import pytest

from mcp_toolserver.errors import BackendUnavailable, Conflict, ToolError
from mcp_toolserver.retries import Patience, patiently

QUICK = Patience(retries=2, first_wait_s=0.0)


class Flaky:
    """Fail as often as told, and then succeed."""

    def __init__(self, *errors: ToolError) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.done_bytes = 0.0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_what_may_succeed_is_tried_again_and_told() -> None:
    told: list[str] = []
    work = Flaky(BackendUnavailable("one"), BackendUnavailable("two"))
    assert await patiently(work, QUICK, failed=lambda error, wait_s: told.append(error.message)) == "done"
    assert told == ["one", "two"]


async def test_patience_ends() -> None:
    work = Flaky(*[BackendUnavailable("again")] * 9)
    with pytest.raises(BackendUnavailable):
        await patiently(work, QUICK)
    assert work.calls == 3


async def test_what_cannot_succeed_is_tried_once() -> None:
    work = Flaky(Conflict("taken"))
    with pytest.raises(Conflict):
        await patiently(work, QUICK)
    assert work.calls == 1


async def test_progress_renews_patience() -> None:
    work = Flaky(*[BackendUnavailable("cut")] * 9)
    assert await patiently(work, QUICK, progress=lambda: work.calls) == "done"
    assert work.calls == 10


def test_waits_grow_up_to_a_limit_and_are_spread() -> None:
    patience = Patience(first_wait_s=1.0, longest_wait_s=5.0)
    for failures, longest in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (50, 5.0)):
        waits = {patience.wait_s(failures) for _ in range(20)}
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(waits) > 1
