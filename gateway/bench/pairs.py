"""Two or more ways of doing the same work, measured in turn, so that the machine's noise is shared.

A ratio is taken within each round and its median over the rounds: what else runs on the machine
slows both sides of a round, and most of that falls out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gateway.bench.report import Metric, median


def in_turn(rounds: int, *sides: Callable[[], float]) -> list[list[float]]:
    """Each side's measurements, one a round; every second round goes the other way round."""
    measured: list[list[float]] = [[] for _ in sides]
    for number in range(rounds):
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for index in order:
            measured[index].append(sides[index]())
    return measured


def ratio(over: Sequence[float], under: Sequence[float]) -> Metric:
    """The median of ``over`` divided by ``under``, round by round."""
    return median([a / b for a, b in zip(over, under, strict=True)], "ratio")


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
