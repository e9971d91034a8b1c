"""Fitting the lexicon: one linear support vector machine an output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.lexicon import BUCKETS, Lexicon, counts, quantised, weighed

Array = NDArray[np.float32]

SHARE = 4.0
"""What a margin counts beside the MLP's logits. From 3 to 6 gave the same on prompts of other
sources; less did worse, more is harder to calibrate."""
SOFTNESS = 0.3
SEEN = 2
"""A bucket that fewer prompts fall into says nothing about the next one."""


def fit_lexicon(texts: Sequence[str], targets: Array, *, seed: int) -> Lexicon:
    """Fits the weights; the same texts and seed give the same ones.

    Args:
        texts: the prompts.
        targets: (len(texts), outputs), 1 where the prompt has the label; NaN where it says nothing
            about the output.
    """
    from sklearn.svm import LinearSVC

    rarity = _rarity(texts)
    inputs = _matrix(texts, rarity)
    weights = np.zeros((BUCKETS, targets.shape[1]), np.float32)
    for output in range(targets.shape[1]):
        told = np.flatnonzero(~np.isnan(targets[:, output]))
        labels = targets[told, output]
        if not labels.any() or labels.all():
            continue
        machine = LinearSVC(C=SOFTNESS, random_state=seed, fit_intercept=False)
        machine.fit(inputs[told], labels)
        weights[:, output] = machine.coef_[0] * SHARE
    return quantised(weights, rarity)


def _rarity(texts: Sequence[str]) -> Array:
    """Smoothed inverse document frequency."""
    seen = np.zeros(BUCKETS, np.int64)
    for text in texts:
        seen[list(counts(text))] += 1
    rarity = np.log((1 + len(texts)) / (1 + seen)) + 1
    return np.where(seen < SEEN, 0, rarity).astype(np.float32)


def _matrix(texts: Sequence[str], rarity: Array) -> Any:
    from scipy.sparse import csr_matrix

    rows = [weighed(text, rarity) for text in texts]
    ends = np.cumsum([0, *(len(places) for places, _ in rows)])
    places = np.concatenate([places for places, _ in rows])
    values = np.concatenate([values for _, values in rows])
    return csr_matrix((values, places, ends), shape=(len(texts), BUCKETS))
