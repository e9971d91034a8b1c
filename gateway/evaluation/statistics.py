"""What paired outcomes prove: intervals by bootstrap, McNemar's exact test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapters.evaluation.measurement import mcnemar

RESAMPLES = 4000
_SEED = 0

Score = Callable[[NDArray[np.int64]], float]
"""From the places of questions, some of them more than once, to a number."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def shows(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


def bootstrap(scores: Sequence[Score], units: Sequence[str]) -> list[Interval]:
    """The scores over all questions, with percentile intervals from resampling whole units.

    All scores see the same draws, so one that subtracts two arms is paired. Args: ``units``: the
    unit of each question, by its place.
    """
    _, unit_of, sizes = np.unique(np.array(units), return_inverse=True, return_counts=True)
    in_order = np.argsort(unit_of, kind="stable")
    starts = np.cumsum(sizes) - sizes
    everything = np.arange(len(units))
    generator = np.random.default_rng(_SEED)
    drawn = np.empty((RESAMPLES, len(scores)))
    for row in drawn:
        picked = generator.integers(len(sizes), size=len(sizes))
        places = in_order[_runs(starts[picked], sizes[picked])]
        row[:] = [score(places) for score in scores]
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return [
        Interval(float(score(everything)), float(low[i]), float(high[i]))
        for i, score in enumerate(scores)
    ]


def _runs(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """``sizes[0]`` numbers from ``starts[0]`` on, then ``sizes[1]`` from ``starts[1]`` on, ..."""
    ends = np.cumsum(sizes)
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(ends[-1])


def two_sided_p(only_first: int, only_second: int) -> float:
    """McNemar's exact test: how likely so uneven a split is where neither is better."""
    most, least = max(only_first, only_second), min(only_first, only_second)
    return min(1.0, 2 * mcnemar(most, least))
