from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mix import BASE
from gateway.admission.fair_queue import FairQueue
from gateway.admission.pace import Pace
from gateway.admission.places import Places
from kiki.errors import QueueFullError


def places(rows: int = 2, limit: int = 10) -> Places:
    return Places(rows, FairQueue(limit, bypass=2))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Held:
    """A request that keeps its places until it is told to go."""

    def __init__(self, at: Places, tenant: str = "a", rows: int = 1, *, began: bool = False):
        self.runs = False
        self.go = asyncio.Event()
        self.task = asyncio.create_task(self._hold(at, tenant, rows, began))

    async def _hold(self, at: Places, tenant: str, rows: int, began: bool) -> None:
        async with at.hold(tenant, rows, BASE, began=began):
            self.runs = True
            await self.go.wait()
        self.runs = False

    async def end(self) -> None:
        self.go.set()
        await self.task


async def test_so_many_rows_run_and_the_others_wait():
    at = places(rows=2)
    held = [Held(at) for _ in range(4)]
    await settled()
    assert [one.runs for one in held] == [True, True, False, False]
    assert (at.rows_running, at.waiting) == (2, 2)
    await held[0].end()
    await settled()
    assert [one.runs for one in held[1:]] == [True, True, False]
    for one in held[1:]:
        await one.end()
    assert (at.rows_running, at.waiting) == (0, 0)


async def test_more_rows_than_there_are_run_alone():
    at = places(rows=2)
    small, large, after = Held(at), Held(at, rows=4), Held(at)
    await settled()
    assert (small.runs, large.runs, after.runs) == (True, False, False)
    await small.end()
    await settled()
    assert (large.runs, after.runs) == (True, False)
    await large.end()
    await after.end()


async def test_a_full_queue_refuses_and_says_when_to_come_back():
    at = places(rows=1, limit=1)
    held = [Held(at), Held(at)]
    await settled()
    refused = Held(at)
    with pytest.raises(QueueFullError) as caught:
        await refused.task
    assert caught.value.retry_after
    assert caught.value.retry_after >= 1
    for one in held:
        await one.end()


async def test_without_a_queue_what_fits_still_runs():
    at = places(rows=1, limit=0)
    runs = Held(at)
    await settled()
    assert runs.runs
    with pytest.raises(QueueFullError):
        await Held(at).task
    await runs.end()


async def test_who_is_pushed_out_hears_of_it():
    at = places(rows=1, limit=2)
    running, first, second = Held(at), Held(at), Held(at)
    await settled()
    other = Held(at, "b")
    with pytest.raises(QueueFullError):
        await second.task
    for one in (running, first, other):
        await one.end()


async def test_a_request_that_began_goes_on_before_those_that_did_not_and_is_not_refused():
    at = places(rows=1, limit=1)
    running, waits, goes_on = Held(at), Held(at), Held(at, began=True)
    await settled()
    await running.end()
    await settled()
    assert (waits.runs, goes_on.runs) == (False, True)
    await goes_on.end()
    await settled()
    assert waits.runs
    await waits.end()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.integers(0, 2))))
def test_no_place_is_lost_whoever_leaves_and_when(steps):
    async def play() -> None:
        at = places(rows=3, limit=5)
        held: list[Held] = []
        for tenant, rows, leaves in steps:
            held.append(Held(at, tenant, rows, began=leaves == 2))
            if leaves == 1 and held:
                held.pop(0).task.cancel()
            if leaves == 2:
                await asyncio.sleep(0)
            assert at.rows_running <= 3
        await settled()
        for one in held:
            one.go.set()
        await asyncio.gather(*(one.task for one in held), return_exceptions=True)
        await settled()
        assert (at.rows_running, at.waiting) == (0, 0)

    asyncio.run(play())


async def test_a_place_is_given_back_when_its_holder_is_cancelled_as_it_gets_it():
    at = places(rows=1)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(at.hold("a", 1, BASE))
        next_ = Held(at)
        await settled()
    next_.task.cancel()
    await asyncio.gather(next_.task, return_exceptions=True)
    assert at.rows_running == 0


def test_the_wait_is_told_from_the_completions_that_were_measured():
    now = 0.0
    pace = Pace(lambda: now)
    assert pace.seconds_for(3) == 3
    pace.run()
    for _ in range(50):
        now += 4
        pace.done()
    assert pace.seconds_for(3) == pytest.approx(12, rel=0.01)
    pace.rest()
    now += 10_000  # nobody came meanwhile
    pace.run()
    now += 4
    pace.done()
    assert pace.seconds_for(3) == pytest.approx(12, rel=0.01)
    assert pace.seconds_for(100) == 60
    assert pace.seconds_for(0) == 1
