"""How fast requests are being finished."""

from __future__ import annotations

import time
from collections.abc import Callable

_NEWEST_SHARE = 0.2
_LEAST_S, _MOST_S = 1.0, 60.0


class Pace:
    """The mean time from one completion to the next, newer ones counting more. Time in which
    nothing ran doesn't count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._busy = 0.0
        self._interval: float | None = None

    def run(self) -> None:
        """Something runs from now on, or goes on running."""
        if self._since is None:
            self._since = self._clock()

    def rest(self) -> None:
        """Nothing runs any more."""
        self._count()
        self._since = None

    def done(self) -> None:
        """A request is finished."""
        self._count()
        before = self._busy if self._interval is None else self._interval
        self._interval = before + _NEWEST_SHARE * (self._busy - before)
        self._busy = 0.0

    def _count(self) -> None:
        if self._since is not None:
            now = self._clock()
            self._busy += now - self._since
            self._since = now

    def seconds_for(self, requests: int) -> float:
        """How long so many take, between 1 and 60 s; a second each where nothing was measured."""
        each = 1.0 if self._interval is None else self._interval
        return min(max(requests * each, _LEAST_S), _MOST_S)
