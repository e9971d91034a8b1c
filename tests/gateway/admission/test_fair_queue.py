from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from adapters.mix import BASE, Mix
from gateway.admission.fair_queue import FairQueue, Waiting

MIXES = [BASE, Mix.single("shell"), Mix.single("sql")]
tenants = st.sampled_from("abcd")
requests = st.tuples(tenants, st.integers(1, 4), st.sampled_from(MIXES))


def waiting(tenant: str = "a", rows: int = 1, mix: Mix = BASE) -> Waiting:
    return Waiting(tenant, rows, mix)


def served(queue: FairQueue, running: list[Mix] | None = None) -> list[Waiting]:
    """All, in the order in which they are served."""
    order = []
    while one := queue.next(running or []):
        queue.take(one)
        order.append(one)
    return order


@given(st.lists(requests, max_size=60), st.integers(1, 10), st.sampled_from(MIXES))
def test_never_more_wait_than_may_and_each_is_served_or_turned_away_once(asked, limit, running):
    queue = FairQueue(limit, bypass=2)
    pushed, turned_away = [], []
    for request in asked:
        one = waiting(*request)
        pushed.append(one)
        if out := queue.push(one):
            turned_away.append(out)
        assert len(queue) <= limit
    order = served(queue, [running])
    assert Counter(order + turned_away) == Counter(pushed)
    assert len(queue) == 0


@given(st.lists(st.integers(1, 4), min_size=1), st.lists(st.integers(1, 4), min_size=1))
def test_two_tenants_that_wait_never_get_more_than_a_request_apart(first, second):
    queue = FairQueue(1000, bypass=2)
    for rows in first:
        queue.push(waiting("a", rows))
    for rows in second:
        queue.push(waiting("b", rows))
    left, had = {"a": len(first), "b": len(second)}, {"a": 0, "b": 0}
    while left["a"] and left["b"]:
        one = queue.next([])
        assert one
        queue.take(one)
        left[one.tenant] -= 1
        had[one.tenant] += one.rows
        assert abs(had["a"] - had["b"]) <= 4


@given(st.lists(st.sampled_from(MIXES), min_size=1, max_size=40), st.integers(0, 4))
def test_a_request_is_overtaken_for_a_mix_so_often_and_no_more(mixes, bypass):
    queue = FairQueue(1000, bypass)
    asked = [waiting(mix=mix) for mix in mixes]
    for one in asked:
        queue.push(one)
    # One mix keeps coming, as long as another waits.
    for place, one in enumerate(served(queue, [MIXES[1]])):
        assert place - asked.index(one) <= bypass


@given(st.integers(1, 30))
def test_a_tenant_that_comes_late_is_served_next_and_gets_nothing_for_having_been_away(before):
    queue = FairQueue(1000, bypass=0)
    for _ in range(before + 3):
        queue.push(waiting("a"))
    for _ in range(before):
        one = queue.next([])
        assert one
        queue.take(one)
    for _ in range(4):
        queue.push(waiting("b"))
    order = [one.tenant for one in served(queue)]
    assert "b" in order[:2]
    assert order[:4].count("b") == 2


def test_requests_of_the_mix_that_runs_go_first_within_their_tenant_alone():
    queue = FairQueue(10, bypass=2)
    shell, sql = Mix.single("shell"), Mix.single("sql")
    for tenant, mix in [("a", sql), ("a", shell), ("b", sql), ("b", sql)]:
        queue.push(waiting(tenant, mix=mix))
    order = [(one.tenant, one.mix) for one in served(queue, [shell])]
    assert order == [("a", shell), ("b", sql), ("a", sql), ("b", sql)]


def test_a_full_queue_makes_room_for_who_waits_for_less():
    queue = FairQueue(4, bypass=0)
    flood = [waiting("a") for _ in range(4)]
    for one in flood:
        assert queue.push(one) is None
    assert queue.push(waiting("b")) is flood[3]
    assert queue.push(waiting("b")) is flood[2]
    refused = waiting("b")
    assert queue.push(refused) is refused


def test_rows_that_were_not_waited_for_count_too():
    queue = FairQueue(10, bypass=0)
    for tenant in "aabb":
        queue.push(waiting(tenant))
    queue.charge("a", 2)
    assert [one.tenant for one in served(queue)] == ["b", "b", "a", "a"]
