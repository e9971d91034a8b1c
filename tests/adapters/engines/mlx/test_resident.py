"""Adapters stay in memory within the budget; what a row holds is never evicted."""

from __future__ import annotations

import logging

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx_lm.models.qwen3_5_moe import Model

from adapters.engines.mlx.resident import Lease, Resident
from adapters.engines.mlx.slots import Slots
from adapters.engines.mlx.tiny import random_adapter
from adapters.lora import Lora
from adapters.mix import BASE, Mix
from tests.adapters.engines.mlx.reference import make_model, only

KEYS = tuple("abcdef")
IDS = mx.array([[1, 2, 3]])


@pytest.fixture(scope="module")
def model() -> Model:
    return make_model["float32"]()


@pytest.fixture(scope="module")
def slots(model: Model) -> Slots:
    return Slots.patch(model)


@pytest.fixture(scope="module")
def loras(model: Model) -> dict[str, Lora]:
    return {key: only(random_adapter(model, seed, 2), "mlp.gate") for seed, key in enumerate(KEYS)}


@pytest.fixture(scope="module")
def size(slots: Slots, loras: dict[str, Lora]) -> int:
    """The bytes of one adapter; all are of one size."""
    return slots.prepare(loras["a"]).nbytes


@pytest.fixture(autouse=True)
def _nothing_bound(slots: Slots) -> None:
    for key in slots.names:
        slots.unbind(key)


def offered(slots: Slots, loras: dict[str, Lora], budget: int, keys: str = "abcdef") -> Resident:
    """With ``keys`` served, in memory as far as the budget goes."""
    held = Resident(slots, budget)
    for key in keys:
        held.offer(key, slots.prepare(loras[key]))
    return held


def acquire(held: Resident, slots: Slots, loras: dict[str, Lora], keys: str) -> Lease:
    """A row's hold on ``keys``, with what was missing read."""
    lease = held.hold(keys)
    for key in held.missing(keys):
        held.put(key, slots.prepare(loras[key]))
    return lease


def test_what_is_served_is_in_memory_up_to_the_budget(
    slots: Slots, loras: dict[str, Lora], size: int
) -> None:
    held = offered(slots, loras, 4 * size)
    assert held.missing(KEYS) == ("e", "f")
    assert held.keys == slots.names == ("a", "b", "c", "d")
    stats = held.stats
    assert (stats.adapters, stats.nbytes, stats.loads, stats.evictions) == (4, 4 * size, 4, 0)


def test_the_least_recently_used_goes_first(
    slots: Slots, loras: dict[str, Lora], size: int
) -> None:
    held = offered(slots, loras, 3 * size)
    held.hold("a").release()
    acquire(held, slots, loras, "d").release()
    assert held.keys == ("c", "a", "d")
    assert set(slots.names) == {"a", "c", "d"}
    assert (held.stats.loads, held.stats.evictions) == (4, 1)


def test_what_nobody_wants_goes_before_what_a_request_wants(
    slots: Slots, loras: dict[str, Lora], size: int
) -> None:
    held = offered(slots, loras, 2 * size)
    held.want("a")
    acquire(held, slots, loras, "c").release()
    assert set(held.keys) == {"a", "c"}
    held.want("c")
    acquire(held, slots, loras, "d").release()
    assert set(held.keys) == {"c", "d"}


def test_what_a_row_holds_is_not_evicted(slots: Slots, loras: dict[str, Lora], size: int) -> None:
    held = offered(slots, loras, 2 * size)
    with held.hold("a"), held.hold("a"):
        acquire(held, slots, loras, "c").release()
        assert set(held.keys) == {"a", "c"}
    acquire(held, slots, loras, "d").release()
    assert set(held.keys) == {"c", "d"}


def test_what_is_held_before_it_comes_counts_towards_the_budget(
    slots: Slots, loras: dict[str, Lora], size: int
) -> None:
    held = offered(slots, loras, 2 * size)
    assert held.fits("ef")
    lease = held.hold("e")
    assert held.fits("f")
    assert held.fits("ef")
    assert not held.fits("af")
    lease.release()
    assert held.fits("af")


