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
    members: dict[str, list[int]] = {}
    for place, unit in enumerate(units):
        members.setdefault(unit, []).append(place)
    groups = [np.array(places) for places in members.values()]
    everything = np.arange(len(units))
    generator = np.random.default_rng(_SEED)
    drawn = np.empty((RESAMPLES, len(scores)))
    for row in drawn:
        picked = generator.integers(len(groups), size=len(groups))
        places = np.concatenate([groups[group] for group in picked])
        row[:] = [score(places) for score in scores]
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return [
        Interval(float(score(everything)), float(low[i]), float(high[i]))
        for i, score in enumerate(scores)
    ]


def two_sided_p(only_first: int, only_second: int) -> float:
    """McNemar's exact test: how likely so uneven a split is where neither is better."""
    most, least = max(only_first, only_second), min(only_first, only_second)
    return min(1.0, 2 * mcnemar(most, least))
