"""Adapters that aren't in memory: read beside the rows that run, kept for those that came."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from dataclasses import replace

import pytest

from adapters.adapter import Adapter
from adapters.engines.base import collect, complete
from adapters.engines.mlx import runner
from adapters.folders import read_unchanged
from adapters.mix import Mix
from kiki.errors import AdapterError, EngineError, UnknownAdapterError
from tests.adapters.engines.mlx.serving import (
    ask,
    difference,
    make_adapters,
    one,
    started,
    stats,
    tokens,
    write_base,
)
from tests.waiting import until

A, B, C, D = (Mix.single(name) for name in "abcd")
CLOSE = 1e-3


class Reading:
    """What is read from disk, and on which threads. Reading the adapters in ``held`` waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.threads: set[str] = set()
        self.held: dict[str, threading.Event] = {}

        def read(adapter: Adapter):
            self.names.append(adapter.name)
            self.threads.add(threading.current_thread().name)
            if adapter.name in self.held:
                self.held[adapter.name].wait()
            return read_unchanged(adapter)

        monkeypatch.setattr(runner, "read_unchanged", read)

    def hold(self, name: str) -> threading.Event:
        """Reading ``name`` waits for the event from now on."""
        return self.held.setdefault(name, threading.Event())


@pytest.fixture
def reading(monkeypatch):
    reading = Reading(monkeypatch)
    yield reading
    for event in reading.held.values():
        event.set()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mlx")


@pytest.fixture(scope="module")
def base(folder):
    return write_base(folder, None)


@pytest.fixture(scope="module")
def adapters(folder):
    return make_adapters(folder, "a", "b", "c", "d")


@pytest.fixture(scope="module")
async def roomy(base, adapters):
    async with started(base, adapters) as engine:
        yield engine


@pytest.fixture(scope="module")
def size(roomy):
    """The bytes of one adapter in memory; all are of one size."""
    return stats(roomy).adapters.nbytes // 4


