"""Who waits is read for in order, as far as slots and budget go; who is ready goes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.adapter import Adapter
from adapters.engines.base import Sampling
from adapters.engines.mlx.job import Job, Prompt
from adapters.engines.mlx.resident import Resident
from adapters.engines.mlx.slots import Slots
from adapters.engines.mlx.terms import Prepared
from adapters.engines.mlx.tiny import random_adapter
from adapters.engines.mlx.waiting import LOOKAHEAD, Waiting
from adapters.mix import Mix
from tests.adapters.engines.mlx.reference import make_model, only


class Queue:
    """Rows of a model with the adapters a to f, of one byte size; ``reads`` are begun, not done."""

    def __init__(self, slots: Slots, prepared: Prepared, budget: int) -> None:
        self.resident = Resident(slots, budget * prepared.nbytes)
        self.prepared = prepared
        for key in "abcdef":
            self.resident.offer(key, prepared)
        self.reads: list[str] = []
        self.waiting = Waiting(self.resident, lambda key, adapter: self.reads.append(key))

    def add(self, *mixes: str) -> list[Job]:
        """A row for each mix, whose adapters are its letters."""
        jobs = []
        for keys in mixes:
            adapters = {key: Adapter(key, Path(key), "mlx", 2, 2.0, 0, "", key) for key in keys}
            mix = Mix.of(dict.fromkeys(keys, 1.0))
            prompt, sampling = Prompt([1], 0), Sampling()
            jobs.append(Job(0, prompt, mix, adapters, sampling, 1, False, lambda item: None))
            self.waiting.add(jobs[-1])
        return jobs

    def ready(self) -> Job | None:
        waiter = self.waiting.ready()
        return waiter.job if waiter else None

    def take(self) -> Job:
        waiter = self.waiting.ready()
        assert waiter is not None
        self.waiting.take(waiter)
        return waiter.job


@pytest.fixture(scope="module")
def slots() -> Slots:
    return Slots.patch(make_model["float32"]())


@pytest.fixture(scope="module")
def prepared(slots: Slots) -> Prepared:
    model = make_model["float32"]()
    return slots.prepare(only(random_adapter(model, 1, 2), "mlp.gate"))


@pytest.fixture(autouse=True)
def _nothing_bound(slots: Slots) -> None:
    for key in slots.names:
        slots.unbind(key)


@pytest.fixture
def two(slots: Slots, prepared: Prepared) -> Queue:
    """A budget of two adapters: a and b are in memory."""
    return Queue(slots, prepared, 2)


def test_rows_whose_adapters_are_in_memory_go_in_the_order_they_came(two: Queue) -> None:
    first, second, bare = two.add("b", "ab", "")
    two.waiting.look_ahead(free=0)
    assert two.reads == []
    assert [two.take() for _ in range(3)] == [first, second, bare]
    assert two.waiting.ready() is None


def test_a_row_that_is_read_for_lets_others_pass_and_then_is_first(two: Queue) -> None:
    reading, there, later = two.add("ac", "b", "b")
    two.waiting.look_ahead(free=1)
    assert two.reads == ["c"]
    assert two.take() is there
    two.waiting.loaded("c", two.prepared)
    assert two.take() is reading
    assert two.take() is later


def test_who_has_a_free_slot_is_read_for_whatever_the_budget(two: Queue) -> None:
    two.add("c", "d", "e", "f")
    two.waiting.look_ahead(free=3)
    assert two.reads == ["c", "d", "e"]


def test_who_has_none_is_read_for_within_the_budget_and_in_order(two: Queue) -> None:
    (running,) = two.add("a")
    two.waiting.look_ahead(free=1)
    assert two.take() is running
    large, _, there = two.add("cd", "c", "b")
    two.waiting.look_ahead(free=0)
    assert two.reads == []  # c alone would fit, and take the room that the first one needs
    assert two.ready() is there
    two.waiting.look_ahead(free=1)
    assert two.reads == ["c", "d"]
    two.waiting.remove(large)
    two.waiting.loaded("c", two.prepared)
    assert two.ready() is there


def test_what_two_rows_need_is_read_once_and_serves_both(two: Queue) -> None:
    jobs = two.add("c", "c")
    two.waiting.look_ahead(free=2)
    assert two.reads == ["c"]
    two.waiting.loaded("c", two.prepared)
    assert [two.take(), two.take()] == jobs


def test_what_was_read_for_a_row_that_left_is_let_go(two: Queue) -> None:
    (job,) = two.add("c")
    two.waiting.look_ahead(free=1)
    two.waiting.remove(job)
    two.waiting.loaded("c", two.prepared)
    assert two.resident.missing("abc") == ("c",)
    two.add("c")
    two.waiting.look_ahead(free=1)
    assert two.reads == ["c", "c"]


def test_where_reading_fails_those_who_waited_for_it_leave(two: Queue) -> None:
    lost, other = two.add("c", "b")
    two.waiting.look_ahead(free=2)
    assert two.waiting.failed("c") == (lost,)
    assert two.take() is other
    assert len(two.waiting) == 0
    assert two.resident.fits("e")  # beside b, which the other row holds


def test_a_long_queue_is_looked_at_up_to_a_point(two: Queue) -> None:
    two.add(*["c"] * LOOKAHEAD, "d")
    two.waiting.look_ahead(free=LOOKAHEAD + 1)
    assert two.reads == ["c"]
    two.waiting.loaded("c", two.prepared)
    two.take()
    two.waiting.look_ahead(free=LOOKAHEAD)
    assert two.reads == ["c", "d"]


def test_all_that_wait_can_be_sent_away(two: Queue) -> None:
    jobs = two.add("c", "a")
    two.waiting.look_ahead(free=2)
    assert two.waiting.clear() == tuple(jobs)
    assert len(two.waiting) == 0
    assert two.resident.fits("ef")
