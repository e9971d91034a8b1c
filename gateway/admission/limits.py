"""What the holder of a key may still ask for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.access.keys import Key
from gateway.admission.bucket import Bucket
from gateway.admission_settings import AdmissionSettings
from kiki.errors import LimitError

_WHEN_ONE_IS_DONE_S = 1.0
_Limits = tuple[int | None, int | None, int | None]


@dataclass(slots=True)
class Allowance:
    """Of one key: requests and tokens of this minute, and requests at a time; None is no limit."""

    requests: Bucket | None
    tokens: Bucket | None
    concurrent: int | None
    limits: _Limits
    running: int = 0

    @contextmanager
    def request(self, name: str) -> Iterator[None]:
        """Counts a request while it runs. Raises LimitError where it is one too many."""
        self._check(name)
        if self.requests:
            self.requests.take(1)
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    def _check(self, name: str) -> None:
        if self.concurrent is not None and self.running >= self.concurrent:
            raise LimitError(
                f"The key {name} may have {self.concurrent} requests at a time, and has them.",
                retry_after=_WHEN_ONE_IS_DONE_S,
                fix="Wait until one is done.",
            )
        if self.requests and (seconds := self.requests.seconds_until(1)):
            raise LimitError(
                f"The key {name} may send {self.requests.limit} requests a minute.",
                retry_after=seconds,
                fix=f"Come again in {seconds:.1f} s.",
            )
        if self.tokens and (seconds := self.tokens.seconds_until(1)):
            raise LimitError(
                f"The key {name} may use {self.tokens.limit} tokens a minute.",
                retry_after=seconds,
                limited="tokens",
                fix=f"Come again in {seconds:.1f} s.",
            )

    def spend(self, tokens: int) -> None:
        """Count tokens that a request used."""
        if self.tokens:
            self.tokens.take(tokens)

    def headers(self) -> Iterator[tuple[str, str]]:
        """``x-ratelimit-*``, as OpenAI's: limit, what remains, and when all of it is back."""
        for kind, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket:
                yield f"x-ratelimit-limit-{kind}", str(bucket.limit)
                yield f"x-ratelimit-remaining-{kind}", str(max(int(bucket.level), 0))
                yield f"x-ratelimit-reset-{kind}", _duration(bucket.seconds_until(bucket.limit))


def _duration(seconds: float) -> str:
    """As OpenAI writes it: ``870ms``, ``7.66s``, ``2m59.56s``."""
    if seconds < 1:
        return f"{round(seconds * 1e3)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:.2f}s" if minutes else f"{rest:.2f}s"


class Allowances:
    """The allowance of each key that has a limit. Limits that changed begin anew."""

    def __init__(
        self, settings: AdmissionSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._of: dict[str, Allowance] = {}

    def of(self, key: Key) -> Allowance | None:
        """None for a key that is free of limits."""
        limits = (
            key.requests_per_minute or self._settings.key_requests_per_minute,
            key.tokens_per_minute or self._settings.key_tokens_per_minute,
            key.concurrent or self._settings.key_concurrent,
        )
        known = self._of.get(key.name)
        if known is not None and known.limits == limits:
            return known
        if limits == (None, None, None):
            return None
        requests, tokens, concurrent = limits
        made = Allowance(
            Bucket(requests, self._clock) if requests else None,
            Bucket(tokens, self._clock) if tokens else None,
            concurrent,
            limits,
        )
        self._of[key.name] = made
        return made
