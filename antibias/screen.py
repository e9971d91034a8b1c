"""The cheap screen: which sentences are worth the embedding that the detector needs.

It decides whether a sentence is looked at, never whether it is biased: that is the detector's. One
weight a word and a word class, each counted once a sentence; a sum over 0 is looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from antibias.words import BUCKETS, buckets_of


class Screen:
    """Args: weight: shape (BUCKETS,), one number a bucket."""

    def __init__(self, weight: NDArray[np.floating], bias: float) -> None:
        if weight.shape != (BUCKETS,):
            raise ValueError(f"the screen's weight is {weight.shape}")
        # Single numbers come out of a list in a third of the time that an array takes.
        self._weight: list[float] = weight.tolist()
        self._bias = bias

    def score(self, tokens: Iterable[str]) -> float:
        weight = self._weight
        return self._bias + sum([weight[place] for place in screened(tokens)])


def screened(tokens: Iterable[str]) -> set[int]:
    """The buckets of a sentence's words and word classes."""
    return set(itertools.chain.from_iterable(map(buckets_of, tokens)))
