"""A circuit breaker: who keeps failing is left alone for a while, and then tried again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, get_args

CircuitState = Literal["closed", "half-open", "open"]
CIRCUIT_STATES: tuple[CircuitState, ...] = get_args(CircuitState)

FIRST_DELAY = 0.5


class Breaker:
    """Opens after ``threshold`` failures in a row, or at once when it is tripped.

    Each time it opens again it stays open for twice as long, from ``FIRST_DELAY`` up to
    ``longest`` seconds; a success closes it and makes the next delay the first one again. After
    a probe alone (``reset``) one failure opens it: a server that answers probes and fails on
    requests is not trusted. ``clock`` is monotonic: the wall clock may jump.
    (Nygard, Release It!, 2007.)
    """

    def __init__(
        self,
        longest: float,
        *,
        threshold: int = 5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._longest = longest
        self._threshold = threshold
        self._clock = clock
        self._failures = 0
        self._delay = FIRST_DELAY
        self._retry_at = float("-inf")
        self.state: CircuitState = "half-open"  # until something answers or fails

    @property
    def closed(self) -> bool:
        return self.state == "closed"

    @property
    def wait(self) -> float:
        """Seconds until it may be tried again."""
        return max(0.0, self._retry_at - self._clock())

    def succeed(self) -> None:
        """A request was answered."""
        if self.closed:
            self._failures = 0
            self._delay = FIRST_DELAY

    def fail(self) -> None:
        """A request failed through the server's fault."""
        self._failures += 1
        if self._failures >= self._threshold:
            self.trip()

    def trip(self) -> None:
        """It is known not to answer."""
        if self.state == "open":  # of many requests that fail together, the first one counts
            return
        self._failures = self._threshold
        self._retry_at = self._clock() + self._delay
        self._delay = min(self._delay * 2, self._longest)
        self.state = "open"

    def try_again(self) -> None:
        """A probe is on its way."""
        self.state = "half-open"

    def reset(self) -> None:
        """A probe was answered; the next request decides."""
        self._failures = min(self._failures, self._threshold - 1)
        self.state = "closed"
