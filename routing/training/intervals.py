"""How far a measured number may be off, for the number of prompts it was measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 300


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float


def wilson(hits: int, n: int) -> Interval:
    """The 95 % Wilson interval of a share (Wilson 1927)."""
    z = 1.96
    share = hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(float(middle - reach), float(middle + reach))


def bootstrap(statistic: Callable[[NDArray[np.int64]], float | None], n: int) -> Interval | None:
    """The 95 % percentile interval of a statistic over n rows (Efron 1979), always the same.

    Args:
        statistic: takes the row numbers of a resample; None where it isn't defined on them.

    Returns:
        None where no resample gives a value.
    """
    rng = np.random.default_rng(0)
    drawn = (statistic(rng.integers(n, size=n)) for _ in range(RESAMPLES if n else 0))
    values = [value for value in drawn if value is not None]
    if not values:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))