async def test_under_a_small_budget_adapters_come_and_go_and_answers_stay(
    base, adapters, roomy, size, reading
):
    mixes = [A, B, C, D]
    mixes += [Mix.of({"a": 0.5, "b": 0.5}), Mix.of({"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1})]
    expected = [await one(roomy, ask(mix)) for mix in mixes]
    budget = size * 3 // 2
    async with started(base, adapters, adapter_budget_bytes=budget) as small:
        assert small.adapters == ("a", "b", "c", "d")
        assert stats(small).adapters.adapters == 1
        for _ in range(2):
            found = await complete(small, [ask(mix) for mix in mixes])
            for here, there in zip(found, expected, strict=True):
                assert difference(here, there) < CLOSE
            await until(lambda: stats(small).adapters.nbytes <= budget)
        assert stats(small).adapters.evictions >= 6
    assert not any(name == "kiki-mlx" for name in reading.threads)


async def test_a_row_whose_adapter_is_read_lets_others_pass_and_then_runs(
    base, adapters, roomy, size, reading
):
    alone = [await one(roomy, ask(mix)) for mix in (B, A, A)]
    async with started(base, adapters, adapter_budget_bytes=size, slots=1) as small:
        read = reading.hold("b")
        seen = []
        async with aclosing(small.generate([ask(B), ask(A), ask(A)])) as deltas:
            async for delta in deltas:
                seen.append(delta)
                if delta.finish_reason and delta.row == 2:
                    read.set()

    async def replay():
        for delta in seen:
            yield delta

    assert [delta.row for delta in seen if delta.finish_reason] == [1, 2, 0]
    for here, there in zip(await collect(replay(), 3), alone, strict=True):
        assert difference(here, there) < CLOSE


async def test_the_next_rows_adapter_is_read_while_the_slot_is_taken(
    base, adapters, size, reading, turns
):
    async with started(base, adapters, adapter_budget_bytes=2 * size, slots=1) as small:
        reading.names.clear()
        turns.only(3)
        rows = asyncio.create_task(complete(small, [ask(A, max_tokens=30), ask(C), ask(D)]))
        await turns.taken()
        await until(lambda: stats(small).adapters.loads == 3)
        assert (stats(small).active_rows, stats(small).waiting_rows) == (1, 2)
        # The budget holds a and c: d waits until a row lets go.
        assert reading.names == ["c"]
        turns.free()
        await rows
        assert reading.names == ["c", "d"]


async def test_what_is_read_for_a_row_is_read_once(base, adapters, size, reading):
    for slots in (1, 4):
        async with started(base, adapters, adapter_budget_bytes=size, slots=slots) as small:
            reading.names.clear()
            await complete(small, [ask(mix) for mix in (A, B, C, D)])
            assert sorted(reading.names) == ["b", "c", "d"]


async def test_waiting_rows_keep_the_version_that_they_came_for(
    base, adapters, roomy, turns, tmp_path
):
    (other,) = make_adapters(tmp_path, "z")
    expected = [await one(roomy, ask(A, max_tokens=30)), await one(roomy, ask(B))]
    async with started(base, adapters[:2], slots=1) as engine:
        turns.only(3)
        rows = asyncio.create_task(complete(engine, [ask(A, max_tokens=30), ask(B)]))
        await turns.taken()
        await until(lambda: stats(engine).waiting_rows == 1)
        assert await engine.set_adapters([replace(other, name="b")]) == ()
        with pytest.raises(UnknownAdapterError):
            await one(engine, ask(A))
        turns.free()
        for here, there in zip(await rows, expected, strict=True):
            assert difference(here, there) < CLOSE
        assert tokens(await one(engine, ask(B))) != tokens(expected[1])
        await until(lambda: stats(engine).adapters.adapters == 1)


async def test_a_version_that_is_no_longer_served_is_still_read_for_who_came_for_it(
    base, adapters, roomy, size, turns
):
    expected = await one(roomy, ask(B))
    async with started(base, adapters[:2], adapter_budget_bytes=size, slots=1) as small:
        turns.only(3)
        running = asyncio.create_task(one(small, ask(A, max_tokens=30)))
        waiting = asyncio.create_task(one(small, ask(B)))
        await turns.taken()
        await until(lambda: stats(small).waiting_rows == 1)
        assert await small.set_adapters(adapters[:1]) == ()
        turns.free()
        await running
        assert difference(await waiting, expected) < CLOSE
        await until(lambda: stats(small).adapters.nbytes <= size)


async def test_one_whose_files_are_others_before_it_was_read_is_refused(
    base, adapters, size, turns, tmp_path
):
    mine = make_adapters(tmp_path, "a", "b")
    async with started(base, mine, adapter_budget_bytes=size, slots=1) as small:
        turns.only(3)
        running = asyncio.create_task(one(small, ask(A, max_tokens=30)))
        waiting = asyncio.create_task(one(small, ask(B)))
        await turns.taken()
        await until(lambda: stats(small).waiting_rows == 1)
        for file in mine[1].path.iterdir():
            file.unlink()
        assert await small.set_adapters(mine[:1]) == ()
        turns.free()
        with pytest.raises(UnknownAdapterError, match="'b' was removed or replaced"):
            await waiting
        assert (await running).usage.completion_tokens > 0
        assert (await one(small, ask(A))).usage.completion_tokens > 0


async def test_one_that_cannot_be_read_ends_its_row_alone(
    base, adapters, size, reading, monkeypatch
):
    async with started(base, adapters[:2], adapter_budget_bytes=size) as small:

        def fails(adapter: Adapter):
            raise AdapterError("The disk is gone.")

        with monkeypatch.context() as patch:
            patch.setattr(runner, "read_unchanged", fails)
            with pytest.raises(EngineError, match="'b' can't be loaded: The disk is gone"):
                await one(small, ask(B))
            assert (await one(small, ask(A))).usage.completion_tokens > 0
        assert (await one(small, ask(B))).usage.completion_tokens > 0


async def test_swaps_say_whether_a_mix_was_in_memory_or_on_disk(base, adapters, size):
    async with started(base, adapters[:2], adapter_budget_bytes=size) as small:
        swaps = []
        small.swaps.listener = lambda method, seconds: swaps.append((method, seconds))
        for mix in (A, B, B, Mix()):
            await one(small, ask(mix))
    assert [method for method, _ in swaps] == ["bind", "load", "bind"]
    assert all(seconds > 0 for _, seconds in swaps)
