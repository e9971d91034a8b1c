"""A token bucket (Turner, 1986) that may be overdrawn: what a request cost is known afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable


class Bucket:
    """Holds ``limit`` units at most and fills up in a minute."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._level = float(limit)
        self._at = clock()

    @property
    def level(self) -> float:
        """Units in it now; below zero where more was taken than there was."""
        now = self._clock()
        self._level = min(self._level + (now - self._at) * self._rate, self.limit)
        self._at = now
        return self._level

    @property
    def _rate(self) -> float:
        return self.limit / 60

    def take(self, units: float) -> None:
        """Takes them whether they are there or not."""
        self._level = self.level - units

    def seconds_until(self, units: float) -> float:
        """How long until it holds so many; 0 where it does."""
        return max(units - self.level, 0.0) / self._rate
