from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.engines.llamacpp.turns import Turns
from adapters.mix import BASE, Mix

MIXES = [BASE, Mix.single("shell"), Mix.of({"shell": 0.5, "python": 0.5})]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Row:
    """A row that stays in its turn until it is told to end."""

    def __init__(self, turns: Turns, mix: Mix) -> None:
        self.mix = mix
        self.running = False
        self._end = asyncio.Event()
        self.task = asyncio.create_task(self._run(turns))

    async def _run(self, turns: Turns) -> None:
        async with turns.turn(self.mix):
            self.running = True
            try:
                await self._end.wait()
            finally:
                self.running = False

    async def end(self) -> None:
        self._end.set()
        await self.task


# Each step starts a row of a mix, or (None) ends the oldest running one.
Steps = st.lists(st.one_of(st.none(), st.sampled_from(MIXES)), max_size=40)


@given(steps=Steps, slots=st.integers(1, 4))
def test_one_mix_at_a_time_no_slot_too_many_and_nobody_overtaken_for_ever(steps, slots):
    async def play() -> None:
        turns = Turns(slots)
        rows: list[Row] = []
        overtaken: dict[Row, set[Row]] = {}

        def check() -> None:
            running = [row for row in rows if row.running]
            assert len(running) <= slots
            assert len({row.mix for row in running}) <= 1
            for waiting in (row for row in rows if not row.running and not row.task.done()):
                later = rows[rows.index(waiting) + 1 :]
                overtaken.setdefault(waiting, set()).update(r for r in later if r.running)
                assert len(overtaken[waiting]) <= slots

        async def end_oldest() -> None:
            running = [row for row in rows if row.running]
            if running:
                await running[0].end()
                await settle()
                check()

        for mix in steps:
            if mix is None:
                await end_oldest()
            else:
                rows.append(Row(turns, mix))
                await settle()
                check()
        while any(not row.task.done() for row in rows):
            assert any(row.running for row in rows)
            await end_oldest()

    asyncio.run(play())


async def test_rows_of_one_mix_run_together_and_others_wait_for_their_turn():
    turns = Turns(2)
    first, other, joiner = (Row(turns, mix) for mix in (MIXES[1], BASE, MIXES[1]))
    await settle()
    assert [row.running for row in (first, other, joiner)] == [True, False, True]
    await first.end()
    await joiner.end()
    await settle()
    assert other.running
    await other.end()


async def test_a_steady_stream_of_one_mix_does_not_starve_another():
    turns = Turns(2)
    stream = [Row(turns, MIXES[1])]
    await settle()
    other = Row(turns, BASE)
    started = 1
    while not other.running:
        stream.append(Row(turns, MIXES[1]))
        started += 1
        await settle()
        await next(row for row in stream if row.running).end()
        await settle()
        assert started < 10
    for row in [other, *stream]:
        await row.end()


@pytest.mark.parametrize("running", [True, False], ids=["running", "waiting"])
async def test_a_cancelled_row_gives_its_place_to_the_next(running):
    turns = Turns(1)
    first, second = Row(turns, BASE), Row(turns, MIXES[1])
    await settle()
    victim, left = (first, second) if running else (second, first)
    victim.task.cancel()
    with suppress(asyncio.CancelledError):
        await victim.task
    await settle()
    assert left.running
    third = Row(turns, BASE)
    await left.end()
    await settle()
    assert third.running
    await third.end()
