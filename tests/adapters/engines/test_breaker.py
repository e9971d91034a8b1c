from __future__ import annotations

import time

import pytest

from adapters.engines.breaker import FIRST_DELAY, Breaker


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock) -> Breaker:
    breaker = Breaker(longest=8.0, threshold=3, clock=clock)
    breaker.reset()
    return breaker


def test_it_opens_after_enough_failures_in_a_row(breaker):
    for _ in range(2):
        breaker.fail()
    assert breaker.state == "closed"
    breaker.succeed()
    for _ in range(2):
        breaker.fail()
    assert breaker.state == "closed"
    breaker.fail()
    assert breaker.state == "open"


def test_each_time_it_opens_again_it_stays_open_for_twice_as_long(breaker):
    waits = []
    breaker.trip()
    for _ in range(6):
        waits.append(breaker.wait)
        breaker.try_again()
        breaker.trip()
    assert waits == [FIRST_DELAY, 1.0, 2.0, 4.0, 8.0, 8.0]


def test_requests_that_fail_together_open_it_once(breaker):
    for _ in range(5):
        breaker.trip()
    assert breaker.wait == FIRST_DELAY


def test_after_a_probe_one_failure_opens_it_again_and_a_success_forgets_the_rest(breaker):
    breaker.trip()
    breaker.try_again()
    assert breaker.state == "half-open"
    breaker.reset()
    breaker.fail()
    assert breaker.state == "open"
    breaker.try_again()
    breaker.reset()
    breaker.succeed()
    breaker.fail()
    assert breaker.state == "closed"


def test_the_wait_passes_with_its_clock(breaker, clock):
    breaker.trip()
    clock.now = 0.3
    assert breaker.wait == pytest.approx(FIRST_DELAY - 0.3)
    clock.now = 100.0
    assert breaker.wait == 0.0


def test_the_wall_clock_may_jump(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: -1e9)
    breaker = Breaker(longest=8.0)
    breaker.trip()
    assert 0 < breaker.wait <= FIRST_DELAY
