"""The adapter mix of one request: names and weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kiki.errors import RequestError

MAX_ADAPTERS = 4


@dataclass(frozen=True, slots=True)
class Mix:
    """At most four adapters, each with its weight, active for one request. Empty is the base.

    A mix is kept sorted by name and without zero weights, so that equal mixes compare equal and
    can key a cache. The effect is the weighted sum of the adapters' updates:
    W + sum(weight * alpha / rank * B @ A).
    """

    weights: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, weights: Mapping[str, float] | Iterable[tuple[str, float]]) -> Mix:
        """Make a mix. Raises RequestError for a weight that is no finite number, or over four."""
        pairs = dict(weights).items()
        for name, weight in pairs:
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise _bad_weight(name, weight)
            if not math.isfinite(weight) or abs(weight) > 10:
                raise _bad_weight(name, weight)
        active = tuple(sorted((name, float(weight)) for name, weight in pairs if weight != 0))
        if len(active) > MAX_ADAPTERS:
            raise RequestError(
                f"{len(active)} adapters were asked for; one request takes at most {MAX_ADAPTERS}.",
                param="kiki.adapters",
                code="too_many_adapters",
            )
        return cls(active)

    @classmethod
    def single(cls, name: str) -> Mix:
        """The mix that is one adapter at its full weight."""
        return cls(((name, 1.0),))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.weights)

    def __bool__(self) -> bool:
        return bool(self.weights)

    def __str__(self) -> str:
        return "+".join(f"{name}={weight:.3g}" for name, weight in self.weights) or "base"


BASE = Mix()


def _bad_weight(name: str, weight: object) -> RequestError:
    return RequestError(
        f"The weight of adapter {name!r} is {weight!r}.",
        param=f"kiki.adapters.{name}",
        fix="Give a finite number between -10 and 10, for example 0.7.",
    )
