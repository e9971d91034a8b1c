"""One measured comparison of an adapter with its base, and whether it shows the adapter worse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date as Date  # noqa: N812 - `date` is a field below
from fractions import Fraction
from math import comb

SOLVED = "percent solved"
PERPLEXITY = "perplexity"
TEXT_METRICS = frozenset({PERPLEXITY, "loss"})
DIRECTIONS = {SOLVED: True, PERPLEXITY: False, "loss": False}  # whether higher is better
CHANCE = 0.05  # how often an adapter that is as good as the base may be called worse
_CRITICAL = 1.6449  # the normal distribution's quantile for it, one-sided


@dataclass(frozen=True, slots=True)
class Measurement:
    """Base and adapter on the same benchmark.

    ``percent solved`` goes from 0 to 100. ``n`` counts tasks or texts; None where the source
    doesn't say. A measurement that saw each task under both carries what that pairing shows:
    ``only_base`` and ``only_adapter`` count the tasks that one of them alone solved; ``low`` and
    ``high`` bound the difference adapter - base (95 %). ``date`` is the day it was measured, or
    read where the source gives none.
    """

    adapter: str
    base_model: str
    benchmark: str
    metric: str
    base_score: float
    adapter_score: float
    higher_is_better: bool
    source: str
    date: Date
    n: int | None = None
    only_base: int | None = None
    only_adapter: int | None = None
    low: float | None = None
    high: float | None = None

    @property
    def difference(self) -> float:
        """Adapter's score less the base's."""
        return self.adapter_score - self.base_score

    @property
    def loss(self) -> float:
        """By how much the adapter is worse; negative where it is better."""
        return -self.difference if self.higher_is_better else self.difference

    @property
    def is_text(self) -> bool:
        """Whether it measures how likely a text is, and not whether tasks are solved."""
        return self.metric in TEXT_METRICS

    def __str__(self) -> str:
        """``base 73.0 > adapter 66.0 on MBPP (percent solved, n unknown)``."""
        sign = "=" if self.difference == 0 else "<" if self.difference > 0 else ">"
        n = "n unknown" if self.n is None else f"n={self.n}"
        return (
            f"base {_short(self.base_score)} {sign} adapter {_short(self.adapter_score)} "
            f"on {self.benchmark} ({self.metric}, {n})"
        )


def is_worse(row: Measurement) -> bool:
    """Whether the row shows, beyond what chance explains, that the adapter is worse.

    The sharpest test that the row's numbers allow, one-sided at 5 %:

    1. paired counts: McNemar's exact test;
    2. an interval of the difference: all of it lies on the worse side;
    3. percent solved of n tasks: two-proportion z-test with Yates' correction (it takes the two
       runs for independent, which is cautious where they shared their tasks);
    4. else, n being unknown or the metric having no known spread, the scores are compared plainly.

    Lowering the adapter's score never turns True into False (raising it, where lower is better).
    """
    if row.loss <= 0:
        return False
    if row.only_base is not None and row.only_adapter is not None:
        return mcnemar(row.only_base, row.only_adapter) < CHANCE
    if row.low is not None and row.high is not None:
        return row.high < 0 if row.higher_is_better else row.low > 0
    if row.metric == SOLVED and row.n is not None:
        return _z(row.base_score / 100, row.adapter_score / 100, row.n) > _CRITICAL
    return True


def mcnemar(only_base: int, only_adapter: int) -> float:
    """Chance that the base alone solves so many or more of the tasks on which the two differ.

    One-sided and exact: each such task falls to either with probability 1/2 when they are equal.
    """
    differ = only_base + only_adapter
    as_many = sum(comb(differ, k) for k in range(only_base, differ + 1))
    return float(Fraction(as_many, 2**differ))


def _z(base: float, adapter: float, n: int) -> float:
    pooled = (base + adapter) / 2
    spread = math.sqrt(2 * pooled * (1 - pooled) / n)
    return (base - adapter - 1 / n) / spread if spread else 0.0


def _short(score: float) -> str:
    return f"{score:.1f}" if abs(score) >= 10 else f"{score:.3g}"
