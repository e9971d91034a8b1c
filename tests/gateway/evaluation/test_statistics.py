"""Intervals and chances, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.evaluation.statistics import bootstrap, two_sided_p


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (1, 1, 1.0),
        (5, 0, 2 / 32),
        (0, 6, 2 / 64),
        (8, 2, 2 * (45 + 10 + 1) / 1024),
        (2, 8, 2 * (45 + 10 + 1) / 1024),
    ],
)
def test_mcnemar_by_hand(first, second, p):
    assert two_sided_p(first, second) == pytest.approx(p)


def test_an_interval_of_a_share_is_near_the_binomial_one():
    values = np.array([1] * 30 + [0] * 70)
    (found,) = bootstrap(
        [lambda places: float(values[places].mean())], [str(i) for i in range(100)]
    )
    # The normal approximation: 0.3 +- 1.96 * sqrt(0.3 * 0.7 / 100) = 0.210 to 0.390
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(0.210, abs=0.02)
    assert found.high == pytest.approx(0.390, abs=0.02)
    assert found.shows


def test_what_two_arms_share_cancels_in_their_difference():
    hard = np.array([0, 1] * 50)
    first, second = hard, hard.copy()
    (gap,) = bootstrap(
        [lambda places: float((first[places] - second[places]).mean())],
        [str(i) for i in range(100)],
    )
    assert (gap.value, gap.low, gap.high) == (0.0, 0.0, 0.0)
    assert not gap.shows


def test_questions_of_one_unit_are_drawn_together():
    values = np.repeat([0, 1] * 10, 4)  # within a unit all the same: 20 facts, not 80
    mean = [lambda places: float(values[places].mean())]
    (by_unit,) = bootstrap(mean, [str(place // 4) for place in range(80)])
    (by_question,) = bootstrap(mean, [str(place) for place in range(80)])
    ratio = (by_unit.high - by_unit.low) / (by_question.high - by_question.low)
    assert ratio == pytest.approx(2.0, rel=0.15)  # sqrt(4)


@settings(max_examples=10)
@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_an_interval_holds_its_value(outcomes):
    values = np.array(outcomes)
    (found,) = bootstrap(
        [lambda places: float(values[places].mean())], [str(i) for i in range(len(values))]
    )
    assert 0 <= found.low <= found.value <= found.high <= 1
