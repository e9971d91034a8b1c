"""What the second look at an answer may cost: one budget for both of its stages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

Exhausted = Literal["tokens", "time"]


class Budget:
    """Tokens and seconds. The seconds run from the first ``begin``.

    ``exhausted`` is set by whoever had to stop, and says what there was too little of.
    """

    def __init__(
        self, tokens: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.tokens = tokens
        self.seconds = seconds
        self.spent = 0
        self.exhausted: Exhausted | None = None
        self._clock = clock
        self._began: float | None = None

    def begin(self) -> None:
        """Start the clock; a second call changes nothing."""
        if self._began is None:
            self._began = self._clock()

    @property
    def tokens_left(self) -> int:
        return max(self.tokens - self.spent, 0)

    @property
    def seconds_left(self) -> float:
        return max(self.seconds - self._elapsed, 0.0)

    def allows(self, tokens: int) -> bool:
        """Whether a call that may cost this much fits; where not, the tokens are exhausted."""
        if self.seconds_left <= 0:
            self.exhausted = "time"
            return False
        if tokens > self.tokens_left:
            self.exhausted = "tokens"
            return False
        return True

    def spend(self, tokens: int) -> None:
        self.spent += tokens

    def state(self) -> dict[str, object]:
        """For ``explain``: what was spent, of how much, and what ran out."""
        return {
            "tokens": self.spent,
            "of_tokens": self.tokens,
            "seconds": round(min(self._elapsed, self.seconds), 3),
            "of_seconds": self.seconds,
            "exhausted": self.exhausted,
        }

    @property
    def _elapsed(self) -> float:
        return 0.0 if self._began is None else self._clock() - self._began
