"""One budget of tokens and seconds."""

from __future__ import annotations

from kiki.budget import Budget


def test_tokens_run_out_and_it_says_so() -> None:
    budget = Budget(100, 60)
    assert budget.allows(100)
    budget.spend(70)
    assert budget.tokens_left == 30
    assert not budget.allows(31)
    assert budget.state()["exhausted"] == "tokens"


def test_the_clock_runs_from_the_first_begin() -> None:
    now = [0.0]
    budget = Budget(100, 10, clock=lambda: now[0])
    now[0] = 5.0
    assert budget.seconds_left == 10
    budget.begin()
    now[0] = 9.0
    budget.begin()
    assert budget.seconds_left == 6
    now[0] = 15.0
    assert not budget.allows(1)
    assert budget.exhausted == "time"


def test_what_is_left_is_never_less_than_nothing() -> None:
    budget = Budget(10, 60)
    budget.spend(50)
    assert budget.tokens_left == 0