def test_over_the_budget_rows_are_served_and_the_log_says_so_once(
    slots: Slots, loras: dict[str, Lora], size: int, caplog: pytest.LogCaptureFixture
) -> None:
    held = offered(slots, loras, 2 * size)
    with caplog.at_level(logging.WARNING):
        leases = [acquire(held, slots, loras, key) for key in "abcd"]
    assert set(slots.names) == {"a", "b", "c", "d"}
    assert [record.message for record in caplog.records] == [
        f"the adapters of running rows take {3 * size} bytes, over the budget of {2 * size}"
    ]
    for lease in leases:
        lease.release()
        lease.release()
    assert held.stats.nbytes == 2 * size


def test_an_adapter_that_is_dropped_stays_until_its_last_row_ends(
    slots: Slots, loras: dict[str, Lora], size: int
) -> None:
    held = offered(slots, loras, 4 * size, "abc")
    first, second = held.hold("a"), held.hold("ab")
    held.drop("a")
    held.drop("c")
    first.release()
    assert "a" in slots.names
    second.release()
    assert slots.names == ("b",)
    assert held.stats.nbytes == size


def test_an_adapter_that_is_dropped_stays_while_a_request_wants_it(
    slots: Slots, loras: dict[str, Lora], size: int
) -> None:
    held = offered(slots, loras, 2 * size, "ab")
    held.want("a")
    held.want("a")
    held.drop("a")
    held.unwant("a")
    assert held.is_dropped("a")
    with acquire(held, slots, loras, "c"), acquire(held, slots, loras, "d"):
        assert set(slots.names) == {"a", "c", "d"}
    held.unwant("a")
    assert not held.is_dropped("a")
    assert "a" not in slots.names


def test_one_that_is_served_again_before_its_row_ends_stays(
    slots: Slots, loras: dict[str, Lora], size: int
) -> None:
    held = offered(slots, loras, 4 * size, "a")
    lease = held.hold("a")
    held.drop("a")
    held.offer("a", slots.prepare(loras["a"]))
    lease.release()
    assert slots.names == ("a",)


def test_what_another_thread_prepared_is_taken_in_once(
    slots: Slots, loras: dict[str, Lora], size: int
) -> None:
    held = Resident(slots, size)
    assert held.missing("ab") == ("a", "b")
    for key in "aba":
        held.put(key, slots.prepare(loras[key]))
    assert held.missing("ab") == ("b",)
    assert (held.stats.loads, held.stats.evictions) == (3, 2)


def test_an_adapter_that_came_back_answers_as_before(
    model: Model, slots: Slots, loras: dict[str, Lora], size: int
) -> None:
    held = Resident(slots, size)
    with acquire(held, slots, loras, "a"):
        slots.use([Mix.single("a")])
        before = model(IDS)
        mx.eval(before)
        slots.use([BASE])
    acquire(held, slots, loras, "b").release()
    with acquire(held, slots, loras, "a"):
        slots.use([Mix.single("a")])
        assert mx.array_equal(model(IDS), before)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 4),
    st.lists(st.tuples(st.sampled_from(("take", "let go", "drop", "want")), st.sampled_from(KEYS))),
)
def test_whatever_happens_rows_keep_their_adapters_and_the_budget_holds(
    slots: Slots,
    loras: dict[str, Lora],
    size: int,
    room: int,
    steps: list[tuple[str, str]],
) -> None:
    held = Resident(slots, room * size)
    leases, wanted = [], []
    for step, key in steps:
        if step == "take":
            leases.append(acquire(held, slots, loras, key))
        elif step == "drop":
            held.drop(key)
        elif step == "want":
            held.want(key)
            wanted.append(key)
        elif leases:
            leases.pop(0).release()
        pinned = {key for lease in leases for key in lease.keys}
        kept = pinned | {key for key in wanted if held.is_dropped(key)}
        assert pinned <= set(slots.names) == set(held.keys)
        assert held.stats.nbytes == len(held.keys) * size
        assert held.stats.nbytes <= max(room * size, len(kept) * size)
    for lease in leases:
        lease.release()
    for key in wanted:
        held.unwant(key)
    for key in held.keys:
        held.drop(key)
    assert slots.names == ()
    assert held.stats.nbytes == 0
